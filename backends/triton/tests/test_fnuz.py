"""The two kinds of 8-bit floats of one meaning, pattern by pattern. Needs no Triton."""

from __future__ import annotations

import torch

from inarch_triton.fnuz import FN, SCALE, from_fnuz, to_fnuz

ALL = torch.arange(256, dtype=torch.uint8).view(FN)


def test_every_number_becomes_half_of_itself_exactly() -> None:
    wide, half = ALL.float(), to_fnuz(ALL).float()
    torch.testing.assert_close(half * SCALE, wide, rtol=0, atol=0, equal_nan=True)
    assert half.isnan().sum() == 2, "of either sign"


def test_negative_zero_becomes_zero_and_never_nan() -> None:
    zero = to_fnuz(torch.tensor([-0.0]).to(FN))
    assert zero.float().item() == 0
    assert zero.view(torch.uint8).item() == 0


def test_back_again_every_number_has_its_bits() -> None:
    back = from_fnuz(to_fnuz(ALL)).view(torch.uint8)
    kept = back == ALL.view(torch.uint8)
    assert (~kept).nonzero().flatten().tolist() == [0x80, 0xFF], "-0 is 0, and NaN has no sign"
    assert back[0x80] == 0
    assert back[0xFF] == 0x7F
