"""Normalisations, as data. Each names its tensors and carries its own epsilon."""

from __future__ import annotations

from dataclasses import dataclass

from inarch.models.parameters import Parameter, Parameters


@dataclass(frozen=True)
class RMSNorm:
    """x / rms(x) * weight.

    offset: what the checkpoint's weight lacks to the factor, as Gemma's, which is centred on zero.
    Such a weight is kept in float32 with the offset added, and so is the product with it.
    weight: False where there is none to multiply by.
    """

    eps: float
    offset: float = 0.0
    weight: bool = True

    def parameters(self, features: int, heads: int | None = None) -> Parameters:
        """heads: that many weights, each for a head of `features`; None: one for all."""
        return {"weight": _scale(features, heads, self.offset)} if self.weight else {}


@dataclass(frozen=True)
class LayerNorm:
    """(x - mean(x)) / std(x) * weight + bias. offset and weight: as in RMSNorm."""

    eps: float
    bias: bool = True
    offset: float = 0.0
    weight: bool = True

    def parameters(self, features: int, heads: int | None = None) -> Parameters:
        found = {"weight": _scale(features, heads, self.offset)} if self.weight else {}
        return found | ({"bias": Parameter((features,), default=0.0)} if self.bias else {})


def _scale(features: int, heads: int | None, offset: float) -> Parameter:
    rows, columns = ((features,), None) if heads is None else ((heads,), features)
    dtype = "float32" if offset else None
    return Parameter(rows, columns, scale=True, offset=offset, dtype=dtype)


Norm = RMSNorm | LayerNorm
