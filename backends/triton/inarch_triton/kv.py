"""KV pages as the reference keeps them, with one kernel to write K and V.

K and V of a layer are two tensors [pages, page_tokens, G, D]. All heads of a token are then one run
of memory, which is what projections produce and what other paged attentions (torch's, FlashAttention,
flashinfer) read as well; a page of one head is still a plain 2-D tile for the copy engine.
"""

# No deferred annotations here: Triton reads `tl.constexpr` as an object, not as a string.
import torch
import triton
import triton.language as tl
from torch import Tensor

from inarch.hal.kv import KVLayout, KVSpec, KVState
from inarch.hal.reference.kv import ReferenceKVStore
from inarch_triton.fnuz import FN, FNUZ, from_fnuz, to_fnuz
from inarch_triton.kernels import NARROW, carries_fnuz
from inarch_triton.options import FUSED

WARPS = 4


@triton.jit
def narrowed(x, dtype: tl.constexpr):
    """x as pages of `dtype` keep it: 8-bit floats saturate, and keep NaN.

    float8e4b8 (fnuz) stands for float8e4nv of the same bits, twice its own value: see fnuz.py.
    """
    if dtype.primitive_bitwidth == 8 and x.dtype != dtype:
        x = tl.clamp(x.to(tl.float32), -448.0, 448.0, propagate_nan=tl.PropagateNan.ALL)
        if dtype == tl.float8e4b8:
            bits = x.to(tl.float8e4nv).to(tl.uint8, bitcast=True)
            bits = tl.where(bits == 0x80, 0, bits)
            x = tl.where(x != x, 0x80, bits).to(tl.uint8).to(dtype, bitcast=True)
    return x.to(dtype)


@triton.jit
def copy_token(
    source, pages, slot, head_stride, HEADS: tl.constexpr, DIM: tl.constexpr, BLOCK: tl.constexpr
):
    place = tl.arange(0, BLOCK)
    inside = place < HEADS * DIM
    value = tl.load(source + (place // DIM) * head_stride + place % DIM, mask=inside)
    value = narrowed(value, pages.dtype.element_ty)
    tl.store(pages + slot * (HEADS * DIM) + place, value, mask=inside)


@triton.jit
def write_kernel(
    k,
    v,
    slots,
    k_pages,
    v_pages,
    k_token,
    k_head,
    v_token,
    v_head,
    HEADS: tl.constexpr,
    KEY_DIM: tl.constexpr,
    VALUE_DIM: tl.constexpr,
    KEY_BLOCK: tl.constexpr,
    VALUE_BLOCK: tl.constexpr,
):
    """One program a token: k, v [T, G, D] with any strides of tokens and heads -> slots [T]."""
    token = tl.program_id(0).to(tl.int64)
    slot = tl.load(slots + token).to(tl.int64)
    copy_token(k + token * k_token, k_pages, slot, k_head, HEADS, KEY_DIM, KEY_BLOCK)
    if VALUE_DIM > 0:  # latent attention keeps no V
        copy_token(v + token * v_token, v_pages, slot, v_head, HEADS, VALUE_DIM, VALUE_BLOCK)


def write_constants(heads: int, key_dim: int, value_dim: int) -> dict[str, int]:
    return {
        "HEADS": heads,
        "KEY_DIM": key_dim,
        "VALUE_DIM": value_dim,
        "KEY_BLOCK": triton.next_power_of_2(heads * key_dim),
        "VALUE_BLOCK": triton.next_power_of_2(heads * value_dim),
    }


class PagedKVStore(ReferenceKVStore):
    """The same bytes as the reference's store, and so the same fingerprint; written in one launch."""

    def write(self, kv: KVState, layer: int, slots: Tensor, k: Tensor, v: Tensor) -> KVState:
        k_pages, v_pages = kv[layer]
        if len(slots) == 0:
            return kv
        k, v = (x if x.stride(2) == 1 else x.contiguous() for x in (k, v))
        constants = write_constants(k_pages.shape[2], k_pages.shape[3], v_pages.shape[3])
        write_kernel[(len(slots),)](
            k, v, slots, k_pages, v_pages, *k.stride()[:2], *v.stride()[:2],
            **constants, num_warps=WARPS, **FUSED,
        )  # fmt: skip
        return kv


class FnuzKVStore(PagedKVStore):
    """Pages that are float8_e4m3fn to all who look, kept as float8_e4m3fnuz of half the value."""

    def __init__(self, spec: KVSpec, page_tokens: int, torch_device: torch.device) -> None:
        super().__init__(spec, page_tokens, torch_device)
        layout = self.layout
        fingerprint = layout.fingerprint.replace("reference/", "fnuz/")
        self.layout = KVLayout(layout.page_tokens, layout.page_bytes, fingerprint)

    def allocate(self, pages: int) -> KVState:
        return [(k.view(FNUZ), v.view(FNUZ)) for k, v in super().allocate(pages)]

    def write(self, kv: KVState, layer: int, slots: Tensor, k: Tensor, v: Tensor) -> KVState:
        k, v = (to_fnuz(x) if x.dtype == FN else x for x in (k, v))
        return super().write(kv, layer, slots, k, v)

    def read(self, kv: KVState, layer: int, pages: Tensor) -> tuple[Tensor, Tensor]:
        k, v = (part.view(torch.uint8).index_select(0, pages).flatten(0, 1) for part in kv[layer])
        return from_fnuz(k), from_fnuz(v)


def paged_store(
    arch: str, spec: KVSpec, page_tokens: int, torch_device: torch.device
) -> PagedKVStore:
    """Pages as the kernels for `arch` read them."""
    fnuz = spec.dtype == NARROW and carries_fnuz(arch)
    return (FnuzKVStore if fnuz else PagedKVStore)(spec, page_tokens, torch_device)
