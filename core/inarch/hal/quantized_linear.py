"""Linear layers whose weights are small integers with a scale for each group of them.

Whatever format a checkpoint has, its weights become one canonical form first: values, scales and zero
points. A kernel packs that. Activations stay floating-point at the seam; a kernel may multiply in
integers where it rounds activations to 8 bits or more for each group. Letters in shapes: T tokens,
N outputs, K inputs, G groups.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from inarch.hal.linear import PackedWeight


@dataclass(frozen=True)
class QuantizationScheme:
    """How weights are stored.

    bits: 4 or 8. group: consecutive inputs of an output that share a scale, the last ones maybe fewer;
    None: all inputs of an output. zero_points: whether a group has its own, or all have half the range.
    """

    bits: int
    group: int | None = None
    zero_points: bool = False

    def groups(self, inputs: int) -> int:
        """G for so many inputs."""
        return 1 if self.group is None else -(-inputs // self.group)

    def weight_bytes(self, outputs: int, inputs: int) -> int:
        """Of a weight with scales of 16 bits and zero points of 8, as kernels mostly store them."""
        a_group = 3 if self.zero_points else 2
        return outputs * (-(-inputs * self.bits // 8) + self.groups(inputs) * a_group)

    def __str__(self) -> str:
        size = "each output" if self.group is None else f"each {self.group} inputs"
        return f"int{self.bits}, a scale{' and zero point' if self.zero_points else ''} for {size}"


@dataclass(frozen=True)
class QuantizedLinearSpec:
    """Static facts: what a kernel's predicate sees. dtype: of activations, results and bias."""

    outputs: int  # on this rank
    inputs: int
    dtype: torch.dtype
    bits: int
    group: int | None
    zero_points: bool
    bias: bool = False

    @property
    def scheme(self) -> QuantizationScheme:
        return QuantizationScheme(self.bits, self.group, self.zero_points)


@dataclass(frozen=True, eq=False)
class QuantizedWeight:
    """The canonical form: of input k and g = k // group, (values[n, k] - zeros[n, g]) * scales[n, g]."""

    values: Tensor  # [N, K] uint8, below 2 ** bits
    scales: Tensor  # [N, G] float32; a negative one is allowed
    zeros: Tensor | None = None  # [N, G] uint8; None: 2 ** (bits - 1)


class QuantizedLinear(Protocol):
    """What a kernel of the facet "quantized_linear" is: it packs weights and applies them."""

    def prepack(
        self, spec: QuantizedLinearSpec, weight: QuantizedWeight, bias: Tensor | None
    ) -> PackedWeight:
        """Pack a weight and bias [N], on the device. They may be kept but must not be written to."""
        ...

    def apply(self, x: Tensor, packed: PackedWeight) -> Tensor:
        """x [T, K] -> x @ weight.T + bias [T, N], in the spec's dtype."""
        ...
