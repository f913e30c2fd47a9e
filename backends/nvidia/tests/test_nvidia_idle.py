"""Under load the GPU does not wait for the host: read from a trace of torch's profiler."""

from __future__ import annotations

import gc
import json
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from inarch.config import EngineConfig
from inarch.engine.engine import Engine
from inarch.sampling import SamplingParams

from .random_models import VOCABULARY, save_tokenizer

pytestmark = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="needs an NVIDIA GPU: ci/gpu runs this file on one"
)
# Half the layers of an 8B model: a step takes the GPU longer than the host needs for one.
CONFIG = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": VOCABULARY,
    "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 16,
    "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128,
    "max_position_embeddings": 4096, "torch_dtype": "bfloat16",
}  # fmt: skip
BATCH, SETTLED, STEPS = 64, 20, 20
BETWEEN_KERNELS_US = 5.0  # what the GPU itself may take from one kernel to the next


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    save_tokenizer(tmp_path)
    config = EngineConfig(
        model=str(tmp_path), backend="nvidia", load_format="dummy", kv_tokens=1 << 17,
        max_running_requests=BATCH,
    )  # fmt: skip
    with Engine(config) as engine:
        yield engine
    gc.collect()
    torch.cuda.empty_cache()


def decoding(engine: Engine) -> Iterator[Any]:
    """The outputs of BATCH requests that have all decoded for a while."""
    draw = random.Random(0)
    prompts = [draw.choices(range(VOCABULARY), k=1024) for _ in range(BATCH)]
    params = SamplingParams(temperature=0, max_tokens=256, ignore_eos=True)
    outputs = engine.stream_batch(prompts, [params] * BATCH)
    counts = Counter[int]()
    while len(counts) < BATCH or min(counts.values()) < SETTLED:
        counts[next(outputs)[0]] += 1
    return outputs


def idle_share(recorded: Any) -> float:
    """The part of the time, from the first work on the GPU to the last, in longer pauses."""
    spans = sorted(
        (event.time_range.start, event.time_range.end)
        for event in recorded.events()
        if event.device_type == torch.autograd.DeviceType.CUDA and event.time_range.end
    )
    idle, reached = 0.0, spans[0][0]
    for start, end in spans:
        pause = start - reached
        idle += pause if pause > BETWEEN_KERNELS_US else 0.0
        reached = max(reached, end)
    assert reached > spans[0][0]
    return idle / (reached - spans[0][0])


def test_the_gpu_is_idle_for_less_than_a_hundredth_of_decoding(engine: Engine) -> None:
    outputs = decoding(engine)
    with profile(activities=[ProfilerActivity.CUDA]) as warming:  # its own start takes long
        next(outputs)
    del warming
    for _ in range(BATCH * 4):
        next(outputs)
    with profile(activities=[ProfilerActivity.CUDA]) as recorded:
        for _ in range(BATCH * STEPS):
            next(outputs)
        torch.cuda.synchronize()
    assert idle_share(recorded) < 0.01
    outputs.close()  # type: ignore[attr-defined]
