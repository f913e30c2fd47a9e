"""Prefill by these kernels and decode by the reference, and the other way round: the same tokens."""

from __future__ import annotations

import pytest

from inarch.config import EngineConfig
from inarch.engine.engine import Engine
from inarch.sampling import SamplingParams

PROMPT = "Once upon a time there was a small boat on a big lake. " * 6


@pytest.mark.parametrize(
    ("first", "second"), [("intel_cpu", "reference"), ("reference", "intel_cpu")]
)
def test_either_side_goes_on_from_what_the_other_has_prefilled(
    installed: None, first: str, second: str
) -> None:
    greedy = SamplingParams(temperature=0, max_tokens=24, ignore_eos=True)

    def engine(backend: str) -> Engine:
        size = 12 if backend == "reference" else None
        return Engine(
            EngineConfig(backend=backend, dtype="float32", kv_tokens=1024, page_size=size)
        )

    with engine(first) as one:
        (expected,) = one.generate(PROMPT, greedy)
        prefix = one.export_prefix(PROMPT)
    with engine(second) as other:
        cached = other.import_prefix(prefix)
        (answer,) = other.generate(PROMPT, greedy)
    assert answer.cached_tokens == cached >= 48
    assert answer.token_ids == expected.token_ids
