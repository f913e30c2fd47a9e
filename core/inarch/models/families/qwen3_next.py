"""Qwen3-Next: three layers of gated delta net to one of gated attention, all norms centred on zero."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from inarch.errors import ModelError
from inarch.models.description import (
    Description,
    FeedForward,
    GatedDeltaNet,
    GatedMLP,
    GroupedQueryAttention,
    Layer,
    RMSNorm,
)
from inarch.models.families import layering, naming, state_space
from inarch.models.families.config import Config
from inarch.models.families.rotary import context_length, rotary
from inarch.models.family import Family

MODEL_NAMES = {"embedding": "model.embed_tokens", "norm": "model.norm", "head": "lm_head"}
OUTER_NAMES = {
    "mixer_norm": ("input_layernorm",),
    "feed_forward_norm": ("post_attention_layernorm",),
    "feed_forward.gate_up": ("mlp.gate_proj", "mlp.up_proj"),
    "feed_forward.down": ("mlp.down_proj",),
}
ATTENTION_NAMES = {
    "mixer.qkv": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "mixer.out": ("self_attn.o_proj",),
    "mixer.q_norm": ("self_attn.q_norm",),
    "mixer.k_norm": ("self_attn.k_norm",),
}
DELTA_NAMES = {
    "mixer.qkvz": ("linear_attn.in_proj_qkvz",),
    "mixer.ba": ("linear_attn.in_proj_ba",),
    "mixer.conv": ("linear_attn.conv1d",),
    "mixer.norm": ("linear_attn.norm",),
    "mixer.out": ("linear_attn.out_proj",),
    "mixer.a_log": ("linear_attn.A_log",),
    "mixer.dt_bias": ("linear_attn.dt_bias",),
}


def describe(values: Mapping[str, Any]) -> Description:
    config = Config(values)
    sparse_step = config.integer("decoder_sparse_step", 1)
    dense = config.get("mlp_only_layers") or []
    experts = config.get("num_experts", 512)

    def feed_forward(index: int) -> FeedForward:
        if index in dense or not experts or (index + 1) % sparse_step:
            return mlp(config, 5632)
        raise ModelError("config.json: Qwen3-Next's experts are not supported yet")

    return describe_like(config, feed_forward, by_key_head=True, vocab_size=151936, hidden=2048)


def describe_like(
    config: Config,
    feed_forward: Callable[[int], FeedForward],
    *,
    by_key_head: bool,
    vocab_size: int,
    hidden: int,
) -> Description:
    """A stack of delta nets and attention as `layer_types` has it. feed_forward: that of a layer."""
    norm = RMSNorm(config.number("rms_norm_eps", 1e-6), offset=1.0)
    state_space.check_activation(config, "hidden_act")
    attention, delta_net = _attention(config, norm), _delta_net(config, norm.eps, by_key_head)
    mixers = {"linear_attention": delta_net, "full_attention": attention}
    kinds = layering.layer_types(config, tuple(mixers), default=_default_layers)
    assert attention.rotary is not None
    return Description(
        vocab_size=config.integer("vocab_size", vocab_size),
        hidden=config.integer("hidden_size", hidden),
        layers=tuple(
            Layer(mixers[kind], feed_forward(index), norm, norm)
            for index, kind in enumerate(kinds)
        ),
        norm=norm,
        context_length=context_length(config, attention.rotary, 32768),
        tie_embeddings=config.flag("tie_word_embeddings", False),
    )


def mlp(config: Config, default: int) -> GatedMLP:
    return GatedMLP(config.integer("intermediate_size", default))


def names(description: Description) -> dict[str, tuple[str, ...]]:
    return naming.names(description, MODEL_NAMES, "model.layers", layer_names)


def layer_names(layer: Layer) -> Mapping[str, tuple[str, ...]]:
    own = DELTA_NAMES if isinstance(layer.mixer, GatedDeltaNet) else ATTENTION_NAMES
    return OUTER_NAMES | own


def _attention(config: Config, norm: RMSNorm) -> GroupedQueryAttention:
    size = config.integer("head_dim", 256)
    bias = config.flag("attention_bias", False)
    section = config.section("rope_parameters")
    owner = section if "partial_rotary_factor" in section else config
    rotated = int(size * owner.number("partial_rotary_factor", 0.25))
    return GroupedQueryAttention(
        q_heads=config.integer("num_attention_heads", 16),
        kv_heads=config.integer("num_key_value_heads", 2),
        head_dim=size,
        rotary=rotary(config, rotated),
        scale=size**-0.5,
        qkv_bias=bias,
        out_bias=bias,
        qk_norm=norm,
        out_gate=True,
    )


def _delta_net(config: Config, eps: float, by_key_head: bool) -> GatedDeltaNet:
    return GatedDeltaNet(
        key_heads=config.integer("linear_num_key_heads", 16),
        value_heads=config.integer("linear_num_value_heads", 32),
        key_dim=config.integer("linear_key_head_dim", 128),
        value_dim=config.integer("linear_value_head_dim", 128),
        conv_width=config.integer("linear_conv_kernel_dim", 4),
        norm_eps=eps,
        by_key_head=by_key_head,
    )


def _default_layers(config: Config) -> list[str]:
    interval = config.integer("full_attention_interval", 4)
    return [
        "linear_attention" if (index + 1) % interval else "full_attention"
        for index in range(config.integer("num_hidden_layers", 48))
    ]


FAMILY = Family("qwen3_next", ("Qwen3NextForCausalLM",), describe, names)
