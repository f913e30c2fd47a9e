"""Hugging Face's names of activations, as those of a description."""

from __future__ import annotations

from inarch.models.config_json import Config
from inarch.models.description.feed_forward import Activation, Gate

GATES: dict[str, Gate] = {
    "silu": "silu",
    "swish": "silu",
    "gelu": "gelu",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
}
ACTIVATIONS: dict[str, Activation] = {**GATES, "relu": "relu", "relu2": "relu_squared"}


def gate(config: Config, key: str = "hidden_act", default: str = "silu") -> Gate:
    """The activation of a gated feed-forward."""
    name = config.get(key, default)
    if str(name) not in GATES:
        raise config.error(key, f"one of {', '.join(GATES)}")
    return GATES[name]


def activation(config: Config, key: str = "hidden_act", default: str = "gelu") -> Activation:
    """The activation of a feed-forward without a gate."""
    name = config.get(key, default)
    if str(name) not in ACTIVATIONS:
        raise config.error(key, f"one of {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[name]
