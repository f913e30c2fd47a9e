"""What families with latent attention share: DeepSeek's config keys, and its tensors' names."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from inarch.errors import ModelError
from inarch.models.description import (
    Description,
    GatedMLP,
    LatentAttention,
    Layer,
    RMSNorm,
)
from inarch.models.families import llama_like
from inarch.models.families.config import Config
from inarch.models.families.rotary import context_length, rotary

LATENT_EPS = 1e-6  # of the latents' norms, whatever the config says of the others
MIXER_NAMES = {
    "mixer.down": ("self_attn.q_a_proj", "self_attn.kv_a_proj_with_mqa"),
    "mixer.q_norm": ("self_attn.q_a_layernorm",),
    "mixer.q_up": ("self_attn.q_b_proj",),
    "mixer.kv_norm": ("self_attn.kv_a_layernorm",),
    "mixer.kv_up": ("self_attn.kv_b_proj",),
}
UNCOMPRESSED_QUERIES = {"mixer.down": ("self_attn.q_proj", "self_attn.kv_a_proj_with_mqa")}


@dataclass(frozen=True)
class Defaults:
    """What transformers' config class of the family assumes for keys that are missing."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    layers: int
    heads: int
    max_position_embeddings: int
    q_lora_rank: int
    kv_lora_rank: int = 512
    qk_nope_head_dim: int = 128
    qk_rope_head_dim: int = 64
    v_head_dim: int = 128
    eps: float = 1e-6
    tied: bool = False


def describe(
    config: Config, defaults: Defaults, *, interleaved: bool, mlp_bias: bool = False
) -> Description:
    """A stack of latent attention and gated MLPs. interleaved: how features are rotated."""
    norm = RMSNorm(config.number("rms_norm_eps", defaults.eps))
    mixer = attention(config, defaults, interleaved=interleaved)
    mlp = GatedMLP(
        config.integer("intermediate_size", defaults.intermediate_size),
        llama_like.activation(config),
        mlp_bias,
    )
    count = config.integer("num_hidden_layers", defaults.layers)
    assert mixer.rotary is not None
    return Description(
        vocab_size=config.integer("vocab_size", defaults.vocab_size),
        hidden=config.integer("hidden_size", defaults.hidden_size),
        layers=(Layer(mixer, mlp, norm, norm),) * count,
        norm=norm,
        context_length=context_length(config, mixer.rotary, defaults.max_position_embeddings),
        tie_embeddings=config.flag("tie_word_embeddings", defaults.tied),
    )


def attention(config: Config, defaults: Defaults, *, interleaved: bool) -> LatentAttention:
    if config.get("index_topk") is not None:
        raise ModelError(
            "config.json asks for sparse attention (index_topk), which is not supported: DeepSeek "
            "V3.1 and older attend to all tokens"
        )
    nope = config.integer("qk_nope_head_dim", defaults.qk_nope_head_dim)
    rope = config.integer("qk_rope_head_dim", defaults.qk_rope_head_dim)
    if rope % 2:
        raise config.error("qk_rope_head_dim", "even, to be rotated")
    q_rank = config.optional_integer("q_lora_rank", defaults.q_lora_rank)
    bias = config.flag("attention_bias", False)
    if bias and q_rank is None:
        raise ModelError(
            "config.json: attention_bias with q_lora_rank null is not supported: queries then have "
            "no bias, but what is projected with them has"
        )
    return LatentAttention(
        q_heads=config.integer("num_attention_heads", defaults.heads),
        q_rank=q_rank,
        kv_rank=config.integer("kv_lora_rank", defaults.kv_lora_rank),
        nope_dim=nope,
        rope_dim=rope,
        value_dim=config.integer("v_head_dim", defaults.v_head_dim),
        rotary=replace(rotary(config, rope), interleaved=interleaved),
        scale=(nope + rope) ** -0.5 * _sharpening(config),
        norm=RMSNorm(LATENT_EPS),
        down_bias=bias,
        out_bias=bias,
    )


def _sharpening(config: Config) -> float:
    """A stretched context also sharpens the softmax: by the square of YaRN's magnitude."""
    section = config.section("rope_scaling") or config.section("rope_parameters")
    kind = section.get("rope_type", section.get("type", "default"))
    if kind == "default" or not section.get("mscale_all_dim"):
        return 1.0
    factor = section.number("factor")
    if factor <= 1:
        return 1.0
    return (0.1 * section.number("mscale_all_dim") * math.log(factor) + 1.0) ** 2


def names(description: Description) -> dict[str, tuple[str, ...]]:
    """Canonical parameter -> tensors of the checkpoint."""
    compressed = any(
        isinstance(layer.mixer, LatentAttention) and layer.mixer.q_rank is not None
        for layer in description.layers
    )
    own = MIXER_NAMES if compressed else MIXER_NAMES | UNCOMPRESSED_QUERIES
    return llama_like.names(description, llama_like.LAYER_NAMES | own)
