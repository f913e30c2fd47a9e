"""torch's arithmetic on JAX arrays: element by element, products, and along an axis."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from inarch.errors import UnsupportedError
from inarch_tpu.dtypes import jax_dtype
from inarch_tpu.table import TABLE, Array, named

EXACT = jax.lax.Precision.HIGHEST  # float32 products are float32 products, on a TPU too

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


@named("conv1d", "convolution")
def conv1d(
    x: Array,
    weight: Array,
    bias: Array | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    *rest: Any,
) -> Array:
    """As convolutions over tokens are: in steps of one, without padding. rest: groups last."""
    *transposed, groups = rest or (1,)
    unusual = jax.tree.leaves((stride, padding, dilation)) != [1, 0, 1]
    if unusual or any(jax.tree.leaves(transposed)):
        raise UnsupportedError("the tpu backend has convolutions over tokens alone")
    out = jax.lax.conv_general_dilated(
        x, weight, (1,), "VALID", feature_group_count=groups, precision=EXACT
    )
    return out if bias is None else out + bias[:, None]


@named("linalg_solve_triangular")
def solve_triangular(
    system: Array, right: Array, *, upper: bool, left: bool = True, unitriangular: bool = False
) -> Array:
    return jax.lax.linalg.triangular_solve(
        system, right, left_side=left, lower=not upper, unit_diagonal=unitriangular
    )


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
