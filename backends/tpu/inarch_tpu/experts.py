"""A mixture of experts as two ragged products: tokens sorted by expert, XLA knows where each begins."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from torch import Tensor

from inarch.hal.experts import ExpertsSpec, ExpertWeights
from inarch.hal.op import Facts
from inarch.hal.support import Support, no, yes
from inarch_tpu.arithmetic import EXACT
from inarch_tpu.mesh import split
from inarch_tpu.tensor import JaxTensor, resident, value


class Packed(NamedTuple):
    spec: ExpertsSpec
    gate_up: JaxTensor  # [E, H, 2I]
    down: JaxTensor  # [E, I, H]
    gate_up_bias: JaxTensor | None  # [E, 2I]
    down_bias: JaxTensor | None  # [E, H]


def _gated(activate: Callable[[Any], Any]) -> Callable[[Any, ExpertsSpec], Any]:
    def run(x: Any, spec: ExpertsSpec) -> Any:
        gate, up = jnp.split(x, 2, -1)
        return activate(gate) * up

    return run


def _clamped_swiglu(x: Any, spec: ExpertsSpec) -> Any:
    gate, up = jnp.split(x, 2, -1)
    gate, up = jnp.clip(gate, None, spec.limit), jnp.clip(up, -spec.limit, spec.limit)
    return gate * jax.nn.sigmoid(spec.alpha * gate) * (up + 1)


ACTIVATIONS: dict[str, Callable[[Any, ExpertsSpec], Any]] = {
    "silu": _gated(jax.nn.silu),
    "gelu_tanh": _gated(jax.nn.gelu),
    "clamped_swiglu": _clamped_swiglu,
}


def supports(facts: Facts) -> Support:
    if facts["activation"] not in ACTIVATIONS:
        return no(f"no activation {facts['activation']}")
    return yes()


class XlaExperts:
    """Every chip has all experts, and of each a part of its intermediate features."""

    capturable = True

    def __init__(self, mesh: Mesh) -> None:
        self._mesh = mesh

    def prepack(self, spec: ExpertsSpec, weights: ExpertWeights) -> Packed:
        biases = (weights.gate_up_bias, weights.down_bias)
        return Packed(
            spec,
            self._placed(weights.gate_up.transpose(1, 2), 2),
            self._placed(weights.down.transpose(1, 2), 1),
            *(None if bias is None else resident(bias) for bias in biases),
        )

    def _placed(self, weight: Tensor, axis: int) -> JaxTensor:
        return resident(weight, split(self._mesh, weight.shape, axis))

    def apply(self, x: Tensor, experts: Tensor, weights: Tensor, packed: Packed) -> Tensor:
        spec = packed.spec
        tokens, chosen, factors = value(x), value(experts), value(weights)
        flat = chosen.reshape(-1)
        order = jnp.argsort(flat, stable=True)
        by_expert = flat[order]
        sizes = jnp.bincount(flat, length=spec.experts).astype(jnp.int32)
        rows = tokens[order // spec.top_k]
        if spec.scale_input:
            rows = rows * factors.reshape(-1)[order][:, None].astype(rows.dtype)
        hidden = _product(rows, packed.gate_up, packed.gate_up_bias, sizes, by_expert)
        active = ACTIVATIONS[spec.activation](hidden.astype(jnp.float32), spec).astype(hidden.dtype)
        found = _product(active, packed.down, packed.down_bias, sizes, by_expert)
        given = jnp.zeros_like(found).at[order].set(found).reshape(*chosen.shape, -1)
        if spec.scale_input:
            return JaxTensor(given.sum(1))
        return JaxTensor(
            jnp.einsum("tk,tkh->th", factors.astype(given.dtype), given, precision=EXACT)
        )


def _product(
    rows: Any, weight: JaxTensor, bias: JaxTensor | None, sizes: Any, by_expert: Any
) -> Any:
    """rows [M, K] sorted by expert, weight [E, K, N] -> [M, N]"""
    out = jax.lax.ragged_dot(rows, value(weight), sizes, precision=EXACT)
    return out if bias is None else out + value(bias)[by_expert]
