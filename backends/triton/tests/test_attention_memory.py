"""What attention keeps on the device for chunks that are put aside: known before it is taken."""

from __future__ import annotations

import dataclasses
from itertools import chain

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from inarch.hal.attention import AttentionBatch, AttentionSpec, SharedPrefixes
from inarch.hal.executor import StepShape
from inarch.hal.kv import KVHeads, KVSpec
from inarch_triton.attention import TritonAttention
from inarch_triton.kv import PagedKVStore

from .test_triton_attention import REAL, spec

MOST = StepShape(4000, 600, 4000)
LLAMA = spec(**REAL | {"key_dim": 128, "value_dim": 128})
SPECS = {
    "Llama": LLAMA,
    "a window": dataclasses.replace(LLAMA, window=300),
    "one KV head": dataclasses.replace(LLAMA, kv_heads=1, key_dim=80, value_dim=48),
    "every head its own keys, exactly": spec(q_heads=2),
}


def attention_of(what: AttentionSpec, device) -> TritonAttention:
    heads = KVHeads(what.kv_heads, what.key_dim, what.value_dim)
    store = PagedKVStore(KVSpec((heads,), what.dtype), 64, device.torch_device)
    return TritonAttention(what, store, device)


def batch_of(decodes: int, prompts: list[int], *, drafted: int, bucket: bool) -> AttentionBatch:
    """Decodes, all of which share 2,048 tokens, or as many drafts; then prompts."""
    queries = np.array([drafted] * decodes + prompts, np.int32)
    lengths = 3000 + queries
    tokens, seqs = int(queries.sum()), len(queries)
    shared = None
    if decodes > 1 and drafted == 1:
        members = np.arange(decodes, dtype=np.int32)
        shared = SharedPrefixes(members, np.array([0, decodes]), np.array([2048]))
    return AttentionBatch(
        np.concatenate(([0], np.cumsum(queries))).astype(np.int32),
        lengths.astype(np.int32),
        np.arange(seqs, dtype=np.int32),
        np.ones((seqs, 120), np.int32),
        shared=shared,
        bucket=StepShape(tokens, seqs, int(queries.max())) if bucket else None,
    )


BATCHES = st.builds(
    batch_of,
    st.integers(1, 590),
    st.lists(st.integers(17, 200), max_size=3),
    drafted=st.sampled_from([1, 1, 2, 5]),
    bucket=st.booleans(),
)


@pytest.mark.parametrize("name", SPECS)
@settings(
    max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(BATCHES, min_size=1, max_size=4))
def test_batches_take_no_memory_but_what_was_announced(name, device, batches) -> None:
    attention = attention_of(SPECS[name], device)
    announced = attention.kept_bytes(MOST)
    for batch in batches:
        attention.plan(batch).on(device)
        held = sum(part.nbytes for part in chain(*attention._parts.values()))
        assert attention.kept_bytes(MOST) == announced - held
    assert 0 < held <= announced < 1 << 30


def test_less_is_announced_for_smaller_steps(device) -> None:
    attention = attention_of(LLAMA, device)
    assert attention.kept_bytes(StepShape(16, 1, 16)) < attention.kept_bytes(MOST)
