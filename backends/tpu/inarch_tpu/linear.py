"""Linear layers: weights lie on the chips as JAX arrays, split over them."""

from __future__ import annotations

from typing import NamedTuple

from jax.sharding import Mesh
from torch import Tensor

from inarch.hal.linear import LinearSpec
from inarch_tpu.arithmetic import linear
from inarch_tpu.mesh import split
from inarch_tpu.tensor import JaxTensor, resident, value


class Packed(NamedTuple):
    weight: JaxTensor  # [N, K]
    bias: JaxTensor | None  # [N]


class XlaLinear:
    """Keeps [N, K]; a tied head and its embedding are one array.

    They are split by outputs, those that end a pair by inputs: between the two of a pair, nothing need
    move between chips.
    """

    def __init__(self, mesh: Mesh) -> None:
        self._mesh = mesh

    def prepack(self, spec: LinearSpec, weight: Tensor, bias: Tensor | None) -> Packed:
        axis = 1 if spec.ends_pair else 0
        return Packed(
            resident(weight, split(self._mesh, weight.shape, axis)),
            None if bias is None else resident(bias),
        )

    def apply(self, x: Tensor, packed: Packed) -> Tensor:
        bias = None if packed.bias is None else value(packed.bias)
        return JaxTensor(linear(value(x), value(packed.weight), bias))
