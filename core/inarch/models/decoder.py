"""The one decoder: runs any description, one step at a time.

A step is a function from inputs and KV state to logits and KV state. What differs between models is
in the layers that the decoder was built of, what differs between devices is behind the ops.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor

from inarch.hal.attention import AttentionBatch, HostPlan
from inarch.hal.executor import StepInputs, StepShape
from inarch.hal.kv import KVSpec, KVState
from inarch.hal.state import StateSpec, plan_states
from inarch.models.attentions import Attentions
from inarch.models.builder import Builder, Projection
from inarch.models.description import Description
from inarch.models.description.pooling import LAST_TOKEN
from inarch.models.layers import mixer_kv, mixer_states
from inarch.models.layers.block import RunLayer, build_layer
from inarch.models.layers.embedding import Embedding, build_embedding
from inarch.models.layers.norm import AddNorm, build_norm
from inarch.models.layers.pooling import RunHead, build_pooled_head


@dataclass(frozen=True, eq=False)
class Decoder:
    """The `Model` that a description makes. Letters in shapes: S sequences, V vocabulary."""

    description: Description
    embedding: Embedding
    layers: tuple[RunLayer, ...]
    norm: AddNorm
    head: Projection | None  # None: it makes no logits
    pooled: RunHead
    attentions: Attentions
    states: StateSpec  # of the mixers that have one
    capturable: bool  # see Attention and Experts

    @property
    def generates(self) -> bool:
        return self.head is not None

    def kept_bytes(self, most: StepShape) -> int:
        return self.attentions.kept_bytes(most)

    def plan(self, batch: AttentionBatch) -> HostPlan:
        if not self.states:
            return self.attentions.plan(batch)
        return self.attentions.plan(batch, plan_states(batch))

    def forward(self, inputs: StepInputs, kv: KVState) -> tuple[Tensor, KVState]:
        """Logits [S, V] float32 after each sequence's last token, and the new KV state."""
        x, kv = self.hidden(inputs, kv)
        return self.logits(x), kv

    def hidden(self, inputs: StepInputs, kv: KVState) -> tuple[Tensor, KVState]:
        """The last hidden states, normed, [len(last_token), hidden], and the new KV state."""
        x, residual = self.embedding(inputs), None
        for layer in self.layers:
            # After the last layer's mixer nothing reads the other tokens any more.
            needed = inputs.last_token if layer is self.layers[-1] else None
            x, residual, kv = layer(x, residual, inputs, kv, needed)
        x, _ = self.norm(x, residual)
        return x, kv

    def logits(self, hidden: Tensor) -> Tensor:
        """Logits [N, V] float32 of hidden states [N, hidden]."""
        assert self.head is not None
        logits = self.head(hidden).float()
        if self.description.logit_scale != 1.0:
            logits *= self.description.logit_scale
        cap = self.description.logit_softcap
        return logits if cap is None else cap * torch.tanh(logits / cap)


def kv_spec(description: Description, dtype: torch.dtype) -> KVSpec:
    """What the model keeps of a token, in `dtype`: known before a store or a weight exists."""
    kept = (mixer_kv(layer.mixer) for layer in description.layers if layer.mixer is not None)
    return KVSpec(tuple(itertools.chain.from_iterable(kept)), dtype)


def state_spec(description: Description, dtype: torch.dtype) -> StateSpec:
    """What the model keeps of a sequence, computing in `dtype`: empty for most."""
    kept = (mixer_states(layer.mixer, dtype) for layer in description.layers if layer.mixer)
    return StateSpec(tuple(itertools.chain.from_iterable(kept)))


def build_decoder(description: Description, builder: Builder) -> Decoder:
    """Take every weight once."""
    embedding = build_embedding(builder)
    layers = tuple(
        build_layer(layer, builder, f"layers.{index}")
        for index, layer in enumerate(description.layers)
    )
    norm = build_norm(description.norm, builder, "norm")
    return Decoder(
        description=description,
        embedding=embedding,
        layers=layers,
        norm=norm,
        head=_build_head(description, builder, embedding.weight),
        pooled=build_pooled_head(description.pooled or LAST_TOKEN, builder, "pooled"),
        attentions=builder.attentions,
        states=state_spec(description, builder.dtype),
        capturable=builder.capturable,
    )


def _build_head(description: Description, builder: Builder, embedding: Tensor) -> Projection | None:
    if description.pooled is not None:
        return None
    if not description.tie_embeddings:
        return builder.linear("head")
    # A tied head is packed from the embedding itself: kernels may keep a weight, not write to it.
    bias = builder.weights.take("head.bias") if description.head_bias else None
    return builder.pack(embedding, bias)
