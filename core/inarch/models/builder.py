"""What a layer asks for while it is being built: its weights, its kernels, what layers share."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, fields
from typing import Any

from torch import Tensor

from inarch.hal.attention import Attention, AttentionSpec, attention_facts
from inarch.hal.device import Device
from inarch.hal.dispatch import Dispatcher
from inarch.hal.kv import KVStore
from inarch.hal.linear import Linear, LinearSpec, PackedWeight
from inarch.hal.op import Op
from inarch.hal.reference.attention import ReferenceAttention
from inarch.hal.reference.linear import ReferenceLinear
from inarch.models.description import Description, Rotary
from inarch.models.rotary import rotary_table
from inarch.models.weights import Weights


@dataclass(frozen=True, eq=False)
class Projection:
    """A linear layer whose weight is packed: x [T, K] -> [T, N]."""

    kernel: Linear
    packed: PackedWeight

    def __call__(self, x: Tensor) -> Tensor:
        return self.kernel.apply(x, self.packed)


class Builder:
    """Serves the construction of one decoder. Kernels are bound by the dispatcher, once each."""

    def __init__(
        self,
        description: Description,
        weights: Weights,
        dispatcher: Dispatcher,
        store: KVStore,
        device: Device,
    ) -> None:
        self.description = description
        self.weights = weights
        self.dtype = weights.dtype
        self._dispatcher = dispatcher
        self._store = store
        self._device = device
        self._attentions: dict[AttentionSpec, Attention] = {}
        self._tables: dict[Hashable, Tensor] = {}

    @property
    def attentions(self) -> tuple[Attention, ...]:
        """One for each distinct spec so far, in the order of the indices that were given out."""
        return tuple(self._attentions.values())

    def bind(self, op: Op[..., Any], **facts: Any) -> Callable[..., Any]:
        return self._dispatcher.bind(op, dtype=self.dtype, **facts)

    def linear(self, name: str) -> Projection:
        bias = f"{name}.bias"
        return self.pack(
            self.weights.take(f"{name}.weight"),
            self.weights.take(bias) if bias in self.weights else None,
        )

    def pack(self, weight: Tensor, bias: Tensor | None = None) -> Projection:
        """Weight [N, K] and bias [N] on the device, in the form that the chosen kernel wants."""
        outputs, inputs = weight.shape
        spec = LinearSpec(outputs, inputs, self.dtype, bias is not None)
        facts = {field.name: getattr(spec, field.name) for field in fields(spec)}
        kernel: Linear = self._dispatcher.select("linear", ReferenceLinear, **facts)()
        return Projection(kernel, kernel.prepack(spec, weight, bias))

    def attention(self, spec: AttentionSpec) -> tuple[Attention, int]:
        """The runtime for a spec, and the index of its plan among those of a step."""
        if spec not in self._attentions:
            facts = attention_facts(spec, self._store)
            factory = self._dispatcher.select("attention", ReferenceAttention, **facts)
            self._attentions[spec] = factory(spec, self._store, self._device)
        return self._attentions[spec], list(self._attentions).index(spec)

    def rotary_table(self, rotary: Rotary) -> Tensor:
        """Cosines and sines on the device; layers that rotate alike share a table."""
        return self.table(rotary, lambda: rotary_table(rotary, self.description.context_length))

    def table(self, key: Hashable, make: Callable[[], Tensor]) -> Tensor:
        """A tensor that nobody writes to, on the device: made once for all who give the key."""
        if key not in self._tables:
            self._tables[key] = make().to(self._device.torch_device)
        return self._tables[key]
