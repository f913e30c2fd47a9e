"""torch's operations that make, convert, reshape, join and cut tensors, on JAX arrays."""

from __future__ import annotations

import builtins
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from inarch_tpu.dtypes import jax_dtype, narrowed
from inarch_tpu.table import TABLE, Array, is_dtype, named

# ---- dtypes, copies and new tensors ----


@named("to", "_to_copy", "type_as", "contiguous", "clone", "detach", "alias", "lift_fresh")
def converted(x: Array, *args: Any, dtype: Any = None, **rest: Any) -> Array:
    for other in args:
        dtype = other.dtype if hasattr(other, "dtype") else other if is_dtype(other) else dtype
    if dtype is None:
        return x
    return x.astype(jax_dtype(dtype) if is_dtype(dtype) else dtype)


def _made(name: str, number: Any) -> None:
    def like(x: Array, *, dtype: Any = None, **rest: Any) -> Array:
        return jnp.full(x.shape, number, x.dtype if dtype is None else jax_dtype(dtype))

    def new(x: Array, size: Sequence[int], *, dtype: Any = None, **rest: Any) -> Array:
        return jnp.full(tuple(size), number, x.dtype if dtype is None else jax_dtype(dtype))

    TABLE[f"{name}_like"], TABLE[f"new_{name}"] = like, new


for _name, _number in (("zeros", 0), ("ones", 1), ("empty", 0)):
    _made(_name, _number)


@named()
def full_like(x: Array, number: Any, *, dtype: Any = None, **rest: Any) -> Array:
    return jnp.full(x.shape, number, x.dtype if dtype is None else jax_dtype(dtype))


@named()
def new_full(
    x: Array, size: Sequence[int], number: Any, *, dtype: Any = None, **rest: Any
) -> Array:
    return jnp.full(tuple(size), number, x.dtype if dtype is None else jax_dtype(dtype))


@named()
def fill(x: Array, number: Any) -> Array:
    return jnp.full(x.shape, number, x.dtype)


@named()
def zero(x: Array) -> Array:
    return jnp.zeros_like(x)


@named()
def copy(x: Array, source: Array, non_blocking: bool = False) -> Array:
    return jnp.broadcast_to(source, x.shape).astype(x.dtype)


# ---- shapes ----


@named("view", "reshape", "_unsafe_view")
def view(x: Array, shape: Any) -> Array:
    if not is_dtype(shape):
        return x.reshape(tuple(shape))
    if isinstance(x, np.ndarray):  # as it was written, in 64 bits where it was
        return narrowed(x.view(str(shape).removeprefix("torch.")))
    return _reinterpreted(x, jax_dtype(shape))


def _reinterpreted(x: Array, dtype: Any) -> Array:
    """The same bytes: the last axis shrinks or grows as in torch."""
    ratio = dtype.itemsize / x.dtype.itemsize
    if ratio > 1:
        x = x.reshape(*x.shape[:-1], -1, int(ratio))
    out = jax.lax.bitcast_convert_type(x, dtype)
    return out.reshape(*out.shape[:-2], -1) if ratio < 1 else out


@named()
def flatten(x: Array, start: int = 0, end: int = -1) -> Array:
    start, end = start % builtins.max(x.ndim, 1), end % builtins.max(x.ndim, 1)
    return x.reshape(*x.shape[:start], -1, *x.shape[end + 1 :])


@named()
def unflatten(x: Array, axis: int, sizes: Sequence[int]) -> Array:
    axis %= x.ndim
    return x.reshape(*x.shape[:axis], *sizes, *x.shape[axis + 1 :])


@named()
def unsqueeze(x: Array, axis: int) -> Array:
    return jnp.expand_dims(x, axis)


@named()
def squeeze(x: Array, axis: Any = None) -> Array:
    axes = range(x.ndim) if axis is None else [axis] if isinstance(axis, int) else axis
    return jnp.squeeze(x, tuple(a for a in axes if x.shape[a] == 1))


@named()
def transpose(x: Array, a: int, b: int) -> Array:
    return jnp.swapaxes(x, a, b)


@named()
def t(x: Array) -> Array:
    return x.T


@named()
def permute(x: Array, axes: Sequence[int]) -> Array:
    return jnp.transpose(x, tuple(axes))


@named()
def expand(x: Array, sizes: Sequence[int], *, implicit: bool = False) -> Array:
    lacking = len(sizes) - x.ndim
    old = (1,) * lacking + tuple(x.shape)
    return jnp.broadcast_to(x, tuple(o if n == -1 else n for n, o in zip(sizes, old, strict=True)))


@named()
def repeat(x: Array, times: Sequence[int]) -> Array:
    return jnp.tile(x, tuple(times))


@named()
def repeat_interleave(x: Array, times: int, dim: int | None = None, **rest: Any) -> Array:
    return jnp.repeat(x, times, axis=dim)


@named("cat", "concat")
def cat(parts: Sequence[Array], dim: int = 0) -> Array:
    return jnp.concatenate(list(parts), axis=dim)


@named()
def stack(parts: Sequence[Array], dim: int = 0) -> Array:
    return jnp.stack(list(parts), axis=dim)


@named("split", "split_with_sizes")
def split(x: Array, sizes: Any, dim: int = 0) -> list[Array]:
    if isinstance(sizes, int):
        whole, rest = divmod(x.shape[dim], sizes)
        sizes = [sizes] * whole + [rest] * (rest > 0)
    return jnp.split(x, np.cumsum(sizes)[:-1].tolist(), axis=dim)


@named()
def chunk(x: Array, chunks: int, dim: int = 0) -> list[Array]:
    return split(x, -(-x.shape[dim] // chunks), dim)


@named()
def unbind(x: Array, dim: int = 0) -> list[Array]:
    return [select(x, dim, i) for i in range(x.shape[dim])]


@named("slice")
def sliced(
    x: Array, dim: int = 0, start: int | None = None, end: int | None = None, step: int = 1
) -> Array:
    return x[(slice(None),) * (dim % x.ndim) + (slice(start, end, step),)]


@named()
def narrow(x: Array, dim: int, start: int, length: int) -> Array:
    return sliced(x, dim, start, start + length)


@named()
def select(x: Array, dim: int, index: int) -> Array:
    return x[(slice(None),) * (dim % x.ndim) + (index,)]


@named("pad", "constant_pad_nd")
def pad(x: Array, widths: Sequence[int], *args: Any, **rest: Any) -> Array:
    numbers = [a for a in (*args, *rest.values()) if isinstance(a, int | float)]
    pairs = [(widths[i], widths[i + 1]) for i in range(0, len(widths), 2)]
    pairs += [(0, 0)] * (x.ndim - len(pairs))
    return jnp.pad(x, pairs[::-1], constant_values=numbers[0] if numbers else 0)


@named()
def tril(x: Array, diagonal: int = 0) -> Array:
    return jnp.tril(x, diagonal)


@named()
def triu(x: Array, diagonal: int = 0) -> Array:
    return jnp.triu(x, diagonal)
