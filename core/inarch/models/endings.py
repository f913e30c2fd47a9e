"""Architectures that share a language model's body but end otherwise: vectors, classes, rewards.

transformers names them alike for all families: what stands before is the body, `LlamaModel` or
`LlamaForSequenceClassification`. So no family says anything of them, and each has them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from inarch.errors import ModelError
from inarch.models.description import Description, GroupedQueryAttention, Layer
from inarch.models.description.pooling import LAST_TOKEN, Dense, PooledHead, Pooling, Scores
from inarch.models.family import Family
from inarch.models.sources import Names


@dataclasses.dataclass(frozen=True)
class Ending:
    """head: made of the config and the body. modules: where the checkpoint keeps its layers, by
    their number, and their norms ("0.norm")."""

    head: Callable[[Mapping[str, Any], Description], PooledHead]
    modules: Mapping[str, str] = dataclasses.field(default_factory=dict)


def _classify(config: Mapping[str, Any], _: Description) -> PooledHead:
    return labelled(config, Pooling("last"), bias=False)


def _classify_tokens(config: Mapping[str, Any], _: Description) -> PooledHead:
    return labelled(config, Pooling("each"))


def _reward(_: Mapping[str, Any], body: Description) -> PooledHead:
    layers = (Dense(body.hidden, activation="relu"), Dense(1))
    return PooledHead(Pooling("last"), layers, labels=("reward",))


def _process_reward(_: Mapping[str, Any], body: Description) -> PooledHead:
    layers = (Dense(body.hidden, activation="relu"), Dense(2))
    return PooledHead(Pooling("each"), layers, labels=("wrong", "right"), scores="softmax")


EMBED = Ending(lambda config, body: LAST_TOKEN)
REWARD_MODULES = {"0": "score.0", "1": "score.2"}
ENDINGS = {
    "TextModel": EMBED,
    "Model": EMBED,
    "ForSequenceClassification": Ending(_classify, {"0": "score"}),
    "ForTokenClassification": Ending(_classify_tokens, {"0": "score"}),
    "ForRewardModel": Ending(_reward, REWARD_MODULES),
    "ForProcessRewardModel": Ending(_process_reward, REWARD_MODULES),
}
BODY = "ForCausalLM"


def derive(architecture: str, known: Mapping[str, Family]) -> Family | None:
    """The family of an architecture whose body is that of a known language model; else None."""
    for suffix, ending in ENDINGS.items():
        body = known.get(architecture.removesuffix(suffix) + BODY)
        if architecture.endswith(suffix) and body is not None:
            return with_ending(architecture, body, ending)
    return None


def with_ending(architecture: str, body: Family, ending: Ending) -> Family:
    """The family of the body, but for its head."""

    def describe(config: Mapping[str, Any]) -> Description:
        description = body.describe(config)
        return with_head(description, ending.head(config, description))

    def names(description: Description) -> Names:
        own = dataclasses.replace(description, pooled=None, tie_embeddings=True)
        found = dict(body.names(own))
        for parameter in description.parameters():
            if parameter.startswith("pooled."):
                module, _, kind = parameter.removeprefix("pooled.").rpartition(".")
                found[parameter] = (f"{ending.modules.get(module, module)}.{kind}",)
        return found

    return Family(body.name, (architecture,), describe, names)


def both_sides(config: Mapping[str, Any], description: Description) -> Description:
    """The same model with attention to later tokens too, if the config asks for it.

    Such a model has no use for an output head. Gemma's window of w reaches half of it each way.
    """
    gemma = config.get("use_bidirectional_attention") in (True, "all")
    if not gemma and config.get("is_causal") is not False:
        return description

    def turned(layer: Layer) -> Layer:
        mixer = layer.mixer
        if not isinstance(mixer, GroupedQueryAttention) or (mixer.window and not gemma):
            raise ModelError(
                "config.json asks for attention to both sides (is_causal: false), which is not "
                "supported for layers with a window or of another kind"
            )
        window = mixer.window // 2 + 1 if mixer.window else None
        return dataclasses.replace(
            layer, mixer=dataclasses.replace(mixer, causal=False, window=window)
        )

    layers = tuple(map(turned, description.layers))
    turned_around = dataclasses.replace(description, layers=layers)
    return turned_around if description.pooled else with_head(turned_around, LAST_TOKEN)


def with_head(description: Description, head: PooledHead) -> Description:
    """The same body; its output head, if it had one, is left out."""
    return dataclasses.replace(description, pooled=head, tie_embeddings=False)


def labelled(
    config: Mapping[str, Any],
    pooling: Pooling,
    before: tuple[Dense, ...] = (),
    *,
    bias: bool = True,
) -> PooledHead:
    """A head whose last layer scores the labels that a config names."""
    labels = _labels(config)
    layers = (*before, Dense(len(labels), bias=bias))
    return PooledHead(pooling, layers, labels=labels, scores=_scores(config, len(labels)))


def _labels(config: Mapping[str, Any]) -> tuple[str, ...]:
    """In the order of the outputs. Two without names if the config says nothing, as transformers."""
    named = config.get("id2label")
    if named is None:
        named = {str(index): f"LABEL_{index}" for index in range(config.get("num_labels", 2))}
    try:
        return tuple(str(named[index]) for index in sorted(named, key=int))
    except (TypeError, ValueError):
        raise ModelError(
            f"config.json: id2label must be labels by number, found {named!r}"
        ) from None


def _scores(config: Mapping[str, Any], labels: int) -> Scores:
    """What makes probabilities of scores: as the config says, or by how many labels there are."""
    stated = config.get("sentence_transformers")
    stated = stated.get("activation_fn") if isinstance(stated, Mapping) else None
    stated = stated or config.get("sbert_ce_default_activation_function")
    if stated is not None:
        by_function: dict[str, Scores] = {
            "Identity": "raw",
            "Sigmoid": "sigmoid",
            "Softmax": "softmax",
        }
        name = str(stated).rpartition(".")[2]
        if name not in by_function:
            raise ModelError(
                f"config.json makes its scores with {stated}, which is none of "
                f"{', '.join(by_function)}"
            )
        return by_function[name]
    problem = config.get("problem_type")
    if problem == "regression":
        return "raw"
    return "sigmoid" if labels == 1 or problem == "multi_label_classification" else "softmax"
