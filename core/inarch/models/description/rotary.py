"""How positions are rotated into queries and keys, and the scalings that stretch a context."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class LinearScaling:
    """Positions divided by `factor`. Source: Chen et al., 2023, arXiv:2306.15595."""

    factor: float


@dataclass(frozen=True)
class Llama3Scaling:
    """Only slow rotations are divided by `factor`, with a smooth border, as in Llama 3.1.

    A rotation that turns fewer than `low_freq_factor` times in `original_context` tokens is slow,
    one that turns more than `high_freq_factor` times is left alone.
    """

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_context: int  # tokens


@dataclass(frozen=True)
class YarnScaling:
    """As Llama3Scaling with a ramp over features. Source: Peng et al., 2023, arXiv:2309.00071.

    `magnitude` multiplies cosines and sines. `truncate` rounds the ramp's ends to whole features.
    """

    factor: float
    original_context: int  # tokens
    magnitude: float
    beta_fast: float = 32.0  # turns in the original context
    beta_slow: float = 1.0
    truncate: bool = True


@dataclass(frozen=True)
class LongRopeScaling:
    """A divisor for each rotation: `short_factors` for sequences that fit the original context,
    `long_factors` for longer ones. Source: Ding et al., 2024, arXiv:2402.13753.

    The magnitudes multiply cosines and sines.
    """

    short_factors: tuple[float, ...]
    long_factors: tuple[float, ...]
    original_context: int  # tokens
    short_magnitude: float
    long_magnitude: float


@dataclass(frozen=True)
class ProportionalScaling:
    """The first `pairs` feature pairs of a head turn, by angles of all of it; the others stand."""

    pairs: int
    factor: float = 1.0


RotaryScaling = LinearScaling | Llama3Scaling | YarnScaling | LongRopeScaling | ProportionalScaling


@dataclass(frozen=True)
class Rotary:
    """Rotary position embedding of the first `dim` features of a head.

    Feature i pairs with i + dim / 2 (as Llama), or 2i with 2i + 1 if interleaved (as GPT-J).
    """

    dim: int
    theta: float
    scaling: RotaryScaling | None = None
    interleaved: bool = False
