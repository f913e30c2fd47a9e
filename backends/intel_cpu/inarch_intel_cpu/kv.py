"""KV pages as the kernels multiply by them.

A page of keys has, for each KV head, a row for each feature, of all its tokens; a page of values a row
for each token, of all features. So both products of attention go along rows, a register at a time, and
nothing is summed across one. In bfloat16 two such rows are interleaved, which is what its dot product
instructions take, and what widens to float32 at no more than a shift or a mask a number.

What has no values (latent attention) stays as the reference keeps it.
"""

from __future__ import annotations

import ctypes
import hashlib

import torch
from torch import Tensor

from inarch.hal.kv import KVHeads, KVLayout, KVSpec, KVState
from inarch.hal.reference.kv import ReferenceKVStore, movable
from inarch_intel_cpu.dtypes import TYPES
from inarch_intel_cpu.native import Native

LAYOUT = "intel_cpu/"
KEPT = TYPES | {torch.float8_e4m3fn: 3}  # what pages may hold
STEP = 16  # numbers that kernels read at once: tokens of a page, and rows of values, are multiples
HUGE = 2 << 20  # bytes
MADV_HUGEPAGE = 14  # linux/mman.h
_LIBC = ctypes.CDLL(None)


class PageShape:
    """Numbers that say how a layer's pages lie; `array` is the struct Shape of csrc/pages.h."""

    def __init__(self, heads: KVHeads, page_tokens: int, kept: torch.dtype) -> None:
        self.together = 2 if kept == torch.bfloat16 else 1  # rows that lie interleaved
        self.value_row = -(-heads.value_dim // STEP) * STEP
        key_rows = -(-heads.key_dim // self.together)
        self.keys = (heads.kv_heads, key_rows, page_tokens, self.together)
        value_rows = page_tokens // self.together
        self.values = (heads.kv_heads, value_rows, self.value_row, self.together)
        self._numbers = (heads.key_dim, heads.value_dim, page_tokens, self.value_row, KEPT[kept])
        self._kv_heads = heads.kv_heads

    def array(self, q_heads: int, given: torch.dtype) -> Tensor:
        numbers = (q_heads, self._kv_heads, *self._numbers, TYPES[given])
        return torch.tensor(numbers, dtype=torch.int64)


class CpuKVStore(ReferenceKVStore):
    """In place. page_tokens must be a multiple of 16."""

    def __init__(self, spec: KVSpec, page_tokens: int, native: Native) -> None:
        super().__init__(spec, page_tokens, torch.device("cpu"))
        self._write = native.kernel("write_kv")
        self._shapes = [PageShape(heads, page_tokens, spec.dtype) for heads in spec.layers]
        sizes = hashlib.sha256(repr((spec.layers, page_tokens)).encode()).hexdigest()[:12]
        elements = sum(
            sum(map(_size, (shape.keys, shape.values)))
            if heads.value_dim
            else _plain(heads, page_tokens)
            for heads, shape in zip(spec.layers, self._shapes, strict=True)
        )
        self.layout = KVLayout(
            page_tokens=page_tokens,
            page_bytes=elements * spec.dtype.itemsize,
            fingerprint=f"{LAYOUT}{str(spec.dtype).removeprefix('torch.')}/{sizes}",
        )

    def allocate(self, pages: int) -> KVState:
        # Not filled: memory is taken page by page, as it is first written.
        plain = super().allocate(pages)
        return [
            kept
            if not heads.value_dim
            else tuple(
                _huge((pages, *size), self.spec.dtype) for size in (shape.keys, shape.values)
            )
            for heads, shape, kept in zip(self.spec.layers, self._shapes, plain, strict=True)
        ]

    def write(self, kv: KVState, layer: int, slots: Tensor, k: Tensor, v: Tensor) -> KVState:
        if not self.spec.layers[layer].value_dim:
            return super().write(kv, layer, slots, k, v)
        given = k.dtype if k.dtype in TYPES else torch.float32  # which holds every 8-bit float
        k, v = (x.to(given) for x in (k, v))
        k, v = (x if x.stride(2) == 1 else x.contiguous() for x in (k, v))
        shape = self._shapes[layer].array(k.shape[1], k.dtype)
        self._write(
            shape, len(slots), None, 0, 0, k, *k.stride()[:2], v, *v.stride()[:2], slots, *kv[layer],
            None, None, 0, 0, None, None, 0, 0.0,
        )  # fmt: skip
        return kv

    def read(self, kv: KVState, layer: int, pages: Tensor) -> tuple[Tensor, Tensor]:
        heads = self.spec.layers[layer]
        if not heads.value_dim:
            return super().read(kv, layer, pages)
        k, v = (movable(part).index_select(0, pages) for part in kv[layer])
        # [N, G, D / r, P, r] and [N, G, P / r, D, r], r rows interleaved -> [N * P, G, D]
        k = k.permute(0, 3, 1, 2, 4).flatten(3).flatten(0, 1)[..., : heads.key_dim]
        v = v.permute(0, 2, 4, 1, 3).flatten(0, 2)[..., : heads.value_dim]
        return k.contiguous().view(self.spec.dtype), v.contiguous().view(self.spec.dtype)


def _huge(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Memory that the system may give in pieces of 2 MiB.

    Pages are read in no order, and each piece that is met anew costs a walk through its tables.
    """
    made = torch.empty(shape, dtype=dtype)
    begin = -(-made.data_ptr() // HUGE) * HUGE
    end = (made.data_ptr() + made.nbytes) // HUGE * HUGE
    if end > begin:
        _LIBC.madvise(ctypes.c_void_p(begin), ctypes.c_size_t(end - begin), MADV_HUGEPAGE)
    return made


def _size(shape: tuple[int, ...]) -> int:
    return torch.Size(shape).numel()


def _plain(heads: KVHeads, page_tokens: int) -> int:
    return heads.kv_heads * heads.key_dim * page_tokens
