"""What Llama and its many heirs share: the shape of their config.

A family takes the parts that it shares from here (`attention`, `mlp`, `norm`, `model`), changes what
it has differently with `dataclasses.replace`, and stacks its own layers of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from inarch.errors import ModelError
from inarch.models.config_json import Config
from inarch.models.description import (
    Description,
    GatedMLP,
    GroupedQueryAttention,
    Layer,
    Norm,
    RMSNorm,
)
from inarch.models.families.parts.activations import gate
from inarch.models.families.parts.rotary import context_length, rotary, rotated


@dataclass(frozen=True)
class Defaults:
    """What transformers' config class of the family assumes for keys that are missing."""

    vocab_size: int
    intermediate_size: int
    max_position_embeddings: int
    hidden_size: int = 4096
    layers: int = 32
    heads: int = 32
    kv_heads: int | None = None  # None: as many as query heads
    head_dim: int | None = None  # None: hidden_size / num_attention_heads
    eps: float = 1e-6
    tied: bool = False
    theta: float = 10_000.0
    rotated: float = 1.0  # the share of a head's features that positions rotate


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
    own_norm = norm(config, defaults)
    mixer = replace(
        attention(config, defaults),
        qkv_bias=qkv_bias,
        out_bias=out_bias,
        qk_norm=own_norm if qk_norm else None,
    )
    fed = mlp(config, defaults, bias=mlp_bias)
    layers = (Layer(replace(mixer, window=window), fed, own_norm, own_norm) for window in windows)
    return model(config, defaults, layers, own_norm)


def layer_count(config: Config, defaults: Defaults) -> int:
    return config.integer("num_hidden_layers", defaults.layers)


def norm(config: Config, defaults: Defaults) -> RMSNorm:
    return RMSNorm(config.number("rms_norm_eps", defaults.eps))


def attention(
    config: Config, defaults: Defaults, *, interleaved: bool = False
) -> GroupedQueryAttention:
    """Of all tokens, with rotated positions; without biases or norms."""
    q_heads, kv_heads = _heads(config, defaults)
    size = _head_dim(config, defaults, q_heads)
    turn = rotary(config, rotated(config, size, defaults.rotated), defaults.theta)
    return GroupedQueryAttention(
        q_heads=q_heads,
        kv_heads=kv_heads,
        head_dim=size,
        rotary=replace(turn, interleaved=interleaved),
        scale=size**-0.5,
    )


def attentions(
    config: Config, defaults: Defaults, windows: Sequence[int | None], *, theta: float
) -> list[GroupedQueryAttention]:
    """One for each window, where layers that slide rotate in a way of their own.

    That is, as their section of `rope_parameters` says; without one by `theta`, and no scaling.
    """
    full, slides = (_own_rotation(config, name) for name in ("full_attention", "sliding_attention"))
    if slides is config:
        slides = config.changed(rope_scaling=None, rope_parameters={"rope_theta": theta})
    of_all, sliding = attention(full, defaults), attention(slides, defaults)
    return [replace(sliding, window=window) if window else of_all for window in windows]


def _own_rotation(config: Config, layer_type: str) -> Config:
    own = config.section("rope_parameters").section(layer_type)
    return config.changed(rope_scaling=None, rope_parameters=own.values) if own else config


def mlp(
    config: Config,
    defaults: Defaults,
    *,
    bias: bool = False,
    key: str = "hidden_act",
    act: str = "silu",
) -> GatedMLP:
    """key: of the activation; act: where there is none."""
    size = config.integer("intermediate_size", defaults.intermediate_size)
    return GatedMLP(size, gate(config, key, act), bias)


def model(
    config: Config, defaults: Defaults, layers: Iterable[Layer], norm: Norm, **more: Any
) -> Description:
    """more: further fields of the description."""
    stack = tuple(layers)
    mixers = (layer.mixer for layer in stack)
    rotations = [m.rotary for m in mixers if isinstance(m, GroupedQueryAttention) and m.rotary]
    longest = defaults.max_position_embeddings
    lengths = [context_length(config, rotation, longest) for rotation in rotations]
    return Description(
        vocab_size=config.integer("vocab_size", defaults.vocab_size),
        hidden=config.integer("hidden_size", defaults.hidden_size),
        layers=stack,
        norm=norm,
        context_length=max(lengths or [config.integer("max_position_embeddings", longest)]),
        tie_embeddings=config.flag("tie_word_embeddings", defaults.tied),
        **more,
    )


def _heads(config: Config, defaults: Defaults) -> tuple[int, int]:
    q_heads = config.integer("num_attention_heads", defaults.heads)
    kv_heads = config.optional_integer("num_key_value_heads", defaults.kv_heads) or q_heads
    if q_heads % kv_heads:
        raise config.error("num_key_value_heads", f"a divisor of num_attention_heads ({q_heads})")
    return q_heads, kv_heads


def _head_dim(config: Config, defaults: Defaults, q_heads: int) -> int:
    given = config.optional_integer("head_dim", defaults.head_dim)
    size = given or config.integer("hidden_size", defaults.hidden_size) // q_heads
    if size < 2 or size % 2:
        raise ModelError(
            f"config.json: head_dim must be even to be rotated, found {size}"
            + ("" if given else " (hidden_size / num_attention_heads)")
        )
    return size
