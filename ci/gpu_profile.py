"""Where a step's time goes on a GPU: kernels by milliseconds a step, and how long the GPU idles.

    python ci/gpu_profile.py [--model FOLDER] [--backend NAME] [--out FOLDER]

Serves nothing: drives the engine in this process with random prompts and dummy weights, and reads
torch's profiler. Writes FOLDER/profile.json.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import torch
from dummy_model import VOCABULARY, write
from torch.profiler import ProfilerActivity, profile

from inarch.config import EngineConfig
from inarch.engine.engine import Engine
from inarch.sampling import SamplingParams

STEPS = 16  # profiled decode steps
SETTLED = 40  # decode steps before them: graphs are captured, nothing is compiled any more
MOST_KERNELS = 14  # shown of each case
NAME_WIDTH = 72


@dataclass(frozen=True)
class Case:
    """What one profile says. Milliseconds a step, on the device."""

    name: str
    span_ms: float  # from the first kernel's begin to the last one's end
    busy_ms: float  # in which at least one kernel ran
    kernels: dict[str, tuple[float, float]]  # name -> (calls a step, milliseconds a step)

    @property
    def idle(self) -> float:
        return 1 - self.busy_ms / self.span_ms if self.span_ms else 0.0


def prompts(count: int, length: int, seed: int) -> list[list[int]]:
    draw = random.Random(seed)
    return [draw.choices(range(1000, VOCABULARY - 1000), k=length) for _ in range(count)]


def greedy(count: int, tokens: int) -> list[SamplingParams]:
    return [SamplingParams(temperature=0, max_tokens=tokens, ignore_eos=True)] * count


def decodes(engine: Engine, batch: int, context: int) -> Case:
    """Steps in which `batch` requests of about `context` tokens decode and nothing else happens."""
    outputs = engine.stream_batch(
        prompts(batch, context, batch), greedy(batch, context + SETTLED + 2 * STEPS)
    )
    counts = Counter[int]()
    while len(counts) < batch or min(counts.values()) < SETTLED:
        counts[next(outputs)[0]] += 1
    case = profiled(f"decode, {batch} x {context}", outputs, batch * STEPS, STEPS)
    outputs.close()  # type: ignore[attr-defined]
    return case


def prefills(engine: Engine, count: int, length: int) -> Case:
    """New prompts of `length` tokens, one after the other as the step budget has it."""
    for _ in engine.stream_batch(prompts(1, length, -1), greedy(1, 1)):
        pass  # compiles what this shape needs
    outputs = engine.stream_batch(prompts(count, length, length), greedy(count, 1))
    steps = max(1, count * length // engine_step_tokens(engine))
    return profiled(f"prefill, {count} x {length}", outputs, count, steps)


def engine_step_tokens(engine: Engine) -> int:
    return engine.config.max_step_tokens or 8192


def profiled(name: str, outputs: Iterator[Any], advance: int, steps: int) -> Case:
    """Take `advance` outputs under the profiler; they are taken to come from `steps` steps."""
    torch.accelerator.synchronize()
    with profile(activities=[ProfilerActivity.CUDA]) as recorded:
        for _ in range(advance):
            next(outputs)
        torch.accelerator.synchronize()
    return summarize(name, recorded, steps)


def summarize(name: str, recorded: profile, steps: int) -> Case:
    spans = sorted(
        (event.time_range.start, event.time_range.end, event.name)
        for event in recorded.events() or ()
        if event.device_type == torch.autograd.DeviceType.CUDA and event.time_range.end
    )
    calls, times = Counter[str](), Counter[str]()
    busy, reached = 0.0, 0.0
    for start, end, kernel in spans:
        calls[kernel] += 1
        times[kernel] += end - start
        busy += max(end - max(start, reached), 0)
        reached = max(reached, end)
    span = reached - spans[0][0] if spans else 0.0
    kernels = {
        kernel: (calls[kernel] / steps, microseconds / steps / 1000)
        for kernel, microseconds in times.most_common()
    }
    return Case(name, span / steps / 1000, busy / steps / 1000, kernels)


def show(case: Case) -> None:
    print(
        f"\n{case.name}: {case.span_ms:.3f} ms a step, busy {case.busy_ms:.3f}, "
        f"idle {case.idle:.1%}"
    )
    for kernel, (calls, milliseconds) in list(case.kernels.items())[:MOST_KERNELS]:
        print(f"  {milliseconds:8.3f} ms {calls:7.1f} x  {kernel[:NAME_WIDTH]}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, help="another folder than that of the dummy model")
    parser.add_argument("--backend", default="nvidia")
    parser.add_argument("--out", type=Path, default=Path())
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        model = arguments.model or Path(work) / "llama-8b-shape"
        if arguments.model is None:
            write(model)
        config = EngineConfig(
            model=str(model),
            load_format="dummy",
            backend=arguments.backend,
            max_running_requests=512,
        )
        with Engine(config) as engine:
            cases = [decodes(engine, batch, 1024) for batch in (1, 64, 256)]
            cases += [prefills(engine, 4, 8192), prefills(engine, 32, 128)]
    (arguments.out / "profile.json").write_text(
        json.dumps([asdict(case) | {"idle": case.idle} for case in cases], indent=1)
    )
    for case in cases:
        show(case)


if __name__ == "__main__":
    main()
