"""Linear layers of many experts: each row of the input is multiplied by its own expert's weight.

As for linear layers, weights are prepacked once at load. Letters in shapes: M rows (tokens times the
experts of each), E experts, N outputs, K inputs.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from inarch.hal.linear import PackedWeight

if TYPE_CHECKING:
    from inarch.hal.device import Device


@dataclass(frozen=True)
class GroupedLinearSpec:
    """Static facts: what a kernel's predicate sees."""

    experts: int  # on this rank
    outputs: int
    inputs: int
    dtype: torch.dtype
    bias: bool = False


@dataclass(frozen=True, eq=False)
class RowGroups:
    """Which rows belong to which expert, when rows are sorted by expert.

    ends [E] int32 on the device: expert e has the rows from ends[e - 1] (or 0) to ends[e].
    device: who downloads them; None: torch does.
    """

    ends: Tensor
    device: Device | None = None

    @functools.cached_property
    def on_host(self) -> list[int]:
        """The same as a list: waits for the device, once."""
        ends = self.ends if self.device is None else self.device.download(self.ends).wait()
        found: list[int] = ends.tolist()
        return found


class GroupedLinear(Protocol):
    """What a kernel of the facet "grouped_linear" is: it packs weights and applies them."""

    @property
    def capturable(self) -> bool:
        """Whether `apply` may be recorded and replayed with other groups.

        It must then read them on the device alone.
        """
        ...

    def prepack(self, spec: GroupedLinearSpec, weight: Tensor, bias: Tensor | None) -> PackedWeight:
        """Pack weight [E, N, K] and bias [E, N], on the device in the spec's dtype.

        They may be kept as they are but must not be written to.
        """
        ...

    def apply(self, x: Tensor, packed: PackedWeight, groups: RowGroups) -> Tensor:
        """x [M, K], sorted by expert -> [M, N]: x @ weight[e].T + bias[e] of each row's expert."""
        ...
