"""KV pages in plain PyTorch: for each layer one tensor for K and one for V."""

from __future__ import annotations

import hashlib

import numpy as np
import torch
from torch import Tensor

from inarch.hal.kv import (
    CanonicalPages,
    KVLayout,
    KVSpec,
    KVState,
    KVStore,
    check_dtype,
    check_pages,
)

Layers = list[tuple[Tensor, Tensor]]  # the state: k, v [pages, page_tokens, G, D] of each layer


class ReferenceKVStore(KVStore):
    """Works on any torch device, in place; page_tokens may be any positive number."""

    def __init__(self, spec: KVSpec, page_tokens: int, torch_device: torch.device) -> None:
        self.spec = spec
        self._device = torch_device
        token_elements = sum(h.kv_heads * (h.key_dim + h.value_dim) for h in spec.layers)
        shapes = hashlib.sha256(repr((spec.layers, page_tokens)).encode()).hexdigest()[:12]
        self.layout = KVLayout(
            page_tokens=page_tokens,
            page_bytes=token_elements * page_tokens * spec.dtype.itemsize,
            fingerprint=f"reference/{str(spec.dtype).removeprefix('torch.')}/{shapes}",
        )

    def allocate(self, pages: int) -> KVState:
        # Not filled: a CPU then takes the memory page by page, as it is first written.
        def pool(heads: int, dim: int) -> Tensor:
            shape = (pages, self.layout.page_tokens, heads, dim)
            return torch.empty(shape, dtype=self.spec.dtype, device=self._device)

        state: Layers = [
            (pool(h.kv_heads, h.key_dim), pool(h.kv_heads, h.value_dim)) for h in self.spec.layers
        ]
        return state

    def write(self, kv: KVState, layer: int, slots: Tensor, k: Tensor, v: Tensor) -> KVState:
        for pages, new in zip(kv[layer], (k, v), strict=True):
            stored = narrowed(new, pages.dtype)
            movable(pages).flatten(0, 1).index_copy_(0, slots, movable(stored))
        return kv

    def read(self, kv: KVState, layer: int, pages: Tensor) -> tuple[Tensor, Tensor]:
        k, v = (movable(part).index_select(0, pages).flatten(0, 1) for part in kv[layer])
        return k.view(self.spec.dtype), v.view(self.spec.dtype)

    def copy_pages(self, kv: KVState, source: np.ndarray, target: np.ndarray) -> KVState:
        read, written = self._ids(source), self._ids(target)
        for layer in kv:
            for pages in map(movable, layer):
                pages.index_copy_(0, written, pages.index_select(0, read))
        return kv

    def export_pages(self, kv: KVState, pages: np.ndarray) -> CanonicalPages:
        check_pages(pages, len(kv[0][0]))
        ids = self._ids(pages)
        layers = (self.read(kv, layer, ids) for layer in range(len(kv)))
        return [(k.cpu(), v.cpu()) for k, v in layers]

    def import_pages(self, kv: KVState, pages: np.ndarray, data: CanonicalPages) -> KVState:
        check_pages(pages, len(kv[0][0]))
        check_dtype(self.spec, data)
        tokens, size = len(data[0][0]), self.layout.page_tokens
        if -(-tokens // size) != len(pages):
            raise ValueError(
                f"{tokens} tokens need {-(-tokens // size)} pages of {size}, got {len(pages)}"
            )
        slots = self._ids((pages[:, None] * size + np.arange(size)).ravel()[:tokens])
        for layer, (k, v) in enumerate(data):
            self.write(kv, layer, slots, k.to(self._device), v.to(self._device))
        return kv

    def _ids(self, pages: np.ndarray) -> Tensor:
        return torch.as_tensor(pages.astype(np.int64)).to(self._device)


def narrowed(x: Tensor, dtype: torch.dtype) -> Tensor:
    """x as it is stored: beyond the range of an 8-bit float it saturates, whatever torch's cast does."""
    if x.dtype != dtype and dtype.itemsize == 1:
        limit = torch.finfo(dtype).max
        x = x.clamp(-limit, limit)
    return x.to(dtype)


def movable(x: Tensor) -> Tensor:
    """The same memory in a dtype that torch can index: it can index few 8-bit floats."""
    return x.view(torch.uint8) if x.dtype.itemsize == 1 else x
