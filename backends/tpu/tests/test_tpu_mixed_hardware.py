"""Prefill by XLA and decode by the reference, and the other way round: the same tokens."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("jax", reason="JAX is not installed: pip install -r ci/jax.txt")

from inarch.sampling import SamplingParams

from .random_models import VOCABULARY, make

GREEDY = SamplingParams(temperature=0, max_tokens=12, ignore_eos=True)


def test_either_side_goes_on_from_what_the_other_has_prefilled(
    start: Callable[..., Any], tmp_path: Path
) -> None:
    prompt = random.Random(3).choices(range(VOCABULARY), k=75)
    folder = make("qwen3", tmp_path)
    routes = [
        ({"backend": "reference", "page_size": 8}, {}),
        ({}, {"backend": "reference", "page_size": 8}),
    ]
    for first, second in routes:
        with start(folder, **first) as engine:
            (expected,) = engine.generate(prompt, GREEDY)
            prefix = engine.export_prefix(prompt)
        with start(folder, **second) as engine:
            cached = engine.import_prefix(prefix)
            (answer,) = engine.generate(prompt, GREEDY)
        assert answer.cached_tokens == cached >= 64
        assert answer.token_ids == expected.token_ids
