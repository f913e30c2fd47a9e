"""Where a step's time goes on a GPU: by kind of kernel, by kernel, and how long the GPU idles.

    python ci/gpu_profile.py [--model FOLDER] [--backend NAME] [--seconds N] [--out FOLDER]

Serves nothing: steps the engine's core in this process with random prompts and dummy weights, and
reads torch's profiler. Prints a table last; writes FOLDER/profile.json after every case, and
FOLDER/profile.png. No case begins later than N seconds (60) after the start.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import faulthandler
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import numpy as np
import torch
from dummy_model import write
from gpu_profile_plot import write_plot
from gpu_trace import Case, Span, read, summarize, table
from torch.profiler import ProfilerActivity, profile

from inarch.config import EngineConfig
from inarch.engine.build import Built, build
from inarch.engine.messages import Abort, NewRequest
from inarch.engine.resolve import resolve, set_environment
from inarch.plugins import load_plugins
from inarch.sampling import SamplingParams

CONTEXT = 1024  # tokens of a prompt whose request then decodes
SETTLE = 4  # steps before a case is measured: what it compiles and captures is there
HOST_STEPS = 6
HUNG_S = 100  # after which it ends, saying where it was
GREEDY = SamplingParams(temperature=0, ignore_eos=True)


Recorder = Callable[[Callable[[], None]], list[Span]]  # runs it and says what the device did


@dataclasses.dataclass(frozen=True)
class Load:
    """Steps in which `decodes` requests decode and one prompt of `prompt` tokens comes and goes."""

    name: str
    decodes: int
    prompt: int = 0
    steps: int = 16


# Requests only leave, so that their prompts are computed once.
LOADS = (
    Load("decode 512", 512),
    Load("decode 256", 256),
    Load("decode 64", 64),
    Load("64 + prefill 512", 64, 512),
    Load("decode 8", 8),
    Load("decode 1", 1),
    Load("prefill 1 x 128", 0, 128),
    Load("prefill 1 x 512", 0, 512),
    Load("prefill 4 x 8192", 0, 8192, steps=4),
)
# What the first request produces while the last prompts are computed and all cases are measured.
MOST_OUTPUT = 320


class Driver:
    """Steps a core by hand, so that it is known what is in each step."""

    def __init__(self, built: Built, record: Recorder) -> None:
        self._core, self._device, self._record = built.core, built.device, record
        self._vocabulary = built.info.vocab_size
        self.holds = built.info.kv_tokens // (CONTEXT + MOST_OUTPUT + built.info.page_tokens)
        self._random = np.random.default_rng(0)
        self._handles = 0
        self._decoding: list[int] = []

    def measure(self, load: Load) -> Case:
        self._reach(load.decodes)
        for _ in range(SETTLE):
            self._step(load)
        if self._core.stats().running < load.decodes:
            raise RuntimeError(f"{load.name}: requests ended early, at {MOST_OUTPUT} tokens")
        host_ms = statistics.median(self._host_ms(load) for _ in range(HOST_STEPS))
        self._device.synchronize()
        spans = self._record(lambda: self._run(load))
        return summarize(load.name, spans, load.steps, host_ms)

    def _run(self, load: Load) -> None:
        for _ in range(load.steps):
            self._step(load)
        self._device.synchronize()

    def _reach(self, decodes: int) -> None:
        """Have exactly so many requests that decode, and nothing else under way."""
        while len(self._decoding) > decodes:
            self._core.abort(Abort(handle=self._decoding.pop()))
        added = {self._add(CONTEXT, MOST_OUTPUT) for _ in range(decodes - len(self._decoding))}
        self._decoding += sorted(added)
        while added:
            for output in self._core.step().values():
                added.difference_update(output.handles)
        while not decodes and self._core.has_work:
            self._core.step()

    def _step(self, load: Load) -> None:
        if load.prompt:
            self._add(load.prompt, 1)
        self._core.step()

    def _host_ms(self, load: Load) -> float:
        """Of a step before which the device was done: nothing is waited for."""
        self._device.synchronize()
        started = time.perf_counter()
        self._step(load)
        return (time.perf_counter() - started) * 1000

    def _add(self, length: int, tokens: int) -> int:
        self._handles += 1
        prompt = self._random.integers(0, self._vocabulary, length, dtype=np.int32)
        self._core.add(
            NewRequest(
                handle=self._handles, prompt=prompt.tobytes(), params=GREEDY, max_tokens=tokens,
                stop_ids=[], seed=self._handles,
            )
        )  # fmt: skip
        return self._handles


def traced(work: Callable[[], None]) -> list[Span]:
    """By way of the exported trace: it is written by C++, and read without torch's analysis."""
    with profile(activities=[ProfilerActivity.CUDA]) as recorded:
        work()
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder) / "trace.json"
        recorded.export_chrome_trace(str(trace))
        return read(trace)


def start(model: Path, backend: str, most_running: int) -> Built:
    plugins = load_plugins()
    config = EngineConfig(
        model=str(model), load_format="dummy", backend=backend, max_running_requests=most_running
    )
    config, chosen = resolve(config, plugins)
    set_environment(chosen)
    return build(config, chosen, plugins)


def cases(driver: Driver, loads: Sequence[Load], deadline: float) -> Iterator[Case]:
    """deadline: on time.monotonic."""
    for load in loads:
        if load.decodes > driver.holds:
            print(f"{load.name}: not run: the KV cache holds {driver.holds} such requests")
        elif time.monotonic() > deadline:
            print(f"{load.name}: not run: no time was left")
        else:
            yield driver.measure(load)


def main() -> None:
    began = time.monotonic()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, help="another folder than that of the dummy model")
    parser.add_argument("--backend", default="nvidia")
    parser.add_argument("--seconds", type=float, default=60, help="begin no case after this time")
    parser.add_argument("--out", type=Path, default=Path(), help="folder for what is written")
    arguments = parser.parse_args()
    faulthandler.dump_traceback_later(HUNG_S, exit=True)
    arguments.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as work:
        model = arguments.model or Path(work) / "llama-8b-shape"
        if arguments.model is None:
            write(model)
        built = start(model, arguments.backend, max(load.decodes for load in LOADS))
        print(f"ready after {time.monotonic() - began:.1f} s", flush=True)
        found: list[Case] = []
        for case in cases(Driver(built, traced), LOADS, began + arguments.seconds):
            found.append(case)
            print(f"{case.name} after {time.monotonic() - began:.1f} s", flush=True)
            save(arguments.out / "profile.json", built, found)
        built.device.close()
    title = f"Inarch on {built.info.device}, {datetime.date.today()}"
    write_plot(arguments.out / "profile.png", title, found)
    print(f"\n{title}; {built.info.dtype}, torch {torch.__version__}; idle: nothing ran")
    print("\n".join(table(found)))


def save(path: Path, built: Built, found: Sequence[Case]) -> None:
    said: dict[str, Any] = {
        "date": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        "device": built.info.device,
        "dtype": built.info.dtype,
        "torch": torch.__version__,
        "cases": [dataclasses.asdict(case) | {"idle": case.idle} for case in found],
    }
    path.write_text(json.dumps(said, indent=1))


if __name__ == "__main__":
    main()
