"""What Qwen3-Next and Qwen3.5 share: gated delta nets and gated attention, norms centred on zero."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

from inarch.models.config_json import Config
from inarch.models.description import (
    Description,
    GatedDeltaNet,
    GroupedQueryAttention,
    Layer,
    Mixer,
    RMSNorm,
)
from inarch.models.families.parts import layer_patterns, llama_like, tensor_names
from inarch.models.sources import FirstOf, Rows, Source, Sources

KINDS = ("linear_attention", "full_attention")


def describe(config: Config, defaults: llama_like.Defaults) -> Description:
    """A stack of both as `layer_types` has it, with dense feed-forwards."""
    norm = RMSNorm(config.number("rms_norm_eps", defaults.eps), offset=1.0)
    config.only("hidden_act", "silu")
    bias = config.flag("attention_bias", False)
    attention = replace(
        llama_like.attention(config, defaults),
        qkv_bias=bias,
        out_bias=bias,
        qk_norm=norm,
        out_gate=True,
    )
    mixers: dict[str, Mixer] = {KINDS[0]: _delta_net(config, norm.eps), KINDS[1]: attention}
    mlp = llama_like.mlp(config, defaults)
    layers = [Layer(mixers[kind], mlp, norm, norm) for kind in _kinds(config, defaults)]
    return llama_like.model(config, defaults, layers, norm)


def names(description: Description, qkvz: Sources, ba: Sources) -> tensor_names.Table:
    """The tensors of a layer. Each head of q_proj has its gate behind it."""
    mixers = (layer.mixer for layer in description.layers)
    gated = next((m for m in mixers if isinstance(m, GroupedQueryAttention)), None)
    q = gate = Source("self_attn.q_proj")
    if gated is not None:
        size, heads = gated.head_dim, gated.q_heads
        q = replace(q, views=(Rows(0, size, heads),))
        gate = replace(gate, views=(Rows(size, 2 * size, heads),))
    return {
        **tensor_names.LAYER_NAMES,
        "mixer.qkv": (q, "self_attn.k_proj", "self_attn.v_proj", gate),
        "mixer.out": FirstOf(("self_attn.o_proj",), ("linear_attn.out_proj",)),
        "mixer.qkvz": qkvz,
        "mixer.ba": ba,
        "mixer.conv": ("linear_attn.conv1d",),
        "mixer.norm": ("linear_attn.norm",),
        "mixer.a_log": ("linear_attn.A_log",),
        "mixer.dt_bias": ("linear_attn.dt_bias",),
    }


def delta_net_of(description: Description) -> GatedDeltaNet:
    mixers = (layer.mixer for layer in description.layers)
    return next(mixer for mixer in mixers if isinstance(mixer, GatedDeltaNet))


def by_head(tensor: str, heads: int, *rows: int) -> tuple[Source, ...]:
    """Parts that have so many rows each, of every head."""
    borders = [sum(rows[:i]) for i in range(len(rows) + 1)]
    return tuple(Source(tensor, (Rows(a, b, heads),)) for a, b in pairwise(borders))


def _delta_net(config: Config, eps: float) -> GatedDeltaNet:
    return GatedDeltaNet(
        key_heads=config.integer("linear_num_key_heads", 16),
        value_heads=config.integer("linear_num_value_heads", 32),
        key_dim=config.integer("linear_key_head_dim", 128),
        value_dim=config.integer("linear_value_head_dim", 128),
        conv_width=config.integer("linear_conv_kernel_dim", 4),
        norm_eps=eps,
    )


def _kinds(config: Config, defaults: llama_like.Defaults) -> list[str]:
    """Every fourth layer is attention, or as the config has it."""
    interval = config.integer("full_attention_interval", 4)
    layers = llama_like.layer_count(config, defaults)
    default = [KINDS[(index + 1) % interval == 0] for index in range(layers)]
    return list(layer_patterns.listed(config, "layer_types", default, KINDS))
