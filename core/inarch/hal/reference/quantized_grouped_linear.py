"""The quantized grouped linear facet in plain torch: an expert's weight is made floating-point at use.

Only experts that have rows are, one after the other.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from inarch.hal.grouped_linear import RowGroups
from inarch.hal.linear import PackedWeight
from inarch.hal.quantized_experts import QuantizedGroupedLinearSpec
from inarch.hal.quantized_linear import QuantizedWeight
from inarch.hal.reference.quantized_linear import ReferenceQuantizedLinear


@dataclass(frozen=True, eq=False)
class StoredExperts:
    outputs: int
    each: tuple[PackedWeight, ...]


class ReferenceQuantizedGroupedLinear:
    """The host must know the groups, so a step with it cannot be captured."""

    capturable = False
    one = ReferenceQuantizedLinear()

    def prepack(
        self, spec: QuantizedGroupedLinearSpec, weight: QuantizedWeight, bias: Tensor | None
    ) -> StoredExperts:
        def pack(expert: int) -> PackedWeight:
            zeros = None if weight.zeros is None else weight.zeros[expert]
            own = QuantizedWeight(weight.values[expert], weight.scales[expert], zeros)
            return self.one.prepack(spec.of_one, own, None if bias is None else bias[expert])

        return StoredExperts(spec.outputs, tuple(map(pack, range(spec.experts))))

    def apply(self, x: Tensor, packed: PackedWeight, groups: RowGroups) -> Tensor:
        out = x.new_empty(len(x), packed.outputs)
        start = 0
        for expert, end in enumerate(groups.on_host):
            if end > start:
                out[start:end] = self.one.apply(x[start:end], packed.each[expert])
            start = end
        return out
