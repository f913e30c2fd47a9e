"""Linear layers of many experts as one ragged product."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from torch import Tensor

from inarch.hal.grouped_linear import GroupedLinearSpec, RowGroups
from inarch_tpu.arithmetic import EXACT
from inarch_tpu.tensor import JaxTensor, resident, value


class Packed(NamedTuple):
    weight: JaxTensor  # [E, K, N]
    bias: JaxTensor | None  # [E, N]


class XlaGroupedLinear:
    """For experts whose activation `XlaExperts` does not have: whole on every chip."""

    capturable = True

    def prepack(self, spec: GroupedLinearSpec, weight: Tensor, bias: Tensor | None) -> Packed:
        return Packed(resident(weight.transpose(1, 2)), None if bias is None else resident(bias))

    def apply(self, x: Tensor, packed: Packed, groups: RowGroups) -> Tensor:
        rows, ends = value(x), value(groups.ends)
        sizes = jnp.diff(ends, prepend=0).astype(jnp.int32)
        out = jax.lax.ragged_dot(rows, value(packed.weight), sizes, precision=EXACT)
        if packed.bias is not None:
            owners = jnp.searchsorted(ends, jnp.arange(len(rows)), side="right")
            out = out + value(packed.bias)[owners]
        return JaxTensor(out)
