"""What a layer asks for while it is being built: its weights, its kernels, what layers share."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from inarch.hal.attention import Attention, AttentionSpec
from inarch.hal.device import Device
from inarch.hal.dispatch import Dispatcher
from inarch.hal.experts import Experts, ExpertsSpec, ExpertWeights
from inarch.hal.grouped_linear import GroupedLinearSpec
from inarch.hal.kv import KVStore
from inarch.hal.latent import LatentAttention, LatentSpec
from inarch.hal.linear import Linear, LinearSpec, PackedWeight
from inarch.hal.op import Op
from inarch.hal.quantized_experts import (
    QuantizedExperts,
    QuantizedExpertsSpec,
    QuantizedExpertWeights,
    QuantizedGroupedLinearSpec,
)
from inarch.hal.quantized_linear import (
    QuantizationScheme,
    QuantizedLinear,
    QuantizedLinearSpec,
)
from inarch.hal.reference.experts import ComposedExperts, GroupedProduct
from inarch.hal.reference.grouped_linear import ReferenceGroupedLinear
from inarch.hal.reference.linear import ReferenceLinear
from inarch.hal.reference.quantized_grouped_linear import ReferenceQuantizedGroupedLinear
from inarch.hal.reference.quantized_linear import ReferenceQuantizedLinear
from inarch.models.attentions import Attentions
from inarch.models.description import Description, Rotary
from inarch.models.quantize import quantize, quantize_experts
from inarch.models.rotary import rotary_table
from inarch.models.weights import Weights


@dataclass(frozen=True, eq=False)
class Projection:
    """A linear layer whose weight is packed: x [T, K] -> [T, N]."""

    kernel: Linear | QuantizedLinear
    packed: PackedWeight

    def __call__(self, x: Tensor) -> Tensor:
        return self.kernel.apply(x, self.packed)


@dataclass(frozen=True, eq=False)
class RunExperts:
    """The experts of a layer, packed: x [T, H], experts and weights [T, k] -> [T, H]."""

    kernel: Experts | QuantizedExperts
    packed: PackedWeight

    def __call__(self, x: Tensor, experts: Tensor, weights: Tensor) -> Tensor:
        return self.kernel.apply(x, experts, weights, self.packed)


class Builder:
    """Serves the construction of one decoder. Kernels are bound by the dispatcher, once each.

    quantization: how the weights of linear layers and experts are stored; None: as they come.
    """

    def __init__(
        self,
        description: Description,
        weights: Weights,
        dispatcher: Dispatcher,
        store: KVStore,
        device: Device,
        quantization: QuantizationScheme | None = None,
    ) -> None:
        self.description = description
        self.weights = weights
        self.dtype = weights.dtype
        self._dispatcher = dispatcher
        self.device = device
        self.quantization = quantization
        self.attentions = Attentions(dispatcher, store, device)
        self._experts: list[Experts | QuantizedExperts] = []
        self._tables: dict[Hashable, Tensor] = {}
        self._pages, self._states = itertools.count(), itertools.count()

    @property
    def capturable(self) -> bool:
        """Whether a step of all that was built so far may be recorded and replayed."""
        return self.attentions.capturable and all(e.capturable for e in self._experts)

    def next_pages(self) -> int:
        """The index in the store of the next mixer that keeps something of each token."""
        return next(self._pages)

    def next_state(self) -> int:
        """The index among the states of the next mixer that has one."""
        return next(self._states)

    def bind(self, op: Op[..., Any], **facts: Any) -> Callable[..., Any]:
        return self._dispatcher.bind(op, dtype=self.dtype, **facts)

    def linear(self, name: str, *, ends_pair: bool = False) -> Projection:
        weight, bias = f"{name}.weight", f"{name}.bias"
        quantizable = self.weights.parameters[weight].quantizable
        return self.pack(
            self.weights.take(weight),
            self.weights.take(bias) if bias in self.weights else None,
            quantizable=quantizable,
            ends_pair=ends_pair,
        )

    def on_device(self, host: Tensor) -> Tensor:
        """A small tensor, in the dtype of the computation if it is floating-point."""
        wanted = self.dtype if host.is_floating_point() else host.dtype
        return host.to(self.device.torch_device, wanted)

    def pack(
        self,
        weight: Tensor,
        bias: Tensor | None = None,
        *,
        quantizable: bool = True,
        ends_pair: bool = False,
    ) -> Projection:
        """Weight [N, K] and bias [N] on the device, in the form that the chosen kernel wants."""
        if quantizable and self.quantization is not None:
            return self._pack_quantized(weight, bias, self.quantization)
        outputs, inputs = weight.shape
        spec = LinearSpec(outputs, inputs, weight.dtype, bias is not None, ends_pair)
        kernel: Linear = self._dispatcher.select("linear", ReferenceLinear, **vars(spec))()
        return Projection(kernel, kernel.prepack(spec, weight, bias))

    def _pack_quantized(
        self, weight: Tensor, bias: Tensor | None, scheme: QuantizationScheme
    ) -> Projection:
        outputs, inputs = weight.shape
        spec = QuantizedLinearSpec(
            outputs,
            inputs,
            weight.dtype,
            scheme.bits,
            scheme.group,
            scheme.zero_points,
            bias is not None,
        )
        chosen = self._dispatcher.select("quantized_linear", ReferenceQuantizedLinear, **vars(spec))
        kernel: QuantizedLinear = chosen()
        return Projection(kernel, kernel.prepack(spec, quantize(weight, scheme), bias))

    def attention(self, spec: AttentionSpec) -> tuple[Attention, int]:
        """The runtime for a spec, and the index of its plan among those of a step."""
        return self.attentions.bind(spec)

    def latent_attention(self, spec: LatentSpec) -> tuple[LatentAttention, int]:
        """As `attention`."""
        return self.attentions.bind_latent(spec)

    def experts(
        self,
        spec: ExpertsSpec,
        weights: ExpertWeights,
        composed: Callable[[ExpertsSpec], ComposedExperts],
    ) -> RunExperts:
        """A kernel for a layer's experts as a whole, or else what `composed` makes of parts."""
        name: str = "experts"
        given: ExpertWeights | QuantizedExpertWeights = weights
        if self.quantization is not None:
            name, given = "quantized_experts", quantize_experts(weights, self.quantization)
            spec = QuantizedExpertsSpec(**vars(spec), **vars(self.quantization))
        make = functools.partial(composed, spec)
        kernel: Any = self._dispatcher.select(name, make, composite=True, **vars(spec))()
        self._experts.append(kernel)
        return RunExperts(kernel, kernel.prepack(spec, given))

    def grouped_linear(self, spec: GroupedLinearSpec) -> GroupedProduct:
        name: str = "grouped_linear"
        reference: Callable[[], GroupedProduct] = ReferenceGroupedLinear
        if isinstance(spec, QuantizedGroupedLinearSpec):
            name, reference = "quantized_grouped_linear", ReferenceQuantizedGroupedLinear
        return self._dispatcher.select(name, reference, **vars(spec))()

    def rotary_table(self, rotary: Rotary) -> Tensor:
        """Cosines and sines on the device; layers that rotate alike share a table."""
        positions, two = self.description.context_length, self.description.long_from is not None

        def make() -> Tensor:
            table = rotary_table(rotary, positions)
            return table.repeat(2, 1) if two and len(table) == positions else table

        return self.table(rotary, make)

    def table(self, key: Hashable, make: Callable[[], Tensor]) -> Tensor:
        """A tensor that nobody writes to, on the device: made once for all who give the key."""
        if key not in self._tables:
            self._tables[key] = make().to(self.device.torch_device)
        return self._tables[key]
