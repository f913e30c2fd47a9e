"""Latent attention of this backend against the reference in float64, over the same rows."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from inarch.hal.attention import AttentionBatch
from inarch.hal.kv import KVSpec
from inarch.hal.latent import LatentSpec, UpProjection
from inarch.hal.reference.device import ReferenceDevice
from inarch.hal.reference.kv import ReferenceKVStore
from inarch.hal.reference.latent import ReferenceLatentAttention
from inarch_intel_cpu.kv import CpuKVStore
from inarch_intel_cpu.latent import CpuLatentAttention

PAGE = 16
SPEC = LatentSpec(5, 40, 24, 8, 20, 0.2, torch.float32)  # nothing is a multiple of a register
TOLERANCE = {torch.float32: 3e-5, torch.bfloat16: 2e-2, torch.float16: 3e-3}
LAYER = 1
# Query tokens and all tokens of each sequence: absorbed alone, expanded alone, both.
BATCHES = {
    "decodes": [(1, 1), (1, 200), (1, 33)],
    "extends": [(3, 90), (16, 300)],
    "prompts": [(40, 40), (7, 7)],
    "mixed": [(1, 77), (50, 50), (4, 120), (30, 35)],
}


def normal(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def batch_of(sizes, **more):
    """Pages lie in no order."""
    counts, lengths = zip(*sizes, strict=True)
    most = -(-max(lengths) // PAGE)
    ids = np.random.default_rng(0).permutation(most * len(sizes)).astype(np.int32) + 1
    indptr = np.concatenate(([0], np.cumsum(counts))).astype(np.int32)
    rows = np.arange(len(sizes), dtype=np.int32)
    table = ids.reshape(len(sizes), most)
    return AttentionBatch(indptr, np.array(lengths, np.int32), rows, table, **more)


def attend(make, store_of, spec, kept, batch):
    """out, after the cached rows were written to pages that hold NaN elsewhere."""
    store = store_of(KVSpec((spec.kv_heads,) * 2, kept))
    pages = int(batch.page_table.max()) + 1
    kv = store.allocate(pages)
    for part in (tensor for layer in kv for tensor in layer):
        part.fill_(torch.nan)
    row = spec.kv_rank + spec.rope_dim
    new = normal(int(batch.q_indptr[-1]), row, seed=1).to(spec.dtype)
    for s, (length, count) in enumerate(zip(batch.kv_lens, np.diff(batch.q_indptr), strict=True)):
        places = np.arange(length - count)
        slots = batch.page_table[s, places // PAGE].astype(np.int64) * PAGE + places % PAGE
        rows = normal(len(places), 1, row, seed=10 + s).to(kept)
        store.write(kv, LAYER, torch.from_numpy(slots), rows, rows[..., :0])
    q = normal(len(new), spec.q_heads, spec.nope_dim + spec.rope_dim, seed=2).to(spec.dtype)
    up = normal(spec.q_heads, spec.nope_dim + spec.value_dim, spec.kv_rank, seed=3)
    up = (up * spec.kv_rank**-0.5).to(spec.dtype)
    parts = UpProjection(*torch.split(up, [spec.nope_dim, spec.value_dim], 1))
    attention = make(spec, store, ReferenceDevice())
    plan = attention.plan(batch).on(ReferenceDevice())
    given = (*torch.split(q, [spec.nope_dim, spec.rope_dim], -1),)
    latent, k_rope = torch.split(new, [spec.kv_rank, spec.rope_dim], -1)
    return attention.run(LAYER, *given, latent, k_rope, kv, plan, parts)[0]


def check(native, spec, kept, batch, tolerance):
    def own(*given):
        return CpuLatentAttention(*given, native=native)

    def reference(kept):
        return ReferenceKVStore(kept, PAGE, torch.device("cpu"))

    found = attend(own, lambda kept: CpuKVStore(kept, PAGE, native), spec, kept, batch)
    wanted = attend(ReferenceLatentAttention, reference, spec, kept, batch)
    assert found.dtype == spec.dtype
    torch.testing.assert_close(found, wanted, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("dtype", list(TOLERANCE), ids=str)
@pytest.mark.parametrize("name", list(BATCHES))
def test_decodes_extends_and_prompts_in_one_batch(native, name, dtype):
    spec = LatentSpec(**vars(SPEC) | {"dtype": dtype})
    check(native, spec, dtype, batch_of(BATCHES[name]), TOLERANCE[dtype])


@pytest.mark.parametrize("kept", [torch.bfloat16, torch.float16, torch.float8_e4m3fn], ids=str)
def test_rows_may_be_kept_in_fewer_bits(native, kept):
    check(native, SPEC, kept, batch_of(BATCHES["extends"]), TOLERANCE[torch.float32])


def test_a_tree_of_drafts_sees_its_ancestors_alone(native):
    """Beside a prompt that is expanded, which comes first."""
    parents = np.array([*range(-1, 29), -1, 0, 0, 1, -1, -1], np.int32)
    batch = batch_of([(30, 30), (4, 50), (2, 9)], tree_parent=parents)
    check(native, SPEC, torch.float32, batch, TOLERANCE[torch.float32])


@pytest.mark.parametrize("heads", [1, 16, 100])
def test_any_number_of_heads_shares_a_row(native, heads):
    """A long one is cut along its keys, among threads, and put together again."""
    spec = LatentSpec(**vars(SPEC) | {"q_heads": heads})
    check(native, spec, torch.float32, batch_of([(1, 1500), (2, 60)]), TOLERANCE[torch.float32])
