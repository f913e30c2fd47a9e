"""Arcee's AFM: Llama whose feed-forward has no gate, of a squared relu."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from inarch.models.config_json import Config
from inarch.models.description import MLP, Description, Layer
from inarch.models.families.parts import llama_like, tensor_names
from inarch.models.families.parts.activations import activation
from inarch.models.family import Family

DEFAULTS = llama_like.Defaults(
    vocab_size=32000,
    intermediate_size=18432,
    max_position_embeddings=4096,
    hidden_size=2560,
    eps=1e-5,
)


def describe(values: Mapping[str, Any]) -> Description:
    config = Config(values)
    norm, bias = llama_like.norm(config, DEFAULTS), config.flag("attention_bias", False)
    attention = replace(llama_like.attention(config, DEFAULTS), qkv_bias=bias, out_bias=bias)
    size = config.integer("intermediate_size", DEFAULTS.intermediate_size)
    mlp = MLP(size, activation(config, default="relu2"), config.flag("mlp_bias", False))
    layers = [Layer(attention, mlp, norm, norm)] * llama_like.layer_count(config, DEFAULTS)
    return llama_like.model(config, DEFAULTS, layers, norm)


FAMILY = Family("arcee", ("ArceeForCausalLM",), describe, tensor_names.LLAMA)
