"""MXFP4: numbers in 4 bits, 32 of which share a power of two.

Source: OCP Microscaling Formats (MX) specification 1.0, 2023: E2M1 elements, E8M0 scales.
"""

from __future__ import annotations

import torch
from torch import Tensor

MAGNITUDES = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)  # of E2M1; the fourth bit is the sign
SCALE_BIAS = 127
NAN_SCALE = 255
BLOCK_BYTES = 16


def dequantize_mxfp4(blocks: Tensor, scales: Tensor) -> Tensor:
    """blocks [..., G, 16] and scales [..., G], both uint8 -> [..., G * 32] float32.

    A byte holds two neighbours, the first one in its lower half. Raises ValueError for other shapes.
    """
    if blocks.shape != (*scales.shape, BLOCK_BYTES):
        raise ValueError(
            f"blocks {list(blocks.shape)} and scales {list(scales.shape)} do not match"
        )
    values = torch.tensor((*MAGNITUDES, *(-m for m in MAGNITUDES)), device=blocks.device)
    pairs = torch.stack((blocks & 15, blocks >> 4), dim=-1)
    numbers = values[pairs.int()].flatten(-2)
    powers = torch.exp2(scales.float() - SCALE_BIAS).masked_fill(scales == NAN_SCALE, torch.nan)
    return (numbers * powers.unsqueeze(-1)).flatten(-2)
