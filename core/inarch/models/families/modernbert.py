"""ModernBERT: an encoder with rotated positions, in which two of three layers see near tokens only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from inarch.models.config_json import Config
from inarch.models.description import (
    Description,
    GatedMLP,
    GroupedQueryAttention,
    Layer,
    LayerNorm,
    Rotary,
)
from inarch.models.description.pooling import Dense, PooledHead, Pooling
from inarch.models.endings import Ending, labelled, with_ending
from inarch.models.families.parts import layer_patterns, tensor_names
from inarch.models.families.parts.activations import activation, gate
from inarch.models.family import Family

LAYER_NAMES = {
    "mixer_norm": ("attn_norm",),
    "mixer.qkv": ("attn.Wqkv",),
    "mixer.out": ("attn.Wo",),
    "feed_forward_norm": ("mlp_norm",),
    "feed_forward.gate_up": ("mlp.Wi",),
    "feed_forward.down": ("mlp.Wo",),
}
MODEL_NAMES = {
    "embedding": ("model.embeddings.tok_embeddings",),
    "embedding_norm": ("model.embeddings.norm",),
    "norm": ("model.final_norm",),
    "head": ("decoder",),
}


def _describe(values: Mapping[str, Any]) -> Description:
    config = Config(values)
    hidden, heads = config.integer("hidden_size", 768), config.integer("num_attention_heads", 12)
    count = config.integer("num_hidden_layers", 22)
    norm = _norm(config)
    attention = GroupedQueryAttention(
        q_heads=heads,
        kv_heads=heads,
        head_dim=hidden // heads,
        rotary=_rotary(config, hidden // heads, "full_attention", "global_rope_theta", 160_000.0),
        scale=(hidden // heads) ** -0.5,
        qkv_bias=config.flag("attention_bias", False),
        out_bias=config.flag("attention_bias", False),
        causal=False,
    )
    near = replace(
        attention,
        rotary=_rotary(config, hidden // heads, "sliding_attention", "local_rope_theta", 10_000.0),
        window=config.integer("local_attention", 128) // 2 + 1,
    )
    mlp = GatedMLP(
        config.integer("intermediate_size", 1152),
        gate(config, "hidden_activation", "gelu"),
        config.flag("mlp_bias", False),
    )
    every = config.integer("global_attn_every_n_layers", 3)
    types = layer_patterns.layer_types(
        config, ["sliding_attention" if i % every else "full_attention" for i in range(count)]
    )
    return Description(
        vocab_size=config.integer("vocab_size", 50368),
        hidden=hidden,
        layers=tuple(
            Layer(
                near if kind == "sliding_attention" else attention, mlp, norm if i else None, norm
            )
            for i, kind in enumerate(types)
        ),
        norm=norm,
        context_length=config.integer("max_position_embeddings", 8192),
        embedding_norm=norm,
    )


def _norm(config: Config) -> LayerNorm:
    return LayerNorm(config.number("norm_eps", 1e-5), config.flag("norm_bias", False))


def _rotary(config: Config, dim: int, layers: str, key: str, theta: float) -> Rotary:
    section = config.section("rope_parameters").section(layers)
    section.only("rope_type", "default")
    owner, key = (section, "rope_theta") if section.get("rope_theta") else (config, key)
    return Rotary(dim, owner.number(key, theta))


def _first_token(_: Mapping[str, Any], __: Description) -> PooledHead:
    return PooledHead(Pooling("first"), normalize=True)


def _classify(values: Mapping[str, Any], body: Description) -> PooledHead:
    config = Config(values)
    config.only("classifier_pooling", "cls", "mean")
    act = activation(config, "classifier_activation", "gelu")
    dense = Dense(body.hidden, config.flag("classifier_bias", False), act, _norm(config))
    mean = values.get("classifier_pooling", "cls") == "mean"
    return labelled(values, Pooling("mean" if mean else "first"), (dense,))


NAMES = tensor_names.Naming(LAYER_NAMES, MODEL_NAMES)
CLASSIFIER = {"0": "head.dense", "0.norm": "head.norm", "1": "classifier"}


def _family(ending: str, head: Ending) -> Family:
    body = Family("modernbert", (), _describe, NAMES)
    return with_ending(f"ModernBert{ending}", body, head)


FAMILIES = (
    _family("Model", Ending(_first_token)),
    _family("ForSequenceClassification", Ending(_classify, CLASSIFIER)),
)
