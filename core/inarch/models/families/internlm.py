"""InternLM 2 (q, k and v of a KV group side by side, names of its own) and 3 (Llama with biases)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from inarch.models.config_json import Config, renamed
from inarch.models.description import Description, GroupedQueryAttention, Layer
from inarch.models.families.parts import llama_like, tensor_names
from inarch.models.family import Family
from inarch.models.sources import Names, Rows, Source

DEFAULTS_2 = llama_like.Defaults(
    vocab_size=103168, intermediate_size=11008, max_position_embeddings=2048
)
DEFAULTS_3 = llama_like.Defaults(
    vocab_size=128512,
    intermediate_size=10240,
    max_position_embeddings=32768,
    layers=48,
    kv_heads=2,
    head_dim=128,
    eps=1e-5,
)


def describe_2(values: Mapping[str, Any]) -> Description:
    config = Config(values)
    bias = config.flag("bias", True)
    attention = llama_like.attention(config, DEFAULTS_2)
    attention = replace(attention, qkv_bias=bias, out_bias=bias)
    norm, mlp = llama_like.norm(config, DEFAULTS_2), llama_like.mlp(config, DEFAULTS_2)
    layers = [Layer(attention, mlp, norm, norm)] * llama_like.layer_count(config, DEFAULTS_2)
    return llama_like.model(config, DEFAULTS_2, layers, norm)


def describe_3(values: Mapping[str, Any]) -> Description:
    config = Config(renamed(values, {"qkv_bias": "attention_bias", "bias": "mlp_bias"}))
    bias = config.flag("mlp_bias", False)
    attention = replace(
        llama_like.attention(config, DEFAULTS_3),
        qkv_bias=config.flag("attention_bias", False),
        out_bias=bias,
    )
    norm = llama_like.norm(config, DEFAULTS_3)
    layer = Layer(attention, llama_like.mlp(config, DEFAULTS_3, bias=bias), norm, norm)
    layers = [layer] * llama_like.layer_count(config, DEFAULTS_3)
    return llama_like.model(config, DEFAULTS_3, layers, norm)


def names_2(description: Description) -> Names:
    mixer = description.layers[0].mixer
    assert isinstance(mixer, GroupedQueryAttention)
    size, groups = mixer.head_dim, mixer.kv_heads
    k = mixer.q_heads // groups * size
    parts = (Rows(0, k, groups), Rows(k, k + size, groups), Rows(k + size, k + 2 * size, groups))
    table: tensor_names.Table = {
        "mixer_norm": ("attention_norm",),
        "mixer.qkv": tuple(Source("attention.wqkv", (part,)) for part in parts),
        "mixer.out": ("attention.wo",),
        "feed_forward_norm": ("ffn_norm",),
        "feed_forward.gate_up": ("feed_forward.w1", "feed_forward.w3"),
        "feed_forward.down": ("feed_forward.w2",),
    }
    model: tensor_names.Table = {
        "embedding": ("model.tok_embeddings",),
        "norm": ("model.norm",),
        "head": ("output",),
    }
    return tensor_names.Naming(table, model)(description)


FAMILY_2 = Family("internlm2", ("InternLM2ForCausalLM",), describe_2, names_2)
FAMILY_3 = Family("internlm3", ("InternLM3ForCausalLM",), describe_3, tensor_names.LLAMA)
