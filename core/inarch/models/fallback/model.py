"""Runs a model of transformers over our pages, as one flat row of tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from inarch.hal.attention import Attention, AttentionBatch, HostPlan
from inarch.hal.executor import StepInputs, StepShape
from inarch.hal.kv import KVState
from inarch.hal.state import StateSpec
from inarch.models.attentions import Attentions
from inarch.models.description.pooling import LAST_TOKEN
from inarch.models.fallback.interface import attach
from inarch.models.fallback.parts import split
from inarch.models.layers.pooling import RunHead


@dataclass(frozen=True, eq=False)
class LayerAttention:
    """One attention call of a forward pass, and what serves it."""

    module: nn.Module
    attention: Attention
    plan: int  # index in the plans of a step
    sinks: bool


class StepAttention:
    """Serves the attention calls of one step after the other. See `Attend`.

    A call's place in the step is its layer in the KV state: a module that is run twice has two.
    """

    def __init__(self, layers: Sequence[LayerAttention]) -> None:
        self._layers = layers
        self._next = 0
        self._inputs: StepInputs
        self._kv: KVState = None

    def begin(self, inputs: StepInputs, kv: KVState) -> None:
        self._next, self._inputs, self._kv = 0, inputs, kv

    def __call__(
        self, module: nn.Module, q: Tensor, k: Tensor, v: Tensor, mask: Any, asked: dict[str, Any]
    ) -> Tensor:
        layer = self._layers[self._next] if self._next < len(self._layers) else None
        if layer is None or layer.module is not module or mask is not None:
            raise RuntimeError(f"attention call {self._next} is not the one that was traced")
        rows, keys, values = (x[0].transpose(0, 1).contiguous() for x in (q, k, v))
        result = layer.attention.run(
            self._next,
            rows,
            keys,
            values,
            self._kv,
            self._inputs.plans[layer.plan],
            sinks=asked["s_aux"] if layer.sinks else None,
        )
        self._kv = result.kv
        self._next += 1
        return result.out.to(q.dtype).unsqueeze(0)

    def end(self) -> KVState:
        if self._next != len(self._layers):
            raise RuntimeError(
                f"{self._next} of {len(self._layers)} attention calls went through the pages"
            )
        return self._kv


class TransformersModel:
    """A `Model` whose modules are transformers' own."""

    # Nothing says that foreign code can be recorded: it may read values back, or choose by them.
    capturable = False
    states = StateSpec()
    generates = True
    pooled = RunHead(LAST_TOKEN.pooling, (), LAST_TOKEN.normalize)

    def __init__(
        self, model: Any, layers: Sequence[LayerAttention], attentions: Attentions
    ) -> None:
        """model: made under the name RUNNING; attentions: those of `layers`."""
        self.module = model
        self._attentions = attentions
        self._attend = StepAttention(layers)
        self._backbone, self._head = split(model)
        attach(model, self._attend)

    def kept_bytes(self, most: StepShape) -> int:
        return self._attentions.kept_bytes(most)

    def plan(self, batch: AttentionBatch) -> HostPlan:
        return self._attentions.plan(batch)

    def forward(self, inputs: StepInputs, kv: KVState) -> tuple[Tensor, KVState]:
        hidden, kv = self.hidden(inputs, kv)
        return self.logits(hidden), kv

    def hidden(self, inputs: StepInputs, kv: KVState) -> tuple[Tensor, KVState]:
        self._attend.begin(inputs, kv)
        out = self._backbone(
            input_ids=inputs.token_ids[None],
            position_ids=inputs.positions[None],
            use_cache=False,
        )
        return out[0][0, inputs.last_token], self._attend.end()

    def logits(self, hidden: Tensor) -> Tensor:
        logits: Tensor = self._head(inputs_embeds=hidden[None], use_cache=False).logits
        return logits[0].float()
