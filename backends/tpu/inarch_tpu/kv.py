"""KV pages as JAX arrays, laid out as the Pallas kernel reads them.

Where K and V of a layer are equally wide, one array [pages, page_tokens, 2 G, D'] holds both, heads
alternating: K of head 0, V of head 0, K of head 1 ... Else each has its own [pages, page_tokens, G, D'];
values of no width have none. D' is D rounded up to the lanes of the chip (128; 1 on a CPU).

The state is a value: whatever changes it takes the old state's memory (donates it) and returns the new
state; the old one can then no longer be read.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from torch import Tensor

from inarch.hal.kv import (
    CanonicalPages,
    KVHeads,
    KVLayout,
    KVSpec,
    KVState,
    KVStore,
    check_dtype,
    check_pages,
)
from inarch_tpu.dtypes import from_jax, jax_dtype, to_numpy
from inarch_tpu.mesh import constrained, split
from inarch_tpu.tensor import DROPPED, JaxTensor, padded_rows, value

Layer = tuple[Any, ...]  # one or two arrays of pages


class Pages(NamedTuple):
    """The state. `layers`: see the module."""

    layers: tuple[Layer, ...]

    def with_layer(self, index: int, layer: Layer) -> Pages:
        return Pages((*self.layers[:index], layer, *self.layers[index + 1 :]))


def rounded(dim: int, lanes: int) -> int:
    return -(-dim // lanes) * lanes


def alternating(heads: KVHeads) -> bool:
    """Whether one array holds K and V."""
    return heads.key_dim == heads.value_dim


class XlaKVStore(KVStore):
    """Pages of any size in tokens, over all chips of a mesh: split by heads where these suffice."""

    def __init__(self, spec: KVSpec, page_tokens: int, mesh: Mesh, lanes: int = 1) -> None:
        self.spec, self.mesh, self._lanes = spec, mesh, lanes
        shapes = [shape for heads in spec.layers for shape in self._shapes(heads, 1, page_tokens)]
        digest = hashlib.sha256(repr((spec.layers, page_tokens)).encode()).hexdigest()[:12]
        dtype = str(spec.dtype).removeprefix("torch.")
        self.layout = KVLayout(
            page_tokens=page_tokens,
            page_bytes=sum(int(np.prod(shape)) for shape in shapes) * spec.dtype.itemsize,
            fingerprint=f"tpu/{lanes}/{dtype}/{digest}",
        )

    def _shapes(self, heads: KVHeads, pages: int, page_tokens: int) -> Iterator[tuple[int, ...]]:
        if alternating(heads):
            yield (pages, page_tokens, 2 * heads.kv_heads, rounded(heads.key_dim, self._lanes))
            return
        for dim in filter(None, (heads.key_dim, heads.value_dim)):
            yield (pages, page_tokens, heads.kv_heads, rounded(dim, self._lanes))

    def allocate(self, pages: int) -> Pages:
        dtype = jax_dtype(self.spec.dtype)
        return Pages(
            tuple(
                tuple(
                    jnp.zeros(shape, dtype, device=split(self.mesh, shape, 2))
                    for shape in self._shapes(heads, pages, self.layout.page_tokens)
                )
                for heads in self.spec.layers
            )
        )

    def write(self, kv: KVState, layer: int, slots: Tensor, k: Tensor, v: Tensor) -> Pages:
        new = written(kv.layers[layer], value(slots), value(k), value(v), self.mesh)
        return kv.with_layer(layer, new)

    def read(self, kv: KVState, layer: int, pages: Tensor) -> tuple[Tensor, Tensor]:
        k, v = _read(kv.layers[layer], value(pages), self.spec.layers[layer])
        return JaxTensor(k), JaxTensor(v)

    def copy_pages(self, kv: KVState, source: np.ndarray, target: np.ndarray) -> Pages:
        return Pages(_copied(kv.layers, _ids(source, 0), _ids(target, DROPPED)))

    def export_pages(self, kv: KVState, pages: np.ndarray) -> CanonicalPages:
        check_pages(pages, len(kv.layers[0][0]))
        tokens = len(pages) * self.layout.page_tokens
        ids, specs = _ids(pages, 0), self.spec.layers
        found = [_read(layer, ids, heads) for layer, heads in zip(kv.layers, specs, strict=True)]
        return [(from_jax(k)[:tokens], from_jax(v)[:tokens]) for k, v in found]

    def import_pages(self, kv: KVState, pages: np.ndarray, data: CanonicalPages) -> Pages:
        check_pages(pages, len(kv.layers[0][0]))
        check_dtype(self.spec, data)
        tokens, size = len(data[0][0]), self.layout.page_tokens
        if -(-tokens // size) != len(pages):
            raise ValueError(
                f"{tokens} tokens need {-(-tokens // size)} pages of {size}, got {len(pages)}"
            )
        slots = _ids((pages[:, None] * size + np.arange(size)).ravel()[:tokens], DROPPED)
        more = [(0, len(slots) - tokens), (0, 0), (0, 0)]
        padded = [tuple(np.pad(to_numpy(x), more) for x in layer) for layer in data]
        layers = zip(kv.layers, padded, strict=True)
        return Pages(tuple(_imported(old, slots, *new, self.mesh) for old, new in layers))


def _ids(ids: np.ndarray, filling: int) -> np.ndarray:
    """Padded, so that few programs serve all counts."""
    return np.pad(
        ids.astype(np.int32), (0, padded_rows(len(ids)) - len(ids)), constant_values=filling
    )


def written(layer: Layer, slots: Any, k: Any, v: Any, mesh: Mesh) -> Layer:
    """The layer with k, v [T, G, D] at slots [T]; those beyond the pool are dropped."""
    new = (k, v)
    if len(layer) == 1:
        new = (jnp.stack((k, v), 2).reshape(len(k), -1, k.shape[-1]) if v.shape[-1] else k,)
    return tuple(_set(pages, slots, x, mesh) for pages, x in zip(layer, new, strict=True))


def _set(pages: Any, slots: Any, new: Any, mesh: Mesh) -> Any:
    """new [T, heads, D]"""
    count, size, heads, lanes = pages.shape
    padded = jnp.pad(new.astype(pages.dtype), ((0, 0), (0, 0), (0, lanes - new.shape[-1])))
    flat = pages.reshape(count * size, heads, lanes).at[slots].set(padded, mode="drop")
    return constrained(flat.reshape(pages.shape), mesh, 2)


def keys_and_values(layer: Layer, pages: Any, heads: KVHeads) -> tuple[Any, Any]:
    """k, v [..., page_tokens, G, D] of pages [...]."""
    found = [part[pages] for part in layer]
    if len(found) == 2:
        k, v = found
    elif heads.value_dim:
        k, v = found[0][..., ::2, :], found[0][..., 1::2, :]
    else:
        k, v = found[0], found[0][..., :0]
    return k[..., : heads.key_dim], v[..., : heads.value_dim]


@functools.partial(jax.jit, static_argnums=2)
def _read(layer: Layer, pages: Any, heads: KVHeads) -> tuple[Any, Any]:
    k, v = keys_and_values(layer, pages, heads)
    tokens = k.shape[0] * k.shape[1]
    return k.reshape(tokens, *k.shape[2:]), v.reshape(tokens, *v.shape[2:])


@functools.partial(jax.jit, donate_argnums=0)
def _copied(layers: tuple[Layer, ...], source: Any, target: Any) -> tuple[Layer, ...]:
    return jax.tree.map(lambda pages: pages.at[target].set(pages[source], mode="drop"), layers)


@functools.partial(jax.jit, donate_argnums=0, static_argnums=4)
def _imported(layer: Layer, slots: Any, k: Any, v: Any, mesh: Mesh) -> Layer:
    return written(layer, slots, k, v, mesh)
