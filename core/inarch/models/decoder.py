"""The one decoder: runs any description, one step at a time.

A step is a function from inputs and KV state to logits and KV state. What differs between models is
in the layers that the decoder was built of, what differs between devices is behind the ops.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from inarch.hal.attention import AttentionBatch, HostPlan
from inarch.hal.executor import StepInputs, StepShape
from inarch.hal.kv import KVSpec, KVState
from inarch.models.attentions import Attentions
from inarch.models.builder import Builder, Norm, Projection
from inarch.models.description import Description
from inarch.models.layers import (
    RunFeedForward,
    RunMixer,
    build_feed_forward,
    build_mixer,
    mixer_kv,
)


@dataclass(frozen=True, eq=False)
class DecoderLayer:
    mixer_norm: Norm
    mixer: RunMixer
    feed_forward_norm: Norm
    feed_forward: RunFeedForward


@dataclass(frozen=True, eq=False)
class Decoder:
    """The `Model` that a description makes. Letters in shapes: S sequences, V vocabulary."""

    description: Description
    embedding: Tensor  # [V, hidden]
    layers: tuple[DecoderLayer, ...]
    norm: Norm
    head: Projection
    attentions: Attentions

    @property
    def capturable(self) -> bool:
        return self.attentions.capturable

    def kept_bytes(self, most: StepShape) -> int:
        return self.attentions.kept_bytes(most)

    def plan(self, batch: AttentionBatch) -> HostPlan:
        return self.attentions.plan(batch)

    def forward(self, inputs: StepInputs, kv: KVState) -> tuple[Tensor, KVState]:
        """Logits [S, V] float32 after each sequence's last token, and the new KV state."""
        x, kv = self.hidden(inputs, kv)
        return self.logits(x), kv

    def hidden(self, inputs: StepInputs, kv: KVState) -> tuple[Tensor, KVState]:
        """The last hidden states, normed, [len(last_token), hidden], and the new KV state."""
        x = F.embedding(inputs.token_ids, self.embedding)
        residual = None
        for layer in self.layers:
            x, residual = layer.mixer_norm(x, residual)
            x, kv = layer.mixer(x, inputs, kv)
            if layer is self.layers[-1]:  # nothing reads the other tokens any more
                x, residual = x[inputs.last_token], residual[inputs.last_token]
            x, residual = layer.feed_forward_norm(x, residual)
            x = layer.feed_forward(x)
        x, _ = self.norm(x, residual)
        return x, kv

    def logits(self, hidden: Tensor) -> Tensor:
        """Logits [N, V] float32 of hidden states [N, hidden]."""
        return self.head(hidden).float()


def kv_spec(description: Description, dtype: torch.dtype) -> KVSpec:
    """What the model keeps of a token, in `dtype`: known before a store or a weight exists."""
    return KVSpec(tuple(mixer_kv(layer.mixer) for layer in description.layers), dtype)


def build_decoder(description: Description, builder: Builder) -> Decoder:
    """Take every weight once, in the order of `Description.parameters`."""
    embedding = builder.weights.take("embedding.weight")
    layers = tuple(_build_layer(description, builder, i) for i in range(len(description.layers)))
    norm = builder.norm("norm")
    # A tied head is packed from the embedding itself: kernels may keep a weight, not write to it.
    tied = description.tie_embeddings
    return Decoder(
        description=description,
        embedding=embedding,
        layers=layers,
        norm=norm,
        head=builder.pack(embedding) if tied else builder.linear("head"),
        attentions=builder.attentions,
    )


def _build_layer(description: Description, builder: Builder, index: int) -> DecoderLayer:
    layer, name = description.layers[index], f"layers.{index}"
    return DecoderLayer(
        mixer_norm=builder.norm(f"{name}.mixer_norm"),
        mixer=build_mixer(layer.mixer, builder, f"{name}.mixer", index),
        feed_forward_norm=builder.norm(f"{name}.feed_forward_norm"),
        feed_forward=build_feed_forward(layer.feed_forward, builder, f"{name}.feed_forward"),
    )
