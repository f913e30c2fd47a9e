"""Normalisations, as data. Each names its tensors and carries its own epsilon."""

from __future__ import annotations

from dataclasses import dataclass

from inarch.models.parameters import Parameter, Parameters


@dataclass(frozen=True)
class RMSNorm:
    """x / rms(x) * weight.

    offset: what the checkpoint's weight lacks to the factor, as Gemma's, which is centred on zero.
    Such a weight is kept in float32 with the offset added, and so is the product with it.
    """

    eps: float
    offset: float = 0.0

    def parameters(self, features: int) -> Parameters:
        return {"weight": Parameter((features,), scale=True, offset=self.offset)}


@dataclass(frozen=True)
class LayerNorm:
    """(x - mean(x)) / std(x) * weight + bias."""

    eps: float
    bias: bool = True

    def parameters(self, features: int) -> Parameters:
        weight = {"weight": Parameter((features,), scale=True)}
        return weight | {"bias": Parameter((features,))} if self.bias else weight


Norm = RMSNorm | LayerNorm
