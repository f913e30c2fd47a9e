"""The running attentions of a model: one for each distinct spec, planned together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor

from inarch.hal.attention import (
    Attention,
    AttentionBatch,
    AttentionPlan,
    AttentionPlanner,
    AttentionSpec,
    HostPlan,
    attention_facts,
)
from inarch.hal.device import Device
from inarch.hal.dispatch import Dispatcher
from inarch.hal.executor import StepShape
from inarch.hal.kv import KVStore
from inarch.hal.latent import LatentAttention, LatentSpec, latent_facts
from inarch.hal.reference.attention import ReferenceAttention
from inarch.hal.reference.latent import ReferenceLatentAttention


class Attentions:
    """Layers that attend alike share one attention and, in each step, its plan."""

    def __init__(self, dispatcher: Dispatcher, store: KVStore, device: Device) -> None:
        self._dispatcher = dispatcher
        self._store = store
        self._device = device
        self._by_spec: dict[AttentionSpec | LatentSpec, AttentionPlanner] = {}

    def __len__(self) -> int:
        return len(self._by_spec)

    def bind(self, spec: AttentionSpec) -> tuple[Attention, int]:
        """The attention for a spec, and the index of its plan among those of a step."""
        facts = attention_facts(spec, self._store)
        return self._shared(spec, self._dispatcher.select("attention", ReferenceAttention, **facts))

    def bind_latent(self, spec: LatentSpec) -> tuple[LatentAttention, int]:
        """As `bind`."""
        facts = latent_facts(spec, self._store)
        factory = self._dispatcher.select("latent_attention", ReferenceLatentAttention, **facts)
        return self._shared(spec, factory)

    @property
    def capturable(self) -> bool:
        """Whether all of them may be recorded and replayed: see Attention."""
        return all(attention.capturable for attention in self._by_spec.values())

    def kept_bytes(self, most: StepShape) -> int:
        """What they will keep of the device's memory for steps up to `most`."""
        return sum(attention.kept_bytes(most) for attention in self._by_spec.values())

    def plan(self, batch: AttentionBatch, *others: HostPlan) -> HostPlan:
        """The plans of one step as one, in the order of their indices: `StepInputs.plans`.

        others: of what is no attention; they come last.
        """
        return joined([*(attention.plan(batch) for attention in self._by_spec.values()), *others])

    def _shared(
        self, spec: AttentionSpec | LatentSpec, factory: Callable[..., Any]
    ) -> tuple[Any, int]:
        if spec not in self._by_spec:
            self._by_spec[spec] = factory(spec, self._store, self._device)
        return self._by_spec[spec], list(self._by_spec).index(spec)


def joined(plans: Sequence[HostPlan]) -> HostPlan:
    """Several plans as one, which is bound to a tuple."""

    def bind(there: Mapping[str, Tensor]) -> tuple[AttentionPlan, ...]:
        return tuple(
            plan.bind({name: there[f"{i}.{name}"] for name in (*plan.arrays, *plan.passing)})
            for i, plan in enumerate(plans)
        )

    arrays, passing = (
        {f"{i}.{name}": array for i, part in enumerate(parts) for name, array in part.items()}
        for parts in ([p.arrays for p in plans], [p.passing for p in plans])
    )
    return HostPlan(arrays, passing, bind)
