"""What is read of a prompt that was encoded, and what a model must be for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from inarch.engine.messages import HeadInfo, ModelInfo
from inarch.engine.outputs import TokenLogprob
from inarch.engine.text.tokenizer import Tokenizer
from inarch.errors import InvalidRequestError


class Result(Protocol):
    """What is read of a finished prompt."""

    @property
    def vectors(self) -> np.ndarray | None: ...
    @property
    def logprobs(self) -> Sequence[TokenLogprob]: ...
    @property
    def prompt_tokens(self) -> int: ...
    @property
    def cached_tokens(self) -> int: ...


def vector(result: Result, head: HeadInfo, dimensions: int | None = None) -> np.ndarray:
    """float32 [outputs], or [tokens, outputs] of a model that makes one for each token.

    dimensions: how many to keep, of length 1 again if the model's are. After Kusupati et al., 2022,
    "Matryoshka Representation Learning", arXiv:2205.13147.
    """
    assert result.vectors is not None
    found = result.vectors if head.each_token else result.vectors[0]
    if dimensions is None:
        return found
    found = found[..., :dimensions]
    if not head.normalized:
        return found
    length = np.linalg.norm(found, axis=-1, keepdims=True)
    shortened: np.ndarray = found / np.maximum(length, 1e-12)
    return shortened


def prompt_text(head: HeadInfo, name: str | None) -> str:
    """What comes before a text: the prompt of that name, or the model's default one, if it has one.

    Raises InvalidRequestError for a name that is not the model's.
    """
    name = head.default_prompt if name is None else name
    if name is None:
        return ""
    if name not in head.prompts:
        known = ", ".join(map(repr, head.prompts)) or "none"
        raise InvalidRequestError(
            f"the model has no prompt {name!r}; it has {known}", param="prompt_name"
        )
    return head.prompts[name]


def check_generates(info: ModelInfo) -> None:
    if not info.head.generates:
        raise InvalidRequestError(
            f"{info.name} generates no text: it gives {_given(info)}", param="model"
        )


def check_embeds(info: ModelInfo) -> None:
    if info.head.labels:
        raise InvalidRequestError(
            f"{info.name} gives no embeddings, but {_given(info)}", param="model"
        )


def _given(info: ModelInfo) -> str:
    """What a model without an output head gives, and where."""
    if not info.head.labels:
        return "vectors of what it is sent, by /v1/embeddings, /v1/rerank or /v1/score"
    pairs = ", /v1/rerank or /v1/score" if len(info.head.labels) == 1 else ""
    return f"scores of labels, by /v1/classify{pairs}"


def check_classifier(info: ModelInfo) -> None:
    if not info.head.labels:
        raise InvalidRequestError(f"{info.name} is no classifier: it has no labels", param="model")


def check_dimensions(dimensions: int | None, head: HeadInfo) -> None:
    """Raise InvalidRequestError unless the model's vectors can be cut to so many."""
    if dimensions is None:
        return
    if head.labels:
        raise InvalidRequestError(
            "dimensions cuts embeddings, but this model gives scores of labels", param="dimensions"
        )
    if not 1 <= dimensions <= head.outputs:
        raise InvalidRequestError(
            f"dimensions must be between 1 and {head.outputs}, those of the model's vectors, got"
            f" {dimensions}",
            param="dimensions",
        )


def probabilities(scores: np.ndarray, head: HeadInfo) -> np.ndarray:
    """Of a classifier's scores [..., labels], as its makers say."""
    match head.scores:
        case "softmax":
            shifted = np.exp(scores - scores.max(-1, keepdims=True))
            found: np.ndarray = shifted / shifted.sum(-1, keepdims=True)
        case "sigmoid":
            found = 1 / (1 + np.exp(-np.clip(scores, -80, None)))
        case "raw":
            found = scores
    return found


def cut(tokenizer: Tokenizer, ids: Sequence[int], most: int | None) -> Sequence[int]:
    """A prompt's tokens, of too many the first ones; a special token that ends the text stays."""
    if most is None or len(ids) <= most:
        return ids
    end = [ids[-1]] if ids[-1] in tokenizer.special_ids else []
    return [*ids[: most - len(end)], *end]
