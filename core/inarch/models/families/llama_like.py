"""What Llama and its many heirs share: the shape of their config and the names of their tensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from inarch.errors import ModelError
from inarch.models.description import (
    Description,
    GatedMLP,
    GroupedQueryAttention,
    Layer,
    RMSNorm,
)
from inarch.models.families.config import Config
from inarch.models.families.rotary import context_length, rotary

ACTIVATIONS = {
    "silu": "silu",
    "swish": "silu",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_new": "gelu_tanh",
}
MODEL_NAMES = {
    "embedding": ("model.embed_tokens",),
    "norm": ("model.norm",),
    "head": ("lm_head",),
}
LAYER_NAMES = {
    "mixer_norm": ("input_layernorm",),
    "mixer.qkv": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "mixer.out": ("self_attn.o_proj",),
    "mixer.q_norm": ("self_attn.q_norm",),
    "mixer.k_norm": ("self_attn.k_norm",),
    "feed_forward_norm": ("post_attention_layernorm",),
    "feed_forward.gate_up": ("mlp.gate_proj", "mlp.up_proj"),
    "feed_forward.down": ("mlp.down_proj",),
}


@dataclass(frozen=True)
class Defaults:
    """What transformers' config class of the family assumes for keys that are missing."""

    vocab_size: int
    intermediate_size: int
    max_position_embeddings: int
    kv_heads: int | None = None  # None: as many as query heads
    head_dim: int | None = None  # None: hidden_size / num_attention_heads


def describe(
    config: Config,
    defaults: Defaults,
    *,
    windows: Sequence[int | None],
    qkv_bias: bool = False,
    out_bias: bool = False,
    mlp_bias: bool = False,
    qk_norm: bool = False,
) -> Description:
    """A stack of one layer per entry of `windows`, alike but for their windows."""
    q_heads, kv_heads = _heads(config, defaults)
    size = _head_dim(config, defaults, q_heads)
    rotation = rotary(config, size)
    norm = RMSNorm(config.number("rms_norm_eps", 1e-6))
    mlp = GatedMLP(
        config.integer("intermediate_size", defaults.intermediate_size),
        _activation(config),
        mlp_bias,
    )

    def layer(window: int | None) -> Layer:
        attention = GroupedQueryAttention(
            q_heads=q_heads,
            kv_heads=kv_heads,
            head_dim=size,
            rotary=rotation,
            scale=size**-0.5,
            window=window,
            qkv_bias=qkv_bias,
            out_bias=out_bias,
            qk_norm=norm if qk_norm else None,
        )
        return Layer(attention, mlp, mixer_norm=norm, feed_forward_norm=norm)

    return Description(
        vocab_size=config.integer("vocab_size", defaults.vocab_size),
        hidden=config.integer("hidden_size", 4096),
        layers=tuple(layer(window) for window in windows),
        norm=norm,
        context_length=context_length(config, rotation, defaults.max_position_embeddings),
        tie_embeddings=config.flag("tie_word_embeddings", False),
    )


def layer_count(config: Config) -> int:
    return config.integer("num_hidden_layers", 32)


def qwen_windows(config: Config) -> list[int | None]:
    """Qwen's way to say which layers slide: `layer_types`, or all from `max_window_layers` on."""
    layers = layer_count(config)
    window = config.optional_integer("sliding_window", 4096)
    if not config.flag("use_sliding_window", False) or window is None:
        return [None] * layers
    types = config.get("layer_types")
    if types is None:
        full = config.get("max_window_layers", 28)
        if not isinstance(full, int):
            raise config.error("max_window_layers", "a whole number")
        return [window if index >= full else None for index in range(layers)]
    known = {"full_attention": None, "sliding_attention": window}
    wanted = f"a list of {layers} out of {', '.join(known)}"
    if not isinstance(types, list) or len(types) != layers:
        raise config.error("layer_types", wanted)
    if not set(map(str, types)) <= set(known):
        raise config.error("layer_types", wanted)
    return [known[layer_type] for layer_type in types]


def names(description: Description) -> dict[str, tuple[str, ...]]:
    """Canonical parameter -> tensors of the checkpoint, concatenated along dim 0.

    The head is named even where it is tied: some checkpoints keep a copy of it.
    """
    found: dict[str, tuple[str, ...]] = {"head.weight": ("lm_head.weight",)}
    for parameter in description.parameters():
        module, _, kind = parameter.rpartition(".")
        found[parameter] = tuple(f"{source}.{kind}" for source in _sources(module))
    return found


def _sources(module: str) -> tuple[str, ...]:
    if not module.startswith("layers."):
        return MODEL_NAMES[module]
    _, index, inner = module.split(".", 2)
    return tuple(f"model.layers.{index}.{source}" for source in LAYER_NAMES[inner])


def _heads(config: Config, defaults: Defaults) -> tuple[int, int]:
    q_heads = config.integer("num_attention_heads", 32)
    kv_heads = config.optional_integer("num_key_value_heads", defaults.kv_heads) or q_heads
    if q_heads % kv_heads:
        raise config.error("num_key_value_heads", f"a divisor of num_attention_heads ({q_heads})")
    return q_heads, kv_heads


def _head_dim(config: Config, defaults: Defaults, q_heads: int) -> int:
    given = config.optional_integer("head_dim", defaults.head_dim)
    size = given or config.integer("hidden_size", 4096) // q_heads
    if size < 2 or size % 2:
        raise ModelError(
            f"config.json: head_dim must be even to be rotated, found {size}"
            + ("" if given else " (hidden_size / num_attention_heads)")
        )
    return size


def _activation(config: Config) -> str:
    name = config.get("hidden_act", "silu")
    if str(name) not in ACTIVATIONS:
        raise config.error("hidden_act", f"one of {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[name]
