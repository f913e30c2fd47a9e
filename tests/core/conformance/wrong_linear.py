"""Linear layers that are wrong in one thing each: what the kit has to catch."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from inarch.hal.grouped_linear import RowGroups
from inarch.hal.linear import LinearSpec
from inarch.hal.op import Kernel
from inarch.hal.quantized_linear import QuantizedLinearSpec, QuantizedWeight
from inarch.hal.reference.grouped_linear import ReferenceGroupedLinear
from inarch.hal.reference.linear import ReferenceLinear
from inarch.hal.reference.quantized_linear import ReferenceQuantizedLinear, dequantize

from .mutants import Mutant


class NoBias(ReferenceLinear):
    def prepack(self, spec: LinearSpec, weight: Tensor, bias: Tensor | None) -> Any:
        return weight, None


class PadsWithWhatever(ReferenceLinear):
    """Packs to whole tiles of 16 inputs, and does not zero the rest."""

    def prepack(self, spec: LinearSpec, weight: Tensor, bias: Tensor | None) -> Any:
        wide = torch.empty(len(weight), -(-spec.inputs // 16) * 16)
        wide[:, : spec.inputs] = weight
        return wide, bias

    def apply(self, x: Tensor, packed: Any) -> Tensor:
        weight, bias = packed
        more = weight.shape[1] - x.shape[1]
        return F.linear(F.pad(x, (0, more)), weight, bias)


class KnowsItsNeighbours(ReferenceLinear):
    """Adds up in another order where there are many rows."""

    def apply(self, x: Tensor, packed: Any) -> Tensor:
        if len(x) < 10:
            return super().apply(x, packed)
        weight, bias = packed
        return F.linear(x[:, ::2], weight[:, ::2], bias) + F.linear(x[:, 1::2], weight[:, 1::2])


class ForgetsEmptyExperts(ReferenceGroupedLinear):
    def apply(self, x: Tensor, packed: Any, groups: RowGroups) -> Tensor:
        ends = torch.unique(groups.ends[groups.ends > 0])
        return super().apply(x, packed, RowGroups(ends))


class Dequantized(ReferenceQuantizedLinear):
    """Makes the weight floating-point when it is packed."""

    def prepack(
        self, spec: QuantizedLinearSpec, weight: QuantizedWeight, bias: Tensor | None
    ) -> Any:
        return self.wide(spec, weight), bias

    def apply(self, x: Tensor, packed: Any) -> Tensor:
        return F.linear(x, *packed)

    def wide(self, spec: QuantizedLinearSpec, weight: QuantizedWeight) -> Tensor:
        return dequantize(spec, weight)


class SwallowsScales(Dequantized):
    """The first scale of an output serves all its groups."""

    def wide(self, spec: QuantizedLinearSpec, weight: QuantizedWeight) -> Tensor:
        scales = weight.scales[:, :1].expand_as(weight.scales)
        return super().wide(spec, dataclasses.replace(weight, scales=scales))


class NextGroup(Dequantized):
    """The last input of a group has the scale of the next one."""

    def wide(self, spec: QuantizedLinearSpec, weight: QuantizedWeight) -> Tensor:
        parts = [
            None if x is None else torch.cat((x, x[:, -1:]), 1)
            for x in (weight.scales, weight.zeros)
        ]
        moved = QuantizedWeight(F.pad(weight.values, (1, 0)), *parts)
        return super().wide(dataclasses.replace(spec, inputs=spec.inputs + 1), moved)[:, 1:]


class NoZeroPoints(Dequantized):
    def wide(self, spec: QuantizedLinearSpec, weight: QuantizedWeight) -> Tensor:
        return super().wide(spec, dataclasses.replace(weight, zeros=None))


class SwapsNibbles(Dequantized):
    def wide(self, spec: QuantizedLinearSpec, weight: QuantizedWeight) -> Tensor:
        values, even = weight.values.clone(), spec.inputs // 2 * 2
        if spec.bits == 4:
            values[:, :even] = values[:, :even].unflatten(1, (-1, 2)).flip(2).flatten(1)
        return super().wide(spec, dataclasses.replace(weight, values=values))


class RoundsScales(Dequantized):
    """Weights in bfloat16, whatever the dtype of the computation."""

    def wide(self, spec: QuantizedLinearSpec, weight: QuantizedWeight) -> Tensor:
        return super().wide(spec, weight).bfloat16().float()


class RoundsActivations(ReferenceQuantizedLinear):
    """To 8 bits, by the largest of a whole row instead of its group."""

    def apply(self, x: Tensor, packed: Any) -> Tensor:
        step = x.abs().amax(1, keepdim=True) / 127
        rounded = torch.where(step == 0, 0.0, (x / step).round() * step)
        return super().apply(rounded.to(x.dtype), packed)


class DividesByZero(ReferenceQuantizedLinear):
    """Rounds activations by the largest of each group, which may be nothing."""

    def apply(self, x: Tensor, packed: Any) -> Tensor:
        size = packed.spec.group or packed.spec.inputs
        whole = F.pad(x, (0, -x.shape[1] % size)).unflatten(1, (-1, size))
        step = whole.abs().amax(2, keepdim=True) / 127
        rounded = ((whole / step).round() * step).flatten(1)[:, : x.shape[1]]
        return super().apply(rounded, packed)


def wrong(facet: str, kind: Any, told: str) -> Mutant:
    return Mutant(3, facet, told, [Kernel(facet, "wrong", kind)])


def quantized(kind: Any, told: str = "rows is off by") -> Mutant:
    return wrong("quantized_linear", kind, told)


LINEAR: dict[str, Mutant] = {
    "no-bias": wrong("linear", NoBias, "the output is off by"),
    "padding-not-zeroed": wrong("linear", PadsWithWhatever, "the output is NaN"),
    "knows-its-neighbours": dataclasses.replace(
        wrong("linear", KnowsItsNeighbours, "rows 0..0 differ"), features={"batch_invariant"}
    ),
    "forgets-empty-experts": wrong("grouped_linear", ForgetsEmptyExperts, ""),
    "swallowed-scales": quantized(SwallowsScales),
    "scale-of-the-next-group": quantized(NextGroup),
    "no-zero-points": quantized(NoZeroPoints),
    "swapped-nibbles": quantized(SwapsNibbles),
    "rounded-scales": quantized(RoundsScales),
    "activations-rounded-by-row": quantized(RoundsActivations),
    "divides-by-zero": quantized(DividesByZero, "rows is NaN"),
}
