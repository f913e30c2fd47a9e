"""What holding answers to a grammar costs: 64 such requests beside 64 that are free.

    python ci/bench_grammar.py [--json FILE]

On the null backend, whose steps take as long as is asked and cost the host nothing, and with the bundled
model on this machine's processor. One schema asks for a long list of objects, so that every answer has
as many tokens as are asked for, the other for free strings. The target is 90 % of the free requests'
tokens per second.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import json
import platform
import sys
import tempfile
import time
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parent))

from bench_host import CONFIG, VOCABULARY
from null_backend import LateTransfer, NullBackend, NullDevice, NullExecutor

from inarch.config import EngineConfig
from inarch.engine.build import build
from inarch.engine.core import EngineCore
from inarch.engine.engine import Engine
from inarch.engine.messages import NewRequest
from inarch.grammar import Grammar
from inarch.hal.device import Transfer
from inarch.hal.executor import Step, StepInputs, StepShape
from inarch.hal.kv import KVState
from inarch.hal.op import Kernel
from inarch.hal.reference.host import cpu_name
from inarch.plugins import load_plugins
from inarch.sampling import SamplingParams

RUNNING, TOKENS = 64, 256
ROOT = Path(__file__).parent.parent
PERSON = {
    "type": "object",
    "properties": {
        "born": {"type": "string", "format": "date"},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "colour": {"enum": ["red", "green", "blue"]},
        "tags": {"type": "array", "items": {"enum": ["a", "b", "other"]}, "maxItems": 3},
    },
    "required": ["born", "age", "colour", "tags"],
    "additionalProperties": False,
}
# Mostly forced tokens, which are not computed one by one; and next to none, so that every token is
# masked: the null device yields the lowest token that is allowed, which never ends a string.
SCHEMAS = {
    "objects": {"type": "array", "items": PERSON, "minItems": 200},
    "strings": {"type": "array", "items": {"type": "string"}},
}


class ObedientDevice(NullDevice):
    """A null device that is busy from a step's forward pass on, and yields tokens that are allowed."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._mask: tuple[np.ndarray, np.ndarray] | None = None

    def kernels(self) -> Sequence[Kernel]:
        return [
            *(kernel for kernel in super().kernels() if kernel.op != "greedy"),
            Kernel("apply_token_mask", "obedient", self._note),
            Kernel("greedy", "obedient", self._greedy),
        ]

    def executor(self) -> ObedientExecutor:
        return ObedientExecutor(self, self._vocab_size)

    def download(self, tensor: Tensor) -> Transfer:
        return LateTransfer(tensor.numpy(), self._busy_until)

    def forward(self) -> None:
        """A step's forward pass is given to the device."""
        self._busy_until = max(self._busy_until, time.monotonic()) + self._step_s

    def _note(self, logits: Tensor, bitmask: Tensor, rows: Tensor) -> Tensor:
        self._mask = bitmask.numpy().view(np.uint32), rows.numpy()
        return logits

    def _greedy(self, logits: Tensor) -> Tensor:
        """The lowest token that is allowed."""
        tokens = np.full(len(logits), 7)
        if self._mask is not None:
            words, rows = self._mask
            place = (words != 0).argmax(1)
            word = words[np.arange(len(words)), place].astype(np.int64)
            tokens[rows] = place * 32 + np.log2(word & -word).astype(np.int64)
        self._mask = None
        return torch.from_numpy(tokens)


class ObedientExecutor(NullExecutor):
    def __init__(self, device: ObedientDevice, vocab_size: int) -> None:
        super().__init__(device, vocab_size)
        self._obedient = device

    def run(self, step: Step, shape: StepShape, inputs: StepInputs, kv: KVState) -> Any:
        self._obedient.forward()
        return super().run(step, shape, inputs, kv)


class ObedientBackend(NullBackend):
    def open(self, index: int) -> NullDevice:
        return ObedientDevice(*self._arguments)


def save_tokenizer(folder: Path) -> None:
    """A byte-level BPE of the texts in this repository."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=["<s>", "<pad>", "</s>"], show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    files = [str(path) for kind in ("*.py", "*.md") for path in sorted(ROOT.rglob(kind))]
    tokenizer.train(files, trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "</s>"}))


def make_core(folder: Path, step_s: float, engine: str) -> EngineCore:
    (folder / "config.json").write_text(json.dumps(CONFIG | {"eos_token_id": 2}))
    config = EngineConfig(
        model=str(folder), load_format="dummy", max_running_requests=RUNNING, grammar_engine=engine
    )
    config = dataclasses.replace(config, backend="null", served_model_name="null")
    return build(config, ObedientBackend(VOCABULARY, step_s=step_s), load_plugins()).core


def rate(core: EngineCore, grammar: Grammar | None, count: int) -> tuple[float, float]:
    """Tokens per second, and milliseconds of processor time for each step, of `count` requests that
    are held to a grammar, if there is one, and of as many free ones as fill the batch."""
    for handle in range(RUNNING):
        held = grammar if handle < count else None
        params = SamplingParams(temperature=0, ignore_eos=True, grammar=held)
        prompt = np.arange(100 + handle, 200 + handle, dtype=np.int32).tobytes()
        core.add(
            NewRequest(
                handle=handle, prompt=prompt, params=params, max_tokens=TOKENS, stop_ids=[],
                seed=handle,
            )
        )  # fmt: skip
    while core.compiling and not core.has_work:
        core.await_grammar()
    before, began, busy = core.stats(), time.perf_counter(), time.thread_time()
    while core.has_work or core.compiling:
        core.step()
        assert not (refused := core.take_refused()), refused
    took, busy, after = time.perf_counter() - began, time.thread_time() - busy, core.stats()
    steps = after.steps - before.steps
    return (after.generated_tokens - before.generated_tokens) / took, busy / steps * 1000


def bundled(grammar: Grammar | None, engine: Engine) -> float:
    """Tokens per second with the bundled model."""
    params = SamplingParams(temperature=1, seed=1, ignore_eos=True, max_tokens=64, grammar=grammar)
    prompts = [f"Question {i}: who are they?" for i in range(RUNNING)]
    began = time.perf_counter()
    answers = engine.generate(prompts, params)
    return sum(len(a.token_ids) for a in answers) / (time.perf_counter() - began)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="also write the figures here")
    arguments = parser.parse_args()
    figures: dict[str, float] = {}
    print(f"{cpu_name()}, Python {platform.python_version()}, {datetime.date.today()}")
    print(f"{'':<44}{'free tok/s':>12}{'held tok/s':>12}{'ratio':>8}{'free ms':>9}{'held ms':>9}")
    engines = [e.name for e in load_plugins().grammar_engines() if not e.missing()]
    with tempfile.TemporaryDirectory() as folder:
        save_tokenizer(Path(folder))
        for name, (kind, schema), step_ms in product(engines, SCHEMAS.items(), (5, 10, 20)):
            grammar = Grammar(kind="json_schema", source=json.dumps(schema))
            core = make_core(Path(folder), step_ms / 1000, name)
            rate(core, grammar, RUNNING)  # compiles
            free, free_ms = rate(core, None, 0)
            held, held_ms = rate(core, grammar, RUNNING)
            label = f"null, steps of {step_ms} ms, {kind}, {name}"
            report(label, free, held, figures, free_ms, held_ms)
    for name in engines:
        with Engine(
            EngineConfig(backend="reference", kv_tokens=32768, grammar_engine=name)
        ) as engine:
            grammar = Grammar(kind="json_schema", source=json.dumps(SCHEMAS["objects"]))
            for warm in (None, grammar):
                bundled(warm, engine)
            rounds = [(bundled(None, engine), bundled(grammar, engine)) for _ in range(3)]
            free, held = (float(np.median(column)) for column in zip(*rounds, strict=True))
            report(f"bundled model, objects, {name}", free, held, figures)
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1))


def report(label: str, free: float, held: float, figures: dict[str, float], *times: float) -> None:
    figures[label] = held / free
    print(f"{label:<44}{free:>12,.0f}{held:>12,.0f}{held / free:>8.0%}", end="")
    print("".join(f"{ms:>9.2f}" for ms in times))


if __name__ == "__main__":
    main()
