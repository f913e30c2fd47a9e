"""KV pages in a layout of their own: heads first, K and V of a token side by side."""

from __future__ import annotations

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
from inarch_fake.memory import DEVICE, FakeDeviceError

PAGE_TOKENS = 128


class FakeKVStore(KVStore):
    """State: per layer a tensor [G, pages, PAGE_TOKENS, key_dim + value_dim].

    The null page always holds NaN, so that whatever reads padding shows it.
    """

    def __init__(self, spec: KVSpec, page_tokens: int) -> None:
        if page_tokens != PAGE_TOKENS:
            raise FakeDeviceError(f"pages have {PAGE_TOKENS} tokens here, not {page_tokens}")
        self.spec = spec
        elements = sum(h.kv_heads * (h.key_dim + h.value_dim) for h in spec.layers)
        page_bytes = elements * PAGE_TOKENS * spec.dtype.itemsize
        self.layout = KVLayout(PAGE_TOKENS, page_bytes, f"fake/{spec.dtype}/{hash(spec.layers)}")

    def allocate(self, pages: int) -> KVState:
        return [
            torch.full(
                (h.kv_heads, pages, PAGE_TOKENS, h.key_dim + h.value_dim),
                torch.nan,
                dtype=self.spec.dtype,
                device=DEVICE,
            )
            for h in self.spec.layers
        ]

    def write(self, kv: KVState, layer: int, slots: Tensor, k: Tensor, v: Tensor) -> KVState:
        pool = kv[layer]
        tokens = torch.cat([k, v], -1).transpose(0, 1).to(pool.dtype)
        pool.view(pool.shape[0], -1, pool.shape[-1]).index_copy_(1, slots, tokens)
        pool[:, 0] = torch.nan
        return kv

    def read(self, kv: KVState, layer: int, pages: Tensor) -> tuple[Tensor, Tensor]:
        tokens = kv[layer].index_select(1, pages).flatten(1, 2).transpose(0, 1)
        heads = self.spec.layers[layer]
        k, v = tokens.split([heads.key_dim, heads.value_dim], -1)
        return k, v

    def copy_pages(self, kv: KVState, source: np.ndarray, target: np.ndarray) -> KVState:
        read, written = self._upload(source), self._upload(target)
        for pool in kv:
            pool.index_copy_(1, written, pool.index_select(1, read))
        return kv

    def export_pages(self, kv: KVState, pages: np.ndarray) -> CanonicalPages:
        check_pages(pages, kv[0].shape[1])
        ids = self._upload(pages)
        layers = [self.read(kv, layer, ids) for layer in range(len(kv))]
        return [(k.raw.clone(), v.raw.clone()) for k, v in layers]  # type: ignore[attr-defined]

    def import_pages(self, kv: KVState, pages: np.ndarray, data: CanonicalPages) -> KVState:
        check_pages(pages, kv[0].shape[1])
        check_dtype(self.spec, data)
        tokens = len(data[0][0])
        if -(-tokens // PAGE_TOKENS) != len(pages):
            raise ValueError(f"{tokens} tokens do not fill {len(pages)} pages of {PAGE_TOKENS}")
        slots = (pages[:, None] * PAGE_TOKENS + np.arange(PAGE_TOKENS)).ravel()
        on_device = self._upload(slots[:tokens])
        for layer, (k, v) in enumerate(data):
            self.write(kv, layer, on_device, k.to(DEVICE), v.to(DEVICE))
        return kv

    def _upload(self, ids: np.ndarray) -> Tensor:
        return torch.from_numpy(ids.astype(np.int64)).to(DEVICE)
