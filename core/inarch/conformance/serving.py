"""Level 4: whole models through the engine, token for token what the reference backend answers.

The reference answers each prompt alone, whole and without a prefix cache. A token may differ only
where the reference itself finds the two as good as equally likely; what follows such a token is
another text, and no longer compared.
"""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from inarch.config import EngineConfig
from inarch.conformance.case import Case, Failed, require
from inarch.conformance.models import MODELS, SMALL, save
from inarch.conformance.subject import Subject, dtype_name
from inarch.conformance.verification import Loaded, StepByStep, verify
from inarch.discovery import PluginRecord
from inarch.hal.backend import Backend, Probe
from inarch.hal.device import Device
from inarch.plugins import Plugins, load_plugins
from inarch.sampling import SamplingParams

if TYPE_CHECKING:
    from inarch.engine.answers import Answer
    from inarch.engine.engine import Engine

TIES = {"float32": 1e-3, "float16": 0.05, "bfloat16": 0.3}  # natural logs of probabilities
LENGTHS = (1, 16, 17, 75, 150)  # of prompts
NEW = 16  # tokens of an answer
WITHOUT_EXPERTS = ("dense", "windows")  # in 16 bits an expert's choice turns on a rounding
RECURRENT = ("recurrent",)  # a state cannot go back to before a draft
Prompts = Sequence[list[int]]


def cases(subject: Subject, plugins: Plugins) -> Iterator[Case]:
    for model in MODELS:
        for dtype, _ in subject.device.dtypes(torch.float32):
            column = dtype_name(dtype)
            for name, check in CHECKS.items():
                if check is _verification and model in RECURRENT:
                    continue
                if column == "float32" or (check in NARROW and model in WITHOUT_EXPERTS):
                    serving = Serving(subject, plugins, model, column)
                    run = functools.partial(check, serving)
                    yield Case(4, "engine", f"{model}-{name}-{column}", run, dtype=column)


class Simulated(Backend):
    """A backend whose device is the one that it simulates."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self.name = backend.name

    def probe(self) -> Probe:
        return Probe(score=1)

    def open(self, index: int) -> Device:
        device = self._backend.simulation()
        assert device is not None
        return device


class With(Plugins):
    """The installed plugins, and one backend in the place of all theirs."""

    def __init__(self, plugins: Plugins, backend: Backend) -> None:
        super().__init__(plugins._loaded)
        self._backend = backend

    def backends(self) -> list[tuple[Backend, PluginRecord]]:
        if self._backend.name == "reference":
            return []  # the core has it already
        record = PluginRecord(self._backend.name, "under test", "", "")
        return [(self._backend, record)]


class Serving:
    """Engines for a model: of the backend under test, and of the reference."""

    def __init__(self, subject: Subject, plugins: Plugins, model: str, dtype: str) -> None:
        self.subject, self.model, self.dtype = subject, model, dtype
        backend = Simulated(subject.backend) if subject.simulated else subject.backend
        self._plugins = With(plugins, backend)
        self.page = subject.page_tokens()[0]

    def start(self, **options: Any) -> Engine:
        from inarch.engine.engine import Engine

        return Engine(self._config(**options), plugins=self._plugins)

    def load(self) -> Loaded:
        """The model without an engine round it."""
        return loaded(self._config(), self._plugins)

    def _config(self, **options: Any) -> EngineConfig:
        given: dict[str, Any] = {"kv_tokens": 64 * self.page, "max_running_requests": 8, **options}
        given |= {"backend": self.subject.backend.name, "dtype": self.dtype}
        return EngineConfig(model=str(folder(self.model)), **given)

    def compare(self, prompts: Prompts, answers: Sequence[Answer], new: int = NEW) -> str:
        ties = 0
        for number, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
            ties += self._compare(number, prompt, list(answer.token_ids), new)
        return f"{len(prompts)} answers, {ties} ties"

    def _compare(self, number: int, prompt: list[int], got: list[int], new: int) -> bool:
        """Whether a tie ended the comparison. Raises Failed."""
        right = expected(self.model, self.dtype, tuple(prompt), new)
        for place, (token, probable) in enumerate(zip(got, right, strict=False)):
            best = max(probable, key=lambda known: probable[known])
            if token == best:
                continue
            gap = probable[best] - probable.get(token, -np.inf)
            if gap <= TIES[self.dtype]:
                return True
            raise Failed(
                f"prompt {number} of {len(prompt)} tokens: token {place} of the answer is {token}, "
                f"not {best}, which is exp({gap:.3g}) times as likely"
            )
        require(len(got) == new, f"prompt {number}: {len(got)} tokens came, not {new}")
        return False


@functools.cache
def folder(model: str) -> Path:
    """Where the model is, made on first use and gone with the process."""
    made = tempfile.TemporaryDirectory(prefix="inarch-conformance-")
    _kept.append(made)
    save(model, Path(made.name))
    return Path(made.name)


_kept: list[tempfile.TemporaryDirectory[str]] = []


@functools.cache
def reference(model: str, dtype: str) -> Engine:
    from inarch.engine.engine import Engine

    return Engine(plain(model, dtype), plugins=load_plugins(entries=[]))


@functools.cache
def step_by_step(model: str, dtype: str) -> StepByStep:
    return StepByStep(loaded(plain(model, dtype), load_plugins(entries=[])))


def plain(model: str, dtype: str) -> EngineConfig:
    """The reference, with no prefix cache and no batch."""
    options: dict[str, Any] = {"backend": "reference", "dtype": dtype, "kv_tokens": 1024}
    options |= {"prefix_cache": False, "max_running_requests": 1}
    return EngineConfig(model=str(folder(model)), **options)


def loaded(config: EngineConfig, plugins: Plugins) -> Loaded:
    from inarch.engine.preparation import prepare
    from inarch.engine.resolve import resolve

    config, backend = resolve(config, plugins)
    return Loaded(prepare(config, backend, plugins))


@functools.cache
def expected(
    model: str, dtype: str, prompt: tuple[int, ...], new: int
) -> tuple[dict[int, float], ...]:
    """The likeliest tokens at each place of the reference's answer, with their log-probabilities."""
    answer = reference(model, dtype).generate(list(prompt), greedy(new, logprobs=5))[0]
    return tuple(dict(place.top) for place in answer.logprobs)


def greedy(new: int, **more: Any) -> SamplingParams:
    return SamplingParams(temperature=0, max_tokens=new, ignore_eos=True, **more)


def prompts_of(lengths: Sequence[int]) -> list[list[int]]:
    return [
        np.random.default_rng(length).integers(0, SMALL["vocab_size"], length).tolist()
        for length in lengths
    ]


# ---- what must hold ----


def _batch(serving: Serving) -> str:
    """Prompts of all lengths at once, cut into chunks; then again, from the prefix cache."""
    prompts = prompts_of([*LENGTHS, 2 * serving.page + 5])
    with serving.start(max_step_tokens=24) as engine:
        first = engine.generate(prompts, greedy(NEW))
        again = engine.generate(prompts, greedy(NEW))
    note = serving.compare(prompts, first)
    serving.compare(prompts, again)
    cached = sum(answer.cached_tokens for answer in again)
    require(cached >= serving.page, "nothing of the prompts was found in the prefix cache")
    return f"{note}, {cached} tokens cached"


def _retraction(serving: Serving) -> str:
    """A pool too small for all that run: some give way, and lose no token."""
    page = serving.page
    new = page // 2 + 8
    prompts = prompts_of([page - 5 + i for i in range(5)])
    with serving.start(kv_tokens=5 * page) as engine:
        answers = engine.generate(prompts, greedy(new))
        retractions = engine.stats().retractions
    note = serving.compare(prompts, answers, new)
    require(retractions > 0, "the small pool was no trouble: the case tests nothing")
    return f"{note}, {retractions} retractions"


def _sampling(serving: Serving) -> str:
    """Seeded sampling with filters and penalties gives the reference's tokens, in any batch."""
    params = SamplingParams(
        temperature=0.8, top_k=20, top_p=0.9, min_p=0.01, seed=4, max_tokens=8, ignore_eos=True,
        repetition_penalty=1.2, presence_penalty=0.3, logit_bias={3: 2.0},
    )  # fmt: skip
    prompts = prompts_of(LENGTHS[:4])
    right = [reference(serving.model, serving.dtype).generate(p, params)[0] for p in prompts]
    with serving.start() as engine:
        together = engine.generate(prompts, params)
        alone = [engine.generate(prompt, params)[0] for prompt in prompts[:2]]
    for number, answer in enumerate(right):
        for found in (together[number], *alone[number : number + 1]):
            require(
                found.token_ids == answer.token_ids,
                f"prompt {number}: {list(found.token_ids)} was sampled, not "
                f"{list(answer.token_ids)}",
            )
    return f"{len(prompts)} answers"


def _verification(serving: Serving) -> str:
    """Chains and trees of drafts in one step have the logits of the reference, token by token."""
    with torch.inference_mode():
        return verify(serving.load(), step_by_step(serving.model, serving.dtype), serving.dtype)


NARROW = (_batch, _verification)  # in 16 bits too
CHECKS: dict[str, Callable[[Serving], str]] = {
    "batch": _batch,
    "verification": _verification,
    "retraction": _retraction,
    "sampling": _sampling,
}
