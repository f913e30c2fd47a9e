"""8-bit floats of MI300 (gfx942), float8_e4m3fnuz, as carriers of the usual ones, float8_e4m3fn.

The two have the same fields, but the exponent of fnuz counts from 8 instead of 7. So the same bits
mean half as much there, exactly, down to the last subnormal; only two patterns differ. What is -0 in
e4m3fn (0x80) is fnuz's NaN, of which it has one and no -0; what is NaN in e4m3fn (0x7f, 0xff) is +-240.
Source: Noune et al., 2022, arXiv:2206.02915 (fnuz); Micikevicius et al., 2022, arXiv:2209.05433.
"""

from __future__ import annotations

import torch
from torch import Tensor

FN, FNUZ = torch.float8_e4m3fn, torch.float8_e4m3fnuz
SCALE = 2.0  # what the values of the same bits as fnuz are multiplied with
NEGATIVE_ZERO, FN_NAN = 0x80, 0x7F  # of e4m3fn, the latter without its sign; 0x80 is fnuz's NaN


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
