"""Attention over pages in plain JAX: what runs where the Pallas kernel does not.

Queries are cut into blocks of one sequence each. For several blocks at once, keys are gathered a few
pages at a time, and the softmax is carried from one to the next (Milakov and Gimelshein, 2018,
arXiv:1805.02867), so that memory does not grow with the context. Letters in shapes: T tokens, S
sequences, N blocks of B queries, L keys at a time, H query heads, G KV heads, R = H / G, D head size.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from inarch.hal.attention import AttentionSpec
from inarch.hal.kv import KVHeads
from inarch_tpu.arithmetic import EXACT
from inarch_tpu.kv import Layer, keys_and_values

TOGETHER = 64  # queries of the blocks that are attended at once
KEYS = 256  # gathered at a time


class Blocks(NamedTuple):
    """N blocks of B queries, int32 arrays. Those behind a block's queries are padding.

    Drafted tokens in a tree have one block for each sequence: query i sees drafted token j of its block
    if `ancestors`, and all that is cached.
    """

    tokens: Any  # [N, B]: in the batch
    sequence: Any  # [N]
    first: Any  # [N]: position of the first query in its sequence
    keys: Any  # [N]: of the sequence, those up to the last that any query sees
    table: Any  # [S, pages]
    places: Any  # [T]: of each token among the N * B
    ancestors: Any = None  # bool [N, B, B]
    depths: Any = None  # [N, B]: of drafted tokens below the first


class Softmax(NamedTuple):
    """Of the keys so far, float32."""

    highest: Any  # [c, G, R, B]
    total: Any  # [c, G, R, B]
    out: Any  # [c, G, R, B, value_dim]


# pages [...] -> k, v [..., page_tokens, G, D]
Gather = Callable[[Any], tuple[Any, Any]]


@functools.partial(jax.jit, static_argnums=(0, 1))
def attend(
    spec: AttentionSpec, heads: KVHeads, q: Any, layer: Layer, blocks: Blocks, sinks: Any | None
) -> tuple[Any, Any]:
    """out [T, H, value_dim] in q's dtype and lse [T, H]; q [T, H, D].

    Where a layer keeps no values, they are the first features of the keys.
    """

    def gather(ids: Any) -> tuple[Any, Any]:
        k, v = keys_and_values(layer, ids, heads)
        return k, v if heads.value_dim else k[..., : spec.value_dim]

    count, size = blocks.tokens.shape
    together = min(max(1, TOGETHER // size), count)
    each = jax.tree.map(
        lambda x: x.reshape(count // together, together, *x.shape[1:]), _each(blocks)
    )

    def some(part: Blocks) -> tuple[Any, Any]:
        queries = q[part.tokens].reshape(together, size, spec.kv_heads, -1, spec.key_dim)
        found = _some_blocks(spec, queries, gather, part._replace(table=blocks.table))
        return _finished(spec, found, sinks)

    out, lse = jax.lax.map(some, each)
    out, lse = out.reshape(count * size, *out.shape[3:]), lse.reshape(count * size, -1)
    return out[blocks.places].astype(q.dtype), lse[blocks.places]


def _each(blocks: Blocks) -> Blocks:
    return blocks._replace(table=None, places=None)


def _some_blocks(spec: AttentionSpec, q: Any, gather: Gather, blocks: Blocks) -> Softmax:
    """q [c, B, G, R, D]"""
    page_tokens = jax.eval_shape(gather, blocks.table[:1, :1])[0].shape[2]
    pages = min(max(1, KEYS // page_tokens), blocks.table.shape[1])
    span = pages * page_tokens
    shape = (*q.shape[:1], *q.shape[2:4], q.shape[1])
    nothing = Softmax(
        jnp.full(shape, -jnp.inf), jnp.zeros(shape), jnp.zeros((*shape, spec.value_dim))
    )
    table = blocks.table[blocks.sequence]  # [c, pages]

    def more(number: Any, so_far: Softmax) -> Softmax:
        columns = number * pages + jnp.arange(pages)
        some = jnp.where(columns < table.shape[1], jnp.take(table, columns, 1, mode="clip"), 0)
        k, v = gather(some)
        k, v = (x.reshape(len(some), span, *x.shape[3:]) for x in (k, v))
        visible = _visible(spec, blocks, number * span + jnp.arange(span))
        return _with_keys(spec, so_far, q, k, v, visible)

    reach = min(spec.window or 1 << 30, 1 << 30)
    first = jnp.maximum(blocks.first.min() - reach + 1, 0) // span
    last = jnp.minimum(-(-blocks.keys.max() // span), -(-blocks.table.shape[1] // pages))
    return jax.lax.fori_loop(first, last, more, nothing)


def _visible(spec: AttentionSpec, blocks: Blocks, key: Any) -> Any:
    """bool [c, B, L] of key positions [L]."""
    size = blocks.tokens.shape[1]
    place = (blocks.first[:, None] + jnp.arange(size))[:, :, None]
    level = key[None, None, :]
    there = level < blocks.keys[:, None, None]
    if not spec.causal:
        return there & (jnp.abs(level - place) < (spec.window or 1 << 30))
    if blocks.ancestors is None:
        seen = there & (level <= place)
    else:
        drafted = key[None, :] - blocks.first[:, None]  # [c, L]
        index = jnp.clip(drafted, 0, size - 1)
        among = jnp.take_along_axis(blocks.ancestors, index[:, None, :], 2)
        seen = there & ((drafted < 0)[:, None, :] | among)
        depth = jnp.take_along_axis(blocks.depths, index, 1)
        level = blocks.first[:, None] + jnp.where(drafted < 0, drafted, depth)
        level, place = level[:, None, :], (blocks.first[:, None] + blocks.depths)[:, :, None]
    if spec.window is not None:
        seen &= level > place - spec.window
    if spec.chunk is not None:
        seen &= level // spec.chunk == place // spec.chunk
    return seen


def _with_keys(
    spec: AttentionSpec, so_far: Softmax, q: Any, k: Any, v: Any, visible: Any
) -> Softmax:
    """q [c, B, G, R, D], k, v [c, L, G, D], visible [c, B, L]"""
    wide = {"preferred_element_type": jnp.float32, "precision": EXACT}
    scores = jnp.einsum("cbgrd,clgd->cgrbl", q, k.astype(q.dtype), **wide) * spec.scale
    if spec.softcap is not None:
        scores = jnp.tanh(scores / spec.softcap) * spec.softcap
    scores = jnp.where(visible[:, None, None], scores, -jnp.inf)
    highest = jnp.maximum(so_far.highest, scores.max(-1))
    base = jnp.where(highest == -jnp.inf, 0, highest)  # so that exp(-inf - base) is 0
    weights = jnp.exp(scores - base[..., None])
    kept = jnp.exp(so_far.highest - base)
    # What nobody sees may be anything, and 0 times NaN is NaN.
    v = jnp.where(visible.any(1)[:, :, None, None], v, 0).astype(q.dtype)
    add = jnp.einsum("cgrbl,clgd->cgrbd", weights.astype(q.dtype), v, **wide)
    return Softmax(
        highest, so_far.total * kept + weights.sum(-1), so_far.out * kept[..., None] + add
    )


def _finished(spec: AttentionSpec, found: Softmax, sinks: Any | None) -> tuple[Any, Any]:
    """out [c, B, H, value_dim] and lse [c, B, H]."""
    highest, total, out = found
    if sinks is not None:
        sink = sinks.astype(jnp.float32).reshape(1, spec.kv_heads, -1, 1)
        most = jnp.maximum(highest, sink)
        kept = jnp.exp(highest - most)
        highest, total = most, total * kept + jnp.exp(sink - most)
        out = out * kept[..., None]
    out = out / jnp.where(total == 0, 1, total)[..., None]
    lse = jnp.where(highest == -jnp.inf, 0, highest) + jnp.log(total)
    lse = jnp.where(total == 0, -jnp.inf, lse)
    count, size = out.shape[0], out.shape[3]
    return (
        out.transpose(0, 3, 1, 2, 4).reshape(count, size, spec.q_heads, -1),
        lse.transpose(0, 3, 1, 2).reshape(count, size, spec.q_heads),
    )
