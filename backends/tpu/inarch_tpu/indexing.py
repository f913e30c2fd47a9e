"""torch's reading and writing by index, on JAX arrays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp

from inarch_tpu.table import Array, named


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
