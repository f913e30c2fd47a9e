"""The ops of sampling in JAX, each one program for whole batches.

How many sequences sample differs from step to step; a program for each count would have to be compiled.
So rows are padded to the next power of two, with what does no harm, and the padding stays behind what
comes out (see tensor.py).
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import torch
from torch import Tensor

from inarch_tpu.tensor import DROPPED, JaxTensor, padded_host, padded_value, replace

Array = Any


def _aligned(*arrays: Array) -> tuple[Array, ...]:
    """All are padded, maybe not equally far: to the shortest."""
    count = min(len(x) for x in arrays if x is not None)
    return tuple(None if x is None else x[:count] for x in arrays)


def _ids(array: Array, rows: int) -> JaxTensor:
    return JaxTensor(array, rows=rows, dtype=torch.int64)


def greedy(logits: Tensor) -> Tensor:
    return _ids(_greedy(padded_value(logits)), len(logits))


@jax.jit
def _greedy(logits: Array) -> Array:
    return jnp.argmax(logits, -1)


def sample(
    logits: Tensor,
    temperature: Tensor,
    uniform: Tensor,
    top_k: Tensor | None = None,
    top_p: Tensor | None = None,
    min_p: Tensor | None = None,
) -> Tensor:
    given = (
        None if x is None else padded_host(x, 0)
        for x in (temperature, uniform, top_k, top_p, min_p)
    )
    with jax.enable_x64(
        True
    ):  # as the op has it: float32 sums of a whole vocabulary are too coarse
        return _ids(_sample(padded_value(logits), *given), len(logits))


@jax.jit
def _sample(
    logits: Array,
    temperature: Array,
    uniform: Array,
    top_k: Array | None,
    top_p: Array | None,
    min_p: Array | None,
) -> Array:
    logits, temperature, uniform, top_k, top_p, min_p = _aligned(
        logits, temperature, uniform, top_k, top_p, min_p
    )
    cold = jnp.where(temperature > 0, temperature, 1).astype(jnp.float32)
    probs = jax.nn.softmax(logits / cold[:, None], -1)
    if top_k is not None or top_p is not None or min_p is not None:
        probs = jnp.where(_kept(probs, top_k, top_p, min_p), probs, 0)
    cumulative = jnp.cumsum(probs, -1, dtype=jnp.float64)
    total = cumulative[:, -1:]
    drawn = (cumulative <= uniform[:, None] * total).sum(-1)
    last = (cumulative < total).sum(-1)  # rounding may carry the draw past the end
    tokens = jnp.where(temperature > 0, jnp.minimum(drawn, last), jnp.argmax(logits, -1))
    return tokens.astype(jnp.int32)


def _kept(probs: Array, top_k: Array | None, top_p: Array | None, min_p: Array | None) -> Array:
    """bool [S, V]: see the op."""
    order = jnp.argsort(probs, -1, descending=True, stable=True)
    ordered = jnp.take_along_axis(probs, order, -1)
    keep = jnp.ones(probs.shape, bool)
    if top_k is not None:
        keep &= jnp.arange(probs.shape[1]) < top_k[:, None]
    if top_p is not None:
        before = jnp.cumsum(ordered, -1) - ordered
        keep &= (before < top_p[:, None]) | (top_p >= 1)[:, None]
    if min_p is not None:
        keep &= ordered >= min_p[:, None] * ordered[:, :1]
    keep = keep.at[:, 0].set(True)
    return jnp.put_along_axis(jnp.zeros_like(keep), order, keep, -1, inplace=False)


def penalize(
    logits: Tensor,
    rows: Tensor,
    prompt: Tensor,
    counts: Tensor,
    repetition: Tensor,
    frequency: Tensor,
    presence: Tensor,
) -> Tensor:
    factors = (padded_host(x, 1) for x in (repetition, frequency, presence))
    tables = (padded_value(x) for x in (prompt, counts))
    out = _penalize(padded_value(logits), padded_host(rows, 0), *tables, *factors)
    return JaxTensor(out, rows=len(logits))


@jax.jit
def _penalize(
    logits: Array, rows: Array, prompt: Array, counts: Array, repetition: Array, *subtracted: Array
) -> Array:
    logits, rows, repetition, frequency, presence = _aligned(logits, rows, repetition, *subtracted)
    prompt, counts = prompt[rows], counts[rows]
    factor = repetition[:, None]
    scaled = jnp.where(logits > 0, logits / factor, logits * factor)
    logits = jnp.where(prompt | (counts > 0), scaled, logits)
    return logits - frequency[:, None] * counts - presence[:, None] * (counts > 0)


def count_tokens(counts: Tensor, rows: Tensor, tokens: Tensor) -> Tensor:
    assert isinstance(counts, JaxTensor)
    given = (padded_host(rows, DROPPED), padded_host(tokens, 0))
    return replace(counts, _count(counts.array, *given))


@jax.jit
def _count(counts: Array, rows: Array, tokens: Array) -> Array:
    rows, tokens = _aligned(rows, tokens)
    return jnp.asarray(counts).at[rows, tokens].add(1, mode="drop")


def add_bias(logits: Tensor, rows: Tensor, tokens: Tensor, values: Tensor) -> Tensor:
    given = (padded_host(x, 0) for x in (rows, tokens, values))
    return JaxTensor(_add_bias(padded_value(logits), *given), rows=len(logits))


@jax.jit
def _add_bias(logits: Array, rows: Array, tokens: Array, values: Array) -> Array:
    rows, tokens, values = _aligned(rows, tokens, values)
    return logits.at[rows, tokens].add(values)


def apply_token_mask(logits: Tensor, bitmask: Tensor, rows: Tensor) -> Tensor:
    given = (padded_host(bitmask, 0), padded_host(rows, DROPPED))
    return JaxTensor(_mask(padded_value(logits), *given), rows=len(logits))


@jax.jit
def _mask(logits: Array, bitmask: Array, rows: Array) -> Array:
    bitmask, rows = _aligned(bitmask, rows)
    bits = jnp.right_shift(bitmask[:, :, None], jnp.arange(32, dtype=jnp.int32)) & 1
    allowed = bits.reshape(len(bitmask), -1)[:, : logits.shape[1]].astype(bool)
    masked = jnp.where(allowed, logits[jnp.minimum(rows, len(logits) - 1)], -jnp.inf)
    return logits.at[rows].set(masked, mode="drop")


def logprobs(logits: Tensor, tokens: Tensor, top: int) -> tuple[Tensor, Tensor, Tensor]:
    found = _logprobs(padded_value(logits), padded_host(tokens, 0), top)
    chosen, values = (JaxTensor(x, rows=len(logits)) for x in found[:2])
    return chosen, values, _ids(found[2], len(logits))


@functools.partial(jax.jit, static_argnums=2)
def _logprobs(logits: Array, tokens: Array, top: int) -> tuple[Array, Array, Array]:
    logits, tokens = _aligned(logits, tokens)
    normalised = jax.nn.log_softmax(logits, -1)
    chosen = jnp.take_along_axis(normalised, tokens[:, None], -1)[:, 0]
    return chosen, *jax.lax.top_k(normalised, top)
