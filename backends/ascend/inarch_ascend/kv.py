"""KV pages as the fused attention reads them: blocks of 128 tokens, heads of 128 or 192 features.

K and V of a layer are two tensors [blocks, 128, G, D], where D is the head size that the attention
takes: smaller heads are padded with zeros, which changes no score and no sum, and costs memory. The
core sees the model's own head sizes: what is read or exported is cut.
"""

from __future__ import annotations

import hashlib

import torch
import torch.nn.functional as F
from torch import Tensor

from inarch.hal.kv import KVHeads, KVLayout, KVSpec, KVState
from inarch.hal.reference.kv import ReferenceKVStore, movable

BLOCK = 128  # tokens of a page
HEAD_SIZES = (128, 192)  # that the fused attention takes, of K and of V; V is never the wider one


def stored_sizes(key_dim: int, value_dim: int) -> tuple[int, int] | None:
    """The sizes of K and V that heads are padded to; None: no attention here takes such heads."""
    key = next((size for size in HEAD_SIZES if size >= max(key_dim, value_dim)), None)
    if key is None or value_dim == 0:
        return None
    return key, next(size for size in HEAD_SIZES if size >= value_dim)


class BlockKVStore(ReferenceKVStore):
    """In place, written by one operator a layer. State: as the reference's, of padded heads."""

    def __init__(self, spec: KVSpec, page_tokens: int, torch_device: torch.device) -> None:
        if page_tokens != BLOCK:
            raise ValueError(f"a page has {BLOCK} tokens here, not {page_tokens}")
        self.spec = spec
        self._device = torch_device
        self._stored = [_stored(heads) for heads in spec.layers]
        elements = sum(
            heads.kv_heads * (key + value)
            for heads, (key, value) in zip(spec.layers, self._stored, strict=True)
        )
        shapes = hashlib.sha256(repr(spec.layers).encode()).hexdigest()[:12]
        dtype = str(spec.dtype).removeprefix("torch.")
        self.layout = KVLayout(
            page_tokens=BLOCK,
            page_bytes=elements * BLOCK * spec.dtype.itemsize,
            fingerprint=f"ascend/{dtype}/{shapes}",
        )

    def allocate(self, pages: int) -> KVState:
        # Zeros: an operator may multiply what it masks by 0, and fresh memory may hold NaN.
        def pool(heads: int, dim: int) -> Tensor:
            shape = (pages, BLOCK, heads, dim)
            return torch.zeros(shape, dtype=self.spec.dtype, device=self._device)

        return [
            (pool(heads.kv_heads, key), pool(heads.kv_heads, value))
            for heads, (key, value) in zip(self.spec.layers, self._stored, strict=True)
        ]

    def write(self, kv: KVState, layer: int, slots: Tensor, k: Tensor, v: Tensor) -> KVState:
        k_blocks, v_blocks = kv[layer]
        if v_blocks.shape[-1] == 0:  # latent attention keeps no V, and the operator wants one
            return super().write(kv, layer, slots, padded(k, k_blocks), v)
        if len(slots):
            torch.ops.npu.npu_scatter_pa_kv_cache(
                padded(k, k_blocks), padded(v, v_blocks), k_blocks, v_blocks, slots,
                cache_mode="Norm",
            )  # fmt: skip
        return kv

    def read(self, kv: KVState, layer: int, pages: Tensor) -> tuple[Tensor, Tensor]:
        heads = self.spec.layers[layer]
        k, v = (movable(part).index_select(0, pages).flatten(0, 1) for part in kv[layer])
        return k[..., : heads.key_dim], v[..., : heads.value_dim]


def padded(x: Tensor, like: Tensor) -> Tensor:
    """x [T, heads, D] with the head size and the dtype of `like`, contiguous."""
    missing = like.shape[-1] - x.shape[-1]
    x = F.pad(x, (0, missing)) if missing else x.contiguous()
    return x.to(like.dtype)


def _stored(heads: KVHeads) -> tuple[int, int]:
    return stored_sizes(heads.key_dim, heads.value_dim) or (heads.key_dim, heads.value_dim)
