"""What families with latent attention share: DeepSeek's config keys, and its tensors' names."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from inarch.errors import ModelError
from inarch.models.config_json import Config
from inarch.models.description import Description, LatentAttention, Layer, RMSNorm
from inarch.models.families.parts import llama_like, tensor_names
from inarch.models.families.parts.rotary import rotary, rotary_section
from inarch.models.sources import Names

LATENT_EPS = 1e-6  # of the latents' norms, whatever the config says of the others
MIXER_NAMES: tensor_names.Table = {
    "mixer.down": ("self_attn.q_a_proj", "self_attn.kv_a_proj_with_mqa"),
    "mixer.q_norm": ("self_attn.q_a_layernorm",),
    "mixer.q_up": ("self_attn.q_b_proj",),
    "mixer.kv_norm": ("self_attn.kv_a_layernorm",),
    "mixer.kv_up": ("self_attn.kv_b_proj",),
}
COMPRESSED = tensor_names.Naming({**tensor_names.LAYER_NAMES, **MIXER_NAMES})
AT_ONCE = replace(  # queries that have no latent
    COMPRESSED,
    layer={
        **COMPRESSED.layer,
        "mixer.down": ("self_attn.q_proj", "self_attn.kv_a_proj_with_mqa"),
    },
)


@dataclass(frozen=True)
class Ranks:
    """What transformers' config class assumes for keys of latent attention that are missing."""

    q_lora_rank: int | None
    kv_lora_rank: int = 512
    qk_nope_head_dim: int = 128
    qk_rope_head_dim: int = 64
    v_head_dim: int = 128


def describe(
    config: Config,
    defaults: llama_like.Defaults,
    ranks: Ranks,
    *,
    interleaved: bool,
    mlp_bias: bool = False,
) -> Description:
    """A stack of latent attention and gated MLPs. interleaved: how features are rotated."""
    norm = llama_like.norm(config, defaults)
    mixer = attention(config, defaults, ranks, interleaved=interleaved)
    layer = Layer(mixer, llama_like.mlp(config, defaults, bias=mlp_bias), norm, norm)
    stack = [layer] * llama_like.layer_count(config, defaults)
    return llama_like.model(config, defaults, stack, norm)


def attention(
    config: Config, defaults: llama_like.Defaults, ranks: Ranks, *, interleaved: bool
) -> LatentAttention:
    if config.get("index_topk") is not None:
        raise ModelError(
            "config.json asks for sparse attention (index_topk), which is not supported: DeepSeek "
            "V3.1 and older attend to all tokens"
        )
    nope = config.integer("qk_nope_head_dim", ranks.qk_nope_head_dim)
    rope = config.integer("qk_rope_head_dim", ranks.qk_rope_head_dim)
    if rope % 2:
        raise config.error("qk_rope_head_dim", "even, to be rotated")
    q_rank = config.optional_integer("q_lora_rank", ranks.q_lora_rank)
    bias = config.flag("attention_bias", False)
    if bias and q_rank is None:
        raise ModelError(
            "config.json: attention_bias with q_lora_rank null is not supported: queries then have "
            "no bias, but what is projected with them has"
        )
    return LatentAttention(
        q_heads=config.integer("num_attention_heads", defaults.heads),
        q_rank=q_rank,
        kv_rank=config.integer("kv_lora_rank", ranks.kv_lora_rank),
        nope_dim=nope,
        rope_dim=rope,
        value_dim=config.integer("v_head_dim", ranks.v_head_dim),
        rotary=replace(rotary(config, rope, defaults.theta), interleaved=interleaved),
        scale=(nope + rope) ** -0.5 * _sharpening(config),
        norm=RMSNorm(LATENT_EPS),
        down_bias=bias,
        out_bias=bias,
    )


def _sharpening(config: Config) -> float:
    """A stretched context also sharpens the softmax: by the square of YaRN's magnitude."""
    section = rotary_section(config)
    kind = section.get("rope_type", section.get("type", "default"))
    if kind == "default" or not section.get("mscale_all_dim"):
        return 1.0
    factor = section.number("factor")
    if factor <= 1:
        return 1.0
    return (0.1 * section.number("mscale_all_dim") * math.log(factor) + 1.0) ** 2


def names(description: Description) -> Names:
    mixers = (layer.mixer for layer in description.layers)
    compressed = any(isinstance(m, LatentAttention) and m.q_rank is not None for m in mixers)
    return COMPRESSED(description) if compressed else AT_ONCE(description)
