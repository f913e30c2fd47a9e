"""What a step costs the host, measured with a backend that computes nothing.

    python ci/bench_host.py [--json FILE]

Prints milliseconds of processor time that a decode step takes at several batch sizes, and that
admitting a long prompt takes against prefix trees of growing size: time of the thread, so that a
busy neighbour does not count. Limits are stated beside the figures; nothing here is a test.
"""

from __future__ import annotations

import argparse
import datetime
import json
import platform
import statistics
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))

from null_backend import NullBackend

from inarch.config import EngineConfig
from inarch.engine.build import build
from inarch.engine.core import EngineCore
from inarch.engine.messages import NewRequest, encode
from inarch.engine.request import Request
from inarch.engine.scheduler import Scheduler
from inarch.hal.reference.host import cpu_name
from inarch.plugins import load_plugins
from inarch.sampling import SamplingParams

VOCABULARY = 32_000
CONFIG = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": VOCABULARY,
    "hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2,
    "num_key_value_heads": 1, "max_position_embeddings": 131_072, "torch_dtype": "float32",
}  # fmt: skip


def make_core(folder: Path, running: int) -> EngineCore:
    (folder / "config.json").write_text(json.dumps(CONFIG))
    config = EngineConfig(model=str(folder), load_format="dummy", max_running_requests=running)
    config = replace(config, backend="null", served_model_name="null", max_step_tokens=8192)
    return build(config, NullBackend(VOCABULARY), load_plugins()).core


def decode_step_ms(folder: Path, running: int, params: SamplingParams, steps: int = 300) -> float:
    """Median time of a step in which `running` requests decode at about 1,000 tokens each."""
    core = make_core(folder, running)
    prompts = np.random.default_rng(0).integers(1, VOCABULARY, (running, 1000), dtype=np.int32)
    for handle, prompt in enumerate(prompts):
        core.add(
            NewRequest(
                handle=handle, prompt=prompt.tobytes(), params=params, max_tokens=4 * steps,
                stop_ids=[2], seed=handle,
            )
        )  # fmt: skip
    while core.stats().generated_tokens < running * 10:
        core.step()
    times = []
    for _ in range(steps):
        started = time.thread_time()
        for output in core.step().values():
            encode(output)
        times.append(time.thread_time() - started)
    return statistics.median(times) * 1000


def admission_ms(cached_tokens: int, prompt_tokens: int = 100_000, page_tokens: int = 16) -> float:
    """Time to plan the first chunk of a long prompt, half of which is cached, as one request."""
    scheduler = Scheduler(
        pages=(cached_tokens + 4 * prompt_tokens) // page_tokens, page_tokens=page_tokens,
        max_running=256, max_step_tokens=8192, context_length=131_072,
    )  # fmt: skip
    rng = np.random.default_rng(0)
    long = rng.integers(0, VOCABULARY, prompt_tokens, dtype=np.int32)
    fill(scheduler, long[: prompt_tokens // 2])
    while scheduler.pool.cache.pages * page_tokens < cached_tokens:
        fill(scheduler, rng.integers(0, VOCABULARY, 1000, dtype=np.int32))
    times = []
    for handle in range(20):
        tail = rng.integers(0, VOCABULARY, prompt_tokens // 2, dtype=np.int32)
        prompt = np.concatenate((long[: prompt_tokens // 2], tail))
        request = Request(handle, prompt, SamplingParams(), max_tokens=1)
        started = time.thread_time()
        scheduler.add(request)
        plan = scheduler.plan()
        assert plan is not None
        scheduler.publish(plan)
        times.append(time.thread_time() - started)
        scheduler.abort(request)
        scheduler.commit(plan, [1])
    return statistics.median(times) * 1000


def fill(scheduler: Scheduler, prompt: np.ndarray) -> None:
    """Serve a prompt to its end, so that its pages become cache."""
    scheduler.add(Request(-1, prompt, SamplingParams(), max_tokens=1))
    while (plan := scheduler.plan()) is not None:
        scheduler.publish(plan)
        scheduler.commit(plan, [1] * len(plan.requests))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="also write the figures here")
    arguments = parser.parse_args()
    kinds = {"greedy": SamplingParams(temperature=0), "sampled": SamplingParams(top_p=0.9)}
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        for kind, params in kinds.items():
            for running in (1, 32, 256):
                name = f"decode step, {running} running, {kind}"
                figures[name] = decode_step_ms(Path(folder), running, params)
    for cached in (100_000, 300_000, 1_000_000):
        figures[f"admit 100,000 tokens, {cached:,} cached"] = admission_ms(cached)
    print(f"{cpu_name()}, Python {platform.python_version()}, {datetime.date.today()}")
    limits = {"decode step, 32": 0.3, "decode step, 256": 1.0, "admit": 5.0}
    for name, value in figures.items():
        limit = next((f"  (limit {v} ms)" for k, v in limits.items() if name.startswith(k)), "")
        print(f"{name:<45} {value:7.3f} ms{limit}")
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
