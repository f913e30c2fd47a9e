"""BERT, RoBERTa and XLM-RoBERTa: encoders whose norms come after what was added to the stream."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from inarch.models.config_json import Config
from inarch.models.description import (
    MLP,
    Description,
    GroupedQueryAttention,
    Layer,
    LayerNorm,
    LearnedPositions,
)
from inarch.models.description.pooling import Dense, PooledHead, Pooling
from inarch.models.endings import Ending, labelled, with_ending
from inarch.models.families.parts.activations import activation
from inarch.models.families.parts.tensor_names import Naming
from inarch.models.family import Family
from inarch.models.sources import FirstOf, Names, Sources

LAYER_NAMES = {
    "mixer.qkv": ("attention.self.query", "attention.self.key", "attention.self.value"),
    "mixer.out": ("attention.output.dense",),
    "mixer_norm": (),  # the one that ends the layer before
    "feed_forward_norm": ("attention.output.LayerNorm",),
    "feed_forward.up": ("intermediate.dense",),
    "feed_forward.down": ("output.dense",),
}
MODEL_NAMES = {
    "embedding": "embeddings.word_embeddings",
    "positions": "embeddings.position_embeddings",
    "token_types": "embeddings.token_type_embeddings",
    "embedding_norm": "embeddings.LayerNorm",
}


def _describe(values: Mapping[str, Any], *, vocab_size: int, behind_padding: bool) -> Description:
    """behind_padding: positions are counted from behind the padding token's id on."""
    config = Config(values)
    config.only("position_embedding_type", "absolute", None)
    config.only("is_decoder", False)
    hidden, heads = config.integer("hidden_size", 768), config.integer("num_attention_heads", 12)
    first = values.get("pad_token_id", 1) + 1 if behind_padding else 0
    rows = config.integer("max_position_embeddings", 512)
    norm = LayerNorm(config.number("layer_norm_eps", 1e-12))
    mixer = GroupedQueryAttention(
        q_heads=heads,
        kv_heads=heads,
        head_dim=hidden // heads,
        rotary=None,
        scale=(hidden // heads) ** -0.5,
        qkv_bias=True,
        out_bias=True,
        causal=False,
    )
    mlp = MLP(config.integer("intermediate_size", 3072), activation(config))
    return Description(
        vocab_size=config.integer("vocab_size", vocab_size),
        hidden=hidden,
        layers=tuple(
            Layer(mixer, mlp, norm if index else None, norm, normed_residual=True)
            for index in range(config.integer("num_hidden_layers", 12))
        ),
        norm=norm,
        context_length=rows - first,
        positions=LearnedPositions(rows, first),
        token_types=config.integer("type_vocab_size", 2),
        embedding_norm=norm,
    )


def _naming(prefix: str, description: Description) -> Names:
    model = {module: (f"{prefix}.{name}",) for module, name in MODEL_NAMES.items()}
    head = {"head": ("lm_head.decoder",), "norm": ()}
    layers = f"{prefix}.encoder.layer.{{}}."
    found = dict(Naming(LAYER_NAMES, {**model, **head}, layers)(description))
    count = len(description.layers)
    for index in range(1, count + 1):
        module = f"layers.{index}.mixer_norm" if index < count else "norm"
        for kind in ("weight", "bias"):
            before = f"{layers.format(index - 1)}output.LayerNorm.{kind}"
            found[f"{module}.{kind}"] = (before,)
            found[f"unused.pooler.{kind}"] = (f"{prefix}.pooler.dense.{kind}",)
    return {parameter: _also_as_once(sources) for parameter, sources in found.items()}


def _also_as_once(sources: Sources | FirstOf) -> Sources | FirstOf:
    """Old checkpoints call the weight of a norm gamma, and its bias beta."""
    source = sources[0] if isinstance(sources, tuple) else None
    if not isinstance(source, str) or ".LayerNorm." not in source:
        return sources
    once = source.replace(".weight", ".gamma").replace(".bias", ".beta")
    return FirstOf((source,), (once,))


def _first_token(_: Mapping[str, Any], __: Description) -> PooledHead:
    return PooledHead(Pooling("first"), normalize=True)


def _classify(config: Mapping[str, Any], body: Description) -> PooledHead:
    return labelled(config, Pooling("first"), (Dense(body.hidden, activation="tanh"),))


def _classify_tokens(config: Mapping[str, Any], _: Description) -> PooledHead:
    return labelled(config, Pooling("each"))


def _families(
    name: str, stem: str, prefix: str, dense: str, last: str, *, vocab_size: int = 30522
) -> tuple[Family, ...]:
    """prefix: of the body's tensors. dense, last: where a classifier keeps its two layers."""
    behind_padding = prefix == "roberta"
    body = Family(
        name,
        (),
        lambda config: _describe(config, vocab_size=vocab_size, behind_padding=behind_padding),
        lambda description: _naming(prefix, description),
    )
    endings = {
        "Model": Ending(_first_token),
        "ForSequenceClassification": Ending(_classify, {"0": dense, "1": last}),
        "ForTokenClassification": Ending(_classify_tokens, {"0": "classifier"}),
    }
    return tuple(with_ending(stem + end, body, ending) for end, ending in endings.items())


IN_TWO = ("classifier.dense", "classifier.out_proj")
FAMILIES = (
    *_families("bert", "Bert", "bert", "bert.pooler.dense", "classifier"),
    *_families("roberta", "Roberta", "roberta", *IN_TWO, vocab_size=50265),
    *_families("xlm-roberta", "XLMRoberta", "roberta", *IN_TWO),
)
