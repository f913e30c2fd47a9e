"""Tables of cosines and sines for rotary embeddings, with the scalings that stretch a context."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from inarch.models.description import (
    LinearScaling,
    Llama3Scaling,
    LongRopeScaling,
    ProportionalScaling,
    Rotary,
    YarnScaling,
)


def rotary_table(rotary: Rotary, positions: int) -> Tensor:
    """[positions, dim] float32 on the host: dim/2 cosines, then dim/2 sines.

    Where LongRoPE can leave its original context there are [2 * positions, dim]: first the angles
    of sequences that fit it, then those of longer ones; see `Description.long_from`. Computed in
    float64: in float32 the angle of position 100,000 is already wrong by 0.004.
    """
    scaling = rotary.scaling
    if not isinstance(scaling, LongRopeScaling):
        magnitude = scaling.magnitude if isinstance(scaling, YarnScaling) else 1.0
        return _table(rotary_frequencies(rotary), positions, magnitude)
    frequencies = rotary_frequencies(rotary)
    short = frequencies / torch.tensor(scaling.short_factors, dtype=torch.float64)
    table = _table(short, positions, scaling.short_magnitude)
    if positions <= scaling.original_context:
        return table
    long = frequencies / torch.tensor(scaling.long_factors, dtype=torch.float64)
    return torch.cat((table, _table(long, positions, scaling.long_magnitude)))


def _table(frequencies: Tensor, positions: int, magnitude: float) -> Tensor:
    angles = torch.outer(torch.arange(positions, dtype=torch.float64), frequencies)
    table = torch.empty(positions, 2 * len(frequencies))
    cos, sin = table.chunk(2, dim=-1)
    cos.copy_(angles.cos())
    sin.copy_(angles.sin())
    if magnitude != 1.0:
        table *= magnitude
    return table


def rotary_frequencies(rotary: Rotary) -> Tensor:
    """Radians per position of each feature pair: float64 [dim/2]. LongRoPE's are not yet divided."""
    exponents = torch.arange(0, rotary.dim, 2, dtype=torch.float64) / rotary.dim
    frequencies = rotary.theta**-exponents
    match rotary.scaling:
        case None | LongRopeScaling():
            return frequencies
        case LinearScaling(factor):
            return frequencies / factor
        case Llama3Scaling() as scaling:
            return _blend(frequencies, scaling.factor, _llama3_kept(frequencies, scaling))
        case YarnScaling() as scaling:
            return _blend(frequencies, scaling.factor, _yarn_kept(rotary, scaling))
        case ProportionalScaling(pairs, factor):
            return torch.cat((frequencies[:pairs] / factor, torch.zeros_like(frequencies[pairs:])))


def _blend(frequencies: Tensor, factor: float, kept: Tensor) -> Tensor:
    """Divide by factor where kept is 0, leave alone where it is 1, and mix in between."""
    return frequencies * (kept + (1 - kept) / factor)


def _llama3_kept(frequencies: Tensor, scaling: Llama3Scaling) -> Tensor:
    turns = scaling.original_context * frequencies / (2 * math.pi)
    low, high = scaling.low_freq_factor, scaling.high_freq_factor
    return ((turns - low) / (high - low)).clamp(0, 1)


def _yarn_kept(rotary: Rotary, scaling: YarnScaling) -> Tensor:
    """1 for features that turn beta_fast times or more in the original context, 0 at beta_slow."""

    def feature(turns: float) -> float:
        wavelength = scaling.original_context / (turns * 2 * math.pi)
        return rotary.dim * math.log(wavelength) / (2 * math.log(rotary.theta))

    low, high = feature(scaling.beta_fast), feature(scaling.beta_slow)
    if scaling.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, rotary.dim - 1)
    ramp = (torch.arange(rotary.dim // 2, dtype=torch.float64) - low) / max(high - low, 0.001)
    return 1 - ramp.clamp(0, 1)
