"""From canonical tensors to those of a checkpoint, by a table: Llama's, which most others share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from inarch.models.description import Description
from inarch.models.sources import FirstOf, Names, Source, Sources

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
        return _spelled(table.get(module, ()), prefix, f".{kind}")


def _spelled(sources: Sources | FirstOf, before: str, behind: str) -> Sources | FirstOf:
    def spell(kind: Sources) -> Sources:
        return tuple(
            replace(source, name=f"{before}{source.name}{behind}")
            if isinstance(source, Source)
            else f"{before}{source}{behind}"
            for source in kind
        )

    if isinstance(sources, FirstOf):
        return FirstOf(*map(spell, sources.alternatives))
    return spell(sources)


LLAMA = Naming()
