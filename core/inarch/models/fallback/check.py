"""Before a foreign model serves, it answers twice: over our pages, and as transformers runs it.

That every layer's attention came by says nothing of what else the code does: keep a state between
tokens, look at its neighbours in the row, ignore positions. A batch that would show it is small: two
sequences in a step, one of them continued from its pages.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from inarch.hal.attention import AttentionBatch
from inarch.hal.device import Device
from inarch.hal.executor import StepInputs
from inarch.hal.kv import KVState, KVStore
from inarch.models.fallback.interface import RUNNING
from inarch.models.fallback.model import TransformersModel
from inarch.models.fallback.refusing import described, refusal

LONG, SHORT, CUT = 11, 7, 4  # tokens of two sequences, and where the first is cut in two
# How far logits may be off, as a share of how far they spread, by bytes of what is kept of K and V.
LIMITS = {4: 1e-3, 2: 0.1, 1: 0.4}


@torch.inference_mode()
def check_against_transformers(
    model: TransformersModel, store: KVStore, device: Device, vocab_size: int
) -> None:
    """Raises ModelError if the answers differ."""
    long, short = (
        [(7919 * (i + shift) + 101) % vocab_size for i in range(count)]
        for shift, count in ((0, LONG), (LONG, SHORT))
    )
    name = type(model.module).__name__
    try:
        found = _over_pages(model, store, device, long, short)
        expected = _by_transformers(model, device, [long, short])
    except Exception as error:
        raise refusal(name, f"a first step failed ({described(error)})") from error
    spread = (expected - expected.mean(-1, keepdim=True)).square().mean().sqrt()
    off = float((found - expected).square().mean().sqrt() / spread)
    limit = LIMITS[store.spec.dtype.itemsize]
    if not off <= limit:
        raise refusal(
            name,
            f"its logits over pages differ from those that it gives by itself, by {off:.2g} of their "
            f"spread where {limit:g} is allowed: it mixes tokens elsewhere than in its attention",
        )


def _over_pages(
    model: TransformersModel, store: KVStore, device: Device, long: list[int], short: list[int]
) -> Tensor:
    """Logits [2, V] after both sequences, of which the first is cut in two steps."""
    columns = -(-LONG // store.layout.page_tokens)
    table = np.arange(1, 1 + 2 * columns, dtype=np.int32).reshape(2, columns)
    kv = store.allocate(1 + 2 * columns)
    _, kv = _step(model, device, table, kv, [(0, long[:CUT])])
    logits, _ = _step(model, device, table, kv, [(CUT, long[CUT:]), (0, short)])
    return logits


def _step(
    model: TransformersModel,
    device: Device,
    table: np.ndarray,
    kv: KVState,
    chunks: list[tuple[int, list[int]]],
) -> tuple[Tensor, KVState]:
    """One step in which row i gets the tokens of chunk i behind its start."""
    lengths = np.array([len(tokens) for _, tokens in chunks], np.int32)
    starts = np.array([start for start, _ in chunks], np.int32)
    q_indptr = np.concatenate(([0], lengths.cumsum())).astype(np.int32)
    batch = AttentionBatch(
        q_indptr, starts + lengths, np.arange(len(chunks), dtype=np.int32), table
    )
    positions = [np.arange(start, start + len(tokens)) for start, tokens in chunks]
    inputs = StepInputs(
        token_ids=device.upload(np.concatenate([tokens for _, tokens in chunks]).astype(np.int64)),
        positions=device.upload(np.concatenate(positions).astype(np.int64)),
        last_token=device.upload(q_indptr[1:].astype(np.int64) - 1),
        plans=model.plan(batch).on(device),
    )
    return model.forward(inputs, kv)


def _by_transformers(
    model: TransformersModel, device: Device, sequences: list[list[int]]
) -> Tensor:
    """Logits [2, V] after each sequence, by transformers' plain attention."""
    model.module.set_attn_implementation("eager")
    try:
        rows = [
            model.module(input_ids=device.upload(np.array([tokens])), use_cache=False).logits[0, -1]
            for tokens in sequences
        ]
    finally:
        model.module.set_attn_implementation(RUNNING)
    return torch.stack(rows).float()
