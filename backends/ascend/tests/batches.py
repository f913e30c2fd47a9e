"""Random batches of attention, and what the reference makes of them on the CPU."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from inarch.hal.attention import AttentionBatch, AttentionResult, AttentionSpec
from inarch.hal.device import Device
from inarch.hal.executor import StepShape
from inarch.hal.kv import KVHeads, KVSpec, KVState, KVStore
from inarch.hal.reference.attention import ReferenceAttention
from inarch.hal.reference.device import ReferenceDevice
from inarch.hal.reference.kv import ReferenceKVStore

BLOCK, PAGES, COLUMNS = 128, 24, 4


def batch(
    queries: Sequence[int], prefixes: Sequence[int], seed: int = 0, bucket: int | None = None
) -> AttentionBatch:
    """Sequences of `queries` new tokens behind `prefixes` cached ones, in pages of a random order.

    bucket: padded to so many decodes.
    """
    padding = 0 if bucket is None else bucket - len(queries)
    kv_lens = np.array([*map(sum, zip(queries, prefixes, strict=True)), *[1] * padding], np.int32)
    order = np.random.default_rng(seed).permutation(np.arange(1, PAGES))
    table = np.zeros((len(kv_lens), COLUMNS), np.int32)
    for row, length in enumerate(kv_lens[: len(queries)]):
        used = -(-int(length) // BLOCK)
        table[row, :used], order = order[:used], order[used:]
    return AttentionBatch(
        q_indptr=np.cumsum([0, *queries, *[1] * padding]).astype(np.int32),
        kv_lens=kv_lens,
        rows=np.arange(len(kv_lens), dtype=np.int32),
        page_table=table,
        bucket=None if bucket is None else StepShape(bucket, bucket, 1, captured=True),
    )


def inputs(spec: AttentionSpec, tokens: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    made = torch.Generator().manual_seed(seed)
    shapes = (
        (spec.q_heads, spec.key_dim),
        (spec.kv_heads, spec.key_dim),
        (spec.kv_heads, spec.value_dim),
    )
    q, k, v = (torch.randn(tokens, *shape, generator=made).to(spec.dtype) for shape in shapes)
    return q, k, v


def kv_spec(spec: AttentionSpec) -> KVSpec:
    return KVSpec((KVHeads(spec.kv_heads, spec.key_dim, spec.value_dim),), spec.dtype)


def filled(store: KVStore, spec: AttentionSpec, device: Device, kv: KVState = None) -> KVState:
    """Pages, new ones or `kv`, with the same random tokens in every store."""
    kv = store.allocate(PAGES) if kv is None else kv
    _, k, v = inputs(spec, PAGES * BLOCK, seed=99)
    slots = device.upload(np.arange(PAGES * BLOCK))
    return store.write(kv, 0, slots, k.to(device.torch_device), v.to(device.torch_device))


def reference(
    spec: AttentionSpec,
    given: AttentionBatch,
    tensors: tuple[Tensor, Tensor, Tensor],
    sinks: Tensor | None = None,
) -> AttentionResult:
    """Out and log-sum-exp on the CPU."""
    device = ReferenceDevice()
    store = ReferenceKVStore(kv_spec(spec), BLOCK, device.torch_device)
    attention = ReferenceAttention(spec, store, device)
    kv = filled(store, spec, device)
    plan = attention.plan(given).on(device)
    return attention.run(0, *tensors, kv, plan, sinks=sinks, lse=True)
