"""Architectures that share a language model's body but end otherwise: vectors, classes, rewards.

transformers names them alike for all families: what stands before is the body, `LlamaModel` or
`LlamaForSequenceClassification`. So no family says anything of them, and each has them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from inarch.errors import ModelError
from inarch.models.description import Description
from inarch.models.description.pooling import LAST_TOKEN, Dense, PooledHead, Pooling, Scores
from inarch.models.family import Family
from inarch.models.sources import Names

MakeHead = Callable[[Mapping[str, Any], Description], PooledHead]


@dataclasses.dataclass(frozen=True)
class Ending:
    """head: from config and description. tensors: of its layers in the checkpoint, in turn."""

    head: MakeHead
    tensors: tuple[str, ...] = ()


def _embed(config: Mapping[str, Any], body: Description) -> PooledHead:
    return LAST_TOKEN


def _classify(config: Mapping[str, Any], body: Description) -> PooledHead:
    return labelled(config, Pooling("last"), (), bias=False)


def _classify_tokens(config: Mapping[str, Any], body: Description) -> PooledHead:
    return labelled(config, Pooling("each"), (), bias=True)


def _reward(config: Mapping[str, Any], body: Description) -> PooledHead:
    config = {"num_labels": 1, **config}
    return labelled(config, Pooling("last"), (Dense(body.hidden, activation="relu"),), bias=True)


def _process_reward(config: Mapping[str, Any], body: Description) -> PooledHead:
    return labelled(config, Pooling("each"), (Dense(body.hidden, activation="relu"),), bias=True)


ENDINGS = {
    "TextModel": Ending(_embed),
    "Model": Ending(_embed),
    "ForSequenceClassification": Ending(_classify, ("score",)),
    "ForTokenClassification": Ending(_classify_tokens, ("score",)),
    "ForRewardModel": Ending(_reward, ("score.0", "score.2")),
    "ForProcessRewardModel": Ending(_process_reward, ("score.0", "score.2")),
}
BODY = "ForCausalLM"


def derive(architecture: str, known: Mapping[str, Family]) -> Family | None:
    """The family of an architecture whose body is that of a known language model; else None."""
    for suffix, ending in ENDINGS.items():
        body = known.get(architecture.removesuffix(suffix) + BODY)
        if architecture.endswith(suffix) and body is not None:
            return _with_ending(architecture, body, ending)
    return None


def _with_ending(architecture: str, body: Family, ending: Ending) -> Family:
    def describe(config: Mapping[str, Any]) -> Description:
        description = body.describe(config)
        return with_head(description, ending.head(config, description))

    def names(description: Description) -> Names:
        own = dataclasses.replace(description, pooled=None, tie_embeddings=True)
        found = dict(body.names(own))
        for parameter in description.parameters():
            if parameter.startswith("pooled."):
                _, index, kind = parameter.split(".", 2)
                found[parameter] = (f"{ending.tensors[int(index)]}.{kind}",)
        return found

    return Family(body.name, (architecture,), describe, names)


def with_head(description: Description, head: PooledHead) -> Description:
    """The same body; its output head, if it had one, is left out."""
    return dataclasses.replace(description, pooled=head, tie_embeddings=False)


def labelled(
    config: Mapping[str, Any], pooling: Pooling, before: tuple[Dense, ...], *, bias: bool
) -> PooledHead:
    """A head that scores the labels that a config names."""
    labels = label_names(config)
    layers = (*before, Dense(len(labels), bias=bias))
    return PooledHead(pooling, layers, labels=labels, scores=_scores(config, len(labels)))


def label_names(config: Mapping[str, Any]) -> tuple[str, ...]:
    """In the order of the outputs. Two without names if the config says nothing, as transformers."""
    named = config.get("id2label")
    if named is None:
        count = config.get("num_labels", 2)
        named = {str(index): f"LABEL_{index}" for index in range(count)}
    try:
        return tuple(str(named[index]) for index in sorted(named, key=int))
    except (TypeError, ValueError):
        raise ModelError(
            f"config.json: id2label must name labels by number, found {named!r}"
        ) from None


def _scores(config: Mapping[str, Any], labels: int) -> Scores:
    """What makes probabilities of the scores: as the config says, or by how many labels there are."""
    stated = config.get("sentence_transformers")
    stated = stated.get("activation_fn") if isinstance(stated, Mapping) else None
    stated = stated or config.get("sbert_ce_default_activation_function")
    by_problem: dict[object, Scores] = {
        "regression": "raw",
        "multi_label_classification": "sigmoid",
        "single_label_classification": "softmax" if labels > 1 else "sigmoid",
    }
    by_function: dict[str, Scores] = {"Identity": "raw", "Sigmoid": "sigmoid", "Softmax": "softmax"}
    if stated is not None:
        name = str(stated).rpartition(".")[2]
        if name not in by_function:
            raise ModelError(
                f"config.json: the activation {stated} of its scores is none of "
                f"{', '.join(by_function)}"
            )
        return by_function[name]
    return by_problem.get(config.get("problem_type"), "softmax" if labels > 1 else "sigmoid")
