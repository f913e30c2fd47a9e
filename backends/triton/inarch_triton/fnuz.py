"""8-bit floats of MI300 (gfx942), float8_e4m3fnuz, as carriers of the usual ones, float8_e4m3fn.

The two have the same fields, but the exponent of fnuz counts from 8 instead of 7. So the same bits
mean half as much there, exactly, down to the last subnormal; only two patterns differ. What is -0 in
e4m3fn (0x80) is fnuz's NaN, of which it has one and no -0; what is NaN in e4m3fn (0x7f, 0xff) is +-240.
Source: Noune et al., 2022, arXiv:2206.02915 (fnuz); Micikevicius et al., 2022, arXiv:2209.05433.
"""

from __future__ import annotations

import torch
from torch import Tensor

from inarch.hal.kv import KVLayout, KVSpec, KVState
from inarch_triton.kernels import NARROW, carries_fnuz
from inarch_triton.kv import PagedKVStore

FN, FNUZ = torch.float8_e4m3fn, torch.float8_e4m3fnuz
SCALE = 2.0  # what the values of the same bits as fnuz are multiplied with
NEGATIVE_ZERO, FN_NAN = 0x80, 0x7F  # of e4m3fn, the latter without its sign; 0x80 is fnuz's NaN


def paged_store(
    arch: str, spec: KVSpec, page_tokens: int, torch_device: torch.device
) -> PagedKVStore:
    """Pages as the kernels for `arch` read them."""
    fnuz = spec.dtype == NARROW and carries_fnuz(arch)
    return (FnuzKVStore if fnuz else PagedKVStore)(spec, page_tokens, torch_device)


def to_fnuz(x: Tensor) -> Tensor:
    """x, float8_e4m3fn, as float8_e4m3fnuz of half the value: x = SCALE * to_fnuz(x), but 0 for -0."""
    bits = x.view(torch.uint8)
    bits = torch.where(bits == NEGATIVE_ZERO, 0, bits)
    is_nan = (bits & FN_NAN) == FN_NAN
    return torch.where(is_nan, NEGATIVE_ZERO, bits).view(FNUZ)


def from_fnuz(x: Tensor) -> Tensor:
    """The inverse: what `to_fnuz` made of the result is x."""
    bits = x.view(torch.uint8)
    return torch.where(bits == NEGATIVE_ZERO, FN_NAN, bits).view(FN)


def weight_to_fnuz(weight: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """A weight of e4m3fn and what its values are multiplied with, of any shape, for prepack."""
    return to_fnuz(weight), scale * SCALE


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
