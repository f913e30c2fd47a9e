"""torch's operations as functions on JAX arrays: those that models, and the references of ops, use.

The table goes by torch's names, whatever the overload. What is not in it is first taken apart by torch
itself (see tensor.py); what cannot be is refused by name.
"""

from __future__ import annotations

import builtins
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch

from inarch_tpu.dtypes import jax_dtype, narrowed

Array = Any  # jax.Array, tracer or numpy array
EXACT = jax.lax.Precision.HIGHEST  # float32 products are float32 products, on a TPU too
TABLE: dict[str, Callable[..., Any]] = {}


def named(*names: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def enter(function: Callable[..., Any]) -> Callable[..., Any]:
        TABLE.update(dict.fromkeys(names or (function.__name__,), function))
        return function

    return enter


# ---- element by element ----

TABLE |= {
    "mul": jnp.multiply,
    "neg": jnp.negative,
    "square": jnp.square,
    "sqrt": jnp.sqrt,
    "rsqrt": jax.lax.rsqrt,
    "reciprocal": jnp.reciprocal,
    "exp": jnp.exp,
    "expm1": jnp.expm1,
    "log": jnp.log,
    "log1p": jnp.log1p,
    "sin": jnp.sin,
    "cos": jnp.cos,
    "tanh": jnp.tanh,
    "sigmoid": jax.nn.sigmoid,
    "silu": jax.nn.silu,
    "relu": jax.nn.relu,
    "abs": jnp.abs,
    "floor": jnp.floor,
    "floor_divide": jnp.floor_divide,
    "remainder": jnp.remainder,
    "maximum": jnp.maximum,
    "minimum": jnp.minimum,
    "eq": jnp.equal,
    "ne": jnp.not_equal,
    "lt": jnp.less,
    "le": jnp.less_equal,
    "gt": jnp.greater,
    "ge": jnp.greater_equal,
    "logical_not": jnp.logical_not,
    "logical_and": jnp.logical_and,
    "logical_or": jnp.logical_or,
    "bitwise_not": jnp.bitwise_not,
    "bitwise_and": jnp.bitwise_and,
    "bitwise_or": jnp.bitwise_or,
    "bitwise_xor": jnp.bitwise_xor,
    "__and__": jnp.bitwise_and,
    "__or__": jnp.bitwise_or,
    "__rshift__": jnp.right_shift,
    "isnan": jnp.isnan,
    "isfinite": jnp.isfinite,
}


@named()
def add(a: Array, b: Array, *, alpha: float = 1) -> Array:
    return jnp.add(a, b if alpha == 1 else alpha * b)


@named()
def sub(a: Array, b: Array, *, alpha: float = 1) -> Array:
    return jnp.subtract(a, b if alpha == 1 else alpha * b)


@named()
def rsub(a: Array, b: Array, *, alpha: float = 1) -> Array:
    return sub(b, a, alpha=alpha)


@named()
def div(a: Array, b: Array, *, rounding_mode: str | None = None) -> Array:
    return jnp.floor_divide(a, b) if rounding_mode == "floor" else jnp.true_divide(a, b)


@named("pow")
def power(a: Array, b: Array) -> Array:
    return jnp.power(a, b)


@named()
def softplus(x: Array, beta: float = 1, threshold: float = 20) -> Array:
    return jnp.where(x * beta > threshold, x, jax.nn.softplus(x * beta) / beta)


@named()
def gelu(x: Array, *, approximate: str = "none") -> Array:
    return jax.nn.gelu(x, approximate=approximate == "tanh")


@named("clamp", "clip")
def clamp(x: Array, min: Any = None, max: Any = None) -> Array:
    return jnp.clip(x, min, max)


@named()
def clamp_min(x: Array, min: Any) -> Array:
    return jnp.clip(x, min, None)


@named()
def clamp_max(x: Array, max: Any) -> Array:
    return jnp.clip(x, None, max)


@named()
def where(condition: Array, a: Array, b: Array) -> Array:
    return jnp.where(condition, a, b)


@named()
def masked_fill(x: Array, mask: Array, value: Any) -> Array:
    return jnp.where(mask, jnp.asarray(value, x.dtype), x)


# ---- dtypes, copies and new tensors ----


@named("to", "_to_copy", "type_as", "contiguous", "clone", "detach", "alias", "lift_fresh")
def converted(x: Array, *args: Any, dtype: Any = None, **rest: Any) -> Array:
    for other in args:
        dtype = other.dtype if hasattr(other, "dtype") else other if _is_dtype(other) else dtype
    if dtype is None:
        return x
    return x.astype(jax_dtype(dtype) if _is_dtype(dtype) else dtype)


def _is_dtype(x: Any) -> bool:
    return isinstance(x, torch.dtype)


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
def new_full(x: Array, size: Sequence[int], number: Any, *, dtype: Any = None, **rest: Any) -> Array:
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
    if not _is_dtype(shape):
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


# ---- by index ----


def _places(indices: Sequence[Any]) -> tuple[Any, ...]:
    return tuple(slice(None) if i is None else i for i in indices)


@named("index", "_unsafe_index")
def index(x: Array, indices: Sequence[Any]) -> Array:
    return jnp.asarray(x)[_places(indices)]


@named("index_put", "_unsafe_index_put")
def index_put(x: Array, indices: Sequence[Any], values: Array, accumulate: bool = False) -> Array:
    at = jnp.asarray(x).at[_places(indices)]
    return at.add(values) if accumulate else at.set(values)


@named()
def index_select(x: Array, dim: int, places: Array) -> Array:
    return jnp.take(x, places, axis=dim)


def _at(x: Array, dim: int, places: Array) -> Any:
    return jnp.asarray(x).at[(slice(None),) * (dim % x.ndim) + (places,)]


@named()
def index_copy(x: Array, dim: int, places: Array, source: Array) -> Array:
    return _at(x, dim, places).set(source, mode="drop")


@named()
def index_add(x: Array, dim: int, places: Array, source: Array, *, alpha: float = 1) -> Array:
    return _at(x, dim, places).add(source * alpha)


@named()
def index_fill(x: Array, dim: int, places: Array, number: Any) -> Array:
    return _at(x, dim, places).set(number)


@named()
def gather(x: Array, dim: int, places: Array, **rest: Any) -> Array:
    return jnp.take_along_axis(x, places, axis=dim)


@named()
def scatter(x: Array, dim: int, places: Array, source: Any) -> Array:
    filled = jnp.broadcast_to(jnp.asarray(source, x.dtype), places.shape)
    return jnp.put_along_axis(x, places, filled, axis=dim, inplace=False)


@named()
def embedding(weight: Array, ids: Array, *rest: Any) -> Array:
    return jnp.take(weight, ids, axis=0)


@named()
def searchsorted(
    ordered: Array, values: Array, *, right: bool = False, out_int32: bool = False, **rest: Any
) -> Array:
    return jnp.searchsorted(ordered, values, side="right" if right else "left").astype(jnp.int32)


# ---- products ----


@named("matmul", "mm", "bmm")
def matmul(a: Array, b: Array) -> Array:
    return jnp.matmul(a, b, precision=EXACT)


@named()
def addmm(bias: Array, a: Array, b: Array) -> Array:
    return matmul(a, b) + bias


@named()
def linear(x: Array, weight: Array, bias: Array | None = None) -> Array:
    out = jnp.einsum("...k,nk->...n", x, weight, precision=EXACT)
    return out if bias is None else out + bias


@named()
def einsum(equation: str, operands: Sequence[Array], **rest: Any) -> Array:
    return jnp.einsum(equation, *operands, precision=EXACT)


# ---- along an axis ----


def _axes(dim: Any) -> Any:
    return tuple(dim) if isinstance(dim, list | tuple) and dim else None if dim == [] else dim


def _reduced(name: str, reduce: Callable[..., Any]) -> None:
    def run(x: Array, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Array:
        if dtype is not None:
            x = x.astype(jax_dtype(dtype))
        return reduce(x, axis=_axes(dim), keepdims=keepdim)

    TABLE[name] = run


for _name, _reduce in (
    ("sum", jnp.sum),
    ("mean", jnp.mean),
    ("amax", jnp.max),
    ("amin", jnp.min),
    ("all", jnp.all),
    ("any", jnp.any),
    ("argmax", jnp.argmax),
    ("argmin", jnp.argmin),
    ("logsumexp", jax.nn.logsumexp),
):
    _reduced(_name, _reduce)


@named("max")
def highest(x: Array, dim: Any = None, keepdim: bool = False) -> Any:
    if dim is None:
        return jnp.max(x)
    if not isinstance(dim, int):
        return jnp.maximum(x, dim)
    return jnp.max(x, axis=dim, keepdims=keepdim), jnp.argmax(x, axis=dim, keepdims=keepdim)


@named("softmax", "_softmax")
def softmax(x: Array, dim: int, *args: Any, dtype: Any = None) -> Array:
    return jax.nn.softmax(x if dtype is None else x.astype(jax_dtype(dtype)), axis=dim)


@named("log_softmax", "_log_softmax")
def log_softmax(x: Array, dim: int, *args: Any, dtype: Any = None) -> Array:
    return jax.nn.log_softmax(x if dtype is None else x.astype(jax_dtype(dtype)), axis=dim)


@named()
def cumsum(x: Array, dim: int, *, dtype: Any = None) -> Array:
    return jnp.cumsum(x, axis=dim, dtype=None if dtype is None else jax_dtype(dtype))


@named()
def sort(
    x: Array, dim: int = -1, descending: bool = False, *, stable: bool = True
) -> tuple[Array, Array]:
    order = jnp.argsort(x, axis=dim, stable=True, descending=descending)
    return jnp.take_along_axis(x, order, axis=dim), order


@named()
def topk(
    x: Array, k: int, dim: int = -1, largest: bool = True, sorted: bool = True
) -> tuple[Array, Array]:
    values, places = jax.lax.top_k(jnp.moveaxis(x, dim, -1), k)
    return jnp.moveaxis(values, -1, dim), jnp.moveaxis(places, -1, dim)


@named()
def layer_norm(
    x: Array,
    shape: Sequence[int],
    weight: Array | None = None,
    bias: Array | None = None,
    eps: float = 1e-5,
    *rest: Any,
) -> Array:
    axes = tuple(range(x.ndim - len(shape), x.ndim))
    centred = x - x.mean(axes, keepdims=True)
    out = centred * jax.lax.rsqrt(jnp.square(centred).mean(axes, keepdims=True) + eps)
    out = out if weight is None else out * weight
    return out if bias is None else out + bias
