"""The decoder keeps the rules of the hardware contract, whatever a backend makes of them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from inarch.hal.attention import (
    AttentionBatch,
    AttentionPlan,
    AttentionResult,
    AttentionSpec,
    HostPlan,
    Rotation,
)
from inarch.hal.device import Device
from inarch.hal.kv import KVState, KVStore
from inarch.hal.latent import LatentSpec, UpProjection
from inarch.hal.op import Kernel
from inarch.hal.ops.norm import add_rms_norm
from inarch.hal.ops.rotary import qk_norm_rope, rope
from inarch.hal.reference.attention import ReferenceAttention
from inarch.hal.reference.latent import ReferenceLatentAttention

from .oracle import Saved, load

PROMPT = list(range(40, 90))


def poisoning(dead: int, op: Callable[..., Any]) -> Callable[..., Any]:
    """A kernel that leaves NaN in its first inputs, which its op declares dead afterwards."""

    def kernel(*args: Any, **kwargs: Any) -> Any:
        inputs = [argument.clone() for argument in args[:dead]]
        for argument in args[:dead]:
            argument.fill_(torch.nan)
        return op(*inputs, *args[dead:], **kwargs)

    return kernel


POISONING = [
    Kernel("add_rms_norm", "poisoning", poisoning(2, add_rms_norm)),
    Kernel("rope", "poisoning", poisoning(2, rope)),
    Kernel("qk_norm_rope", "poisoning", poisoning(2, qk_norm_rope)),
]


class FunctionalAttention:
    """Returns a new state from every run; the state it was given may not be used again."""

    capturable = False

    def __init__(self, spec: AttentionSpec, store: KVStore, device: Device) -> None:
        self._inner = ReferenceAttention(spec, store, device)

    def plan(self, batch: AttentionBatch) -> HostPlan:
        return self._inner.plan(batch)

    def run(
        self,
        layer: int,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        kv: KVState,
        plan: AttentionPlan,
        *,
        rotation: Rotation | None = None,
        sinks: Tensor | None = None,
        lse: bool = False,
    ) -> AttentionResult:
        copies = moved(kv)
        return self._inner.run(
            layer, q, k, v, copies, plan, rotation=rotation, sinks=sinks, lse=lse
        )


class FunctionalLatentAttention:
    """The same for rows of latents."""

    capturable = False

    def __init__(self, spec: LatentSpec, store: KVStore, device: Device) -> None:
        self._inner = ReferenceLatentAttention(spec, store, device)

    def plan(self, batch: AttentionBatch) -> HostPlan:
        return self._inner.plan(batch)

    def run(
        self,
        layer: int,
        q_nope: Tensor,
        q_rope: Tensor,
        latent: Tensor,
        k_rope: Tensor,
        kv: KVState,
        plan: AttentionPlan,
        up: UpProjection,
    ) -> tuple[Tensor, KVState]:
        return self._inner.run(layer, q_nope, q_rope, latent, k_rope, moved(kv), plan, up)


def moved(kv: KVState) -> KVState:
    """A copy of the state, which itself holds nothing but NaN then."""
    copies = [(k_pages.clone(), v_pages.clone()) for k_pages, v_pages in kv]
    for pages in kv:
        for tensor in pages:
            tensor.fill_(torch.nan)
    return copies


FUNCTIONAL = [
    Kernel("attention", "functional", FunctionalAttention),
    Kernel("latent_attention", "functional", FunctionalLatentAttention),
]


@pytest.mark.parametrize("kernels", [POISONING, FUNCTIONAL], ids=["poisoning", "functional"])
@pytest.mark.parametrize("name", ["llama", "qwen2-windows", "qwen3", "deepseek-v3"])
def test_dead_inputs_and_old_states_are_not_used_again(
    saved: Callable[[str], Saved], name: str, kernels: Sequence[Kernel]
) -> None:
    model = saved(name)
    paged, expected = load(model.folder, kernels=kernels), model.logits(PROMPT)
    for start, end in itertools.pairwise((0, 10, 30, 31, 50)):
        logits = paged.step({0: PROMPT[start:end]})[0]
        torch.testing.assert_close(logits, expected[end - 1], rtol=0, atol=2e-4)
