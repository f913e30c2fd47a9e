"""A causal language model of transformers in two parts: tokens to hidden states, those to logits.

The engine computes logits for few of the hidden states, and those of a prompt piece by piece. What a
model does between the two (a head, a scale, a soft cap) is its own business: to run that alone, its
forward pass is run with a stand-in for its backbone, which gives back what it was given.
"""

from __future__ import annotations

import copy
from typing import Any

from torch import Tensor, nn

from inarch.models.fallback.refusing import refusal


class Backbone:
    """What a backbone returns: its hidden states, and None wherever a model looks for more."""

    def __init__(self, hidden: Tensor) -> None:
        self.last_hidden_state = hidden

    def __getitem__(self, index: int) -> Tensor | None:
        return self.last_hidden_state if index == 0 else None

    def __getattr__(self, name: str) -> None:
        if name.startswith("__"):
            raise AttributeError(name)


class StandIn(nn.Module):
    @property
    def decoder(self) -> StandIn:
        """Some models call their backbone's decoder instead of the backbone."""
        return self

    def forward(self, *args: Any, inputs_embeds: Tensor, **kwargs: Any) -> Backbone:
        return Backbone(inputs_embeds)


def split(model: Any) -> tuple[nn.Module, nn.Module]:
    """The backbone, and the model with a stand-in for it: both share the model's weights.

    head(inputs_embeds=hidden).logits are the logits of hidden states [1, N, hidden].
    """
    backbone = model.base_model
    if backbone is model:
        backbone = model.get_decoder()
    name = next((name for name, child in model.named_children() if child is backbone), None)
    if name is None:
        raise refusal(type(model).__name__, "it has no backbone that gives hidden states")
    head = copy.copy(model)
    head._modules = dict(model._modules) | {name: StandIn()}
    return backbone, head
