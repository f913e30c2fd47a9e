"""What Llama and its many heirs share: the shape of their config and the names of their tensors.

A family takes the parts that it shares from here (`attention`, `mlp`, `norm`, `model`), changes what
it has differently with `dataclasses.replace`, and stacks its own layers of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from inarch.errors import ModelError
from inarch.models.description import (
    Description,
    GatedMLP,
    GroupedQueryAttention,
    Layer,
    Norm,
    RMSNorm,
)
from inarch.models.families.activations import gate
from inarch.models.families.config import Config
from inarch.models.families.rotary import context_length, rotary
from inarch.models.sources import FirstOf, Names, Source, Sources

T = TypeVar("T")
Table = Mapping[str, Sources | FirstOf]  # canonical module or tensor -> what makes it up

MODEL_NAMES: Table = {
    "embedding": ("model.embed_tokens",),
    "norm": ("model.norm",),
    "head": ("lm_head",),
}
LAYER_NAMES: Table = {
    "mixer_norm": ("input_layernorm",),
    "mixer.qkv": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "mixer.out": ("self_attn.o_proj",),
    "mixer.q_norm": ("self_attn.q_norm",),
    "mixer.k_norm": ("self_attn.k_norm",),
    "feed_forward_norm": ("post_attention_layernorm",),
    "feed_forward.gate_up": ("mlp.gate_proj", "mlp.up_proj"),
    "feed_forward.up": ("mlp.up_proj",),
    "feed_forward.down": ("mlp.down_proj",),
}
POST_NORM_NAMES: Table = {  # where a norm after a half is named so, the one before the mixer as ever
    "mixer_post_norm": ("post_attention_layernorm",),
    "feed_forward_norm": ("pre_feedforward_layernorm",),
    "feed_forward_post_norm": ("post_feedforward_layernorm",),
}


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


def norm(config: Config, defaults: Defaults) -> RMSNorm:
    return RMSNorm(config.number("rms_norm_eps", defaults.eps))


def attention(
    config: Config, defaults: Defaults, *, interleaved: bool = False
) -> GroupedQueryAttention:
    """Of all tokens, with rotated positions; without biases or norms."""
    q_heads, kv_heads = _heads(config, defaults)
    size = _head_dim(config, defaults, q_heads)
    turn = rotary(config, _rotated(config, defaults, size), defaults.theta)
    return GroupedQueryAttention(
        q_heads=q_heads,
        kv_heads=kv_heads,
        head_dim=size,
        rotary=replace(turn, interleaved=interleaved),
        scale=size**-0.5,
    )


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


def _rotated(config: Config, defaults: Defaults, head_dim: int) -> int:
    key = "partial_rotary_factor"
    section = config.section("rope_parameters")
    owner = config if section.get(key) is None else section
    size = int(head_dim * owner.number(key, defaults.rotated))
    if size % 2 or not 0 < size <= head_dim:
        raise owner.error(key, f"a share of head_dim ({head_dim}) that is a whole, even number")
    return size


def layer_count(config: Config, default: int = 32) -> int:
    return config.integer("num_hidden_layers", default)


def layer_types(config: Config, default: Sequence[str]) -> Sequence[str]:
    """Which layers slide: "full_attention" or "sliding_attention" for each, as `default` has it."""
    return listed(config, "layer_types", default, ("full_attention", "sliding_attention"))


def listed(config: Config, key: str, default: Sequence[T], known: Sequence[T]) -> Sequence[T]:
    """One of the known values for each layer; missing or null: the default."""
    found = config.get(key)
    if found is None:
        return default
    right = isinstance(found, list) and len(found) == len(default)
    if not right or any(value not in known for value in found):
        raise config.error(key, f"a list of {len(default)} out of {', '.join(map(str, known))}")
    return list(found)


def windows(config: Config, default: Sequence[str], window: int | None) -> list[int | None]:
    """A window for each layer that slides, by `layer_types`."""
    types = layer_types(config, default)
    return [window if layer_type == "sliding_attention" else None for layer_type in types]


def every(interval: int, layers: int) -> list[str]:
    """The layer types of a stack in which each `interval`-th layer sees all, and others slide."""
    return [
        "sliding_attention" if (index + 1) % interval else "full_attention"
        for index in range(layers)
    ]


def qwen_windows(config: Config) -> list[int | None]:
    """Qwen's way to say which layers slide: `layer_types`, or all from `max_window_layers` on."""
    layers = layer_count(config)
    window = config.optional_integer("sliding_window", 4096)
    if not config.flag("use_sliding_window", False) or window is None:
        return [None] * layers
    full = config.get("max_window_layers", 28)
    if not isinstance(full, int):
        raise config.error("max_window_layers", "a whole number")
    default = ["full_attention" if index < full else "sliding_attention" for index in range(layers)]
    return windows(config, default, window)


@dataclass(frozen=True)
class Naming:
    """Where the checkpoint keeps what: the sources of each canonical module or tensor.

    Those of a layer are in a table of their own, without what stands before all of them: `layers`,
    of which {} is the layer's index. A tensor is looked for under its whole name first; else it has
    its module's sources, with its own last name (weight, bias) behind each.
    """

    layer: Table = field(default_factory=lambda: LAYER_NAMES)
    model: Table = field(default_factory=lambda: MODEL_NAMES)
    layers: str = "model.layers.{}."

    def __call__(self, description: Description) -> Names:
        """The head is named even where it is tied: some checkpoints keep a copy of it."""
        parameters = ("head.weight", *description.parameters())
        return {parameter: self._sources(parameter) for parameter in parameters}

    def _sources(self, parameter: str) -> Sources | FirstOf:
        prefix, inner, table = "", parameter, self.model
        if parameter.startswith("layers."):
            _, index, inner = parameter.split(".", 2)
            prefix, table = self.layers.format(index), self.layer
        if inner in table:
            return _spelled(table[inner], prefix, "")
        module, _, kind = inner.rpartition(".")
        return _spelled(table[module], prefix, f".{kind}")


def _spelled(sources: Sources | FirstOf, before: str, behind: str) -> Sources | FirstOf:
    def spell(kind: Sources) -> Sources:
        return tuple(
            Source(f"{before}{source.name}{behind}", source.views)
            if isinstance(source, Source)
            else f"{before}{source}{behind}"
            for source in kind
        )

    if isinstance(sources, FirstOf):
        return FirstOf(*map(spell, sources.alternatives))
    return spell(sources)


names = Naming()


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
