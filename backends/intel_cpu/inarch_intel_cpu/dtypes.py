"""Dtypes: how kernels are told of one, and which to compute in by which kernels."""

from __future__ import annotations

import torch

TYPES = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}  # `Format` of csrc/numbers.h
PAIRS = ("amx", "avx512_bf16")  # variants that multiply bfloat16 by bfloat16


def preferred(checkpoint: torch.dtype, variant: str) -> tuple[torch.dtype, str]:
    """What to compute in, and why. Weights keep their 16 bits whatever is chosen: see linear.py."""
    if checkpoint not in (torch.bfloat16, torch.float16):
        return checkpoint, "the checkpoint's own"
    name = str(checkpoint).removeprefix("torch.")
    if checkpoint == torch.bfloat16 and variant in PAIRS:
        return checkpoint, f"the checkpoint's own, multiplied as it is by {variant}: the fastest"
    reason = f"{variant} multiplies {name} weights in float32, whatever else is {name}: as fast"
    return torch.float32, f"{reason}, and nothing is rounded on the way"
