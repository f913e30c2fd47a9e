"""From texts to what must be computed of them, and from the results to vectors and scores.

Both engines and the server use this: it makes prompts and reads results, and runs nothing. A pair of
texts is scored as the model can: by a classifier that reads both, by how alike the vectors of both are,
or by how likely a language model says yes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from inarch.engine.messages import HeadInfo, ModelInfo
from inarch.engine.outputs import TokenLogprob
from inarch.engine.tokenizer import Tokenizer
from inarch.errors import InvalidRequestError
from inarch.sampling import SamplingParams, encoding

Text = str | Sequence[int]

# As Qwen3-Reranker was trained; other instructed models follow it too.
JUDGE = (
    "Judge whether the Document meets the requirements based on the Query and the Instruct provided. "
    'Note that the answer can only be "yes" or "no".'
)
INSTRUCTION = "Given a web search query, retrieve relevant passages that answer the query"
YES, NO = "yes", "no"
# How makers of embedding models call the prompts of a search.
QUERY = ("query",)
DOCUMENT = ("document", "passage", "corpus")


class Result(Protocol):
    """What is read of a finished prompt."""

    @property
    def vectors(self) -> np.ndarray | None: ...

    @property
    def logprobs(self) -> Sequence[TokenLogprob]: ...


@dataclass(frozen=True)
class Asked:
    """Prompts to compute, and what makes scores of their results."""

    prompts: Sequence[Sequence[int]]
    params: Sequence[SamplingParams]
    judge: Callable[[Sequence[Result]], list[Any]]


# ---- vectors ----


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


def check_classifier(info: ModelInfo) -> None:
    if not info.head.labels:
        raise InvalidRequestError(f"{info.name} is no classifier: it has no labels", param="model")


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
    return found / np.maximum(np.linalg.norm(found, axis=-1, keepdims=True), 1e-12)


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


# ---- scores of pairs ----


def paired(first: str | Sequence[str], second: str | Sequence[str]) -> list[tuple[str, str]]:
    """One text of `first` with each of `second`, or as many of both, one with one."""
    ones = [first] if isinstance(first, str) else list(first)
    others = [second] if isinstance(second, str) else list(second)
    if len(ones) not in (1, len(others)) or not others:
        raise InvalidRequestError(
            f"{len(ones)} texts cannot be paired with {len(others)}: give one, or as many",
            param="text_1",
        )
    return list(zip(ones * len(others) if len(ones) == 1 else ones, others, strict=True))


def ask_pairs(
    tokenizer: Tokenizer,
    info: ModelInfo,
    pairs: Sequence[tuple[str, str]],
    *,
    instruction: str | None = None,
    search: bool = False,
    most: int | None = None,
) -> Asked:
    """How well the second text of each pair answers the first.

    instruction: what a language model is to look for. search: the first texts are queries and the
    others documents, before which an embedding model may want prompts of their own. most: tokens to which the second text is cut,
    where both are one prompt. Raises InvalidRequestError.
    """
    head = info.head
    if instruction is not None and not head.generates:
        raise InvalidRequestError(
            f"{info.name} takes no instruction: only language models do", param="instruct"
        )
    if head.generates:
        return _ask_language_model(tokenizer, pairs, instruction or INSTRUCTION)
    if not head.labels:
        if search:
            query, document = (_search_prompt(head, names) for names in (QUERY, DOCUMENT))
            pairs = [(query + first, document + second) for first, second in pairs]
        return _ask_vectors(tokenizer, head, pairs, most)
    if len(head.labels) > 1 or head.each_token:
        raise InvalidRequestError(
            f"{info.name} scores {len(head.labels)} labels, not how well texts match: use "
            "/v1/classify, or a model with one label",
            param="model",
        )
    encoded = [tokenizer.encode_pair(first, second, most) for first, second in pairs]
    return Asked(
        [ids for ids, _ in encoded],
        [encoding(second if head.tells_texts_apart else None) for _, second in encoded],
        lambda results: [float(probabilities(vector(r, head), head)[0]) for r in results],
    )


def _search_prompt(head: HeadInfo, names: Sequence[str]) -> str:
    return next((head.prompts[name] for name in names if name in head.prompts), "")


def _ask_vectors(
    tokenizer: Tokenizer, head: HeadInfo, pairs: Sequence[tuple[str, str]], most: int | None
) -> Asked:
    """Each text once, however many pairs it is in."""
    number = {text: i for i, text in enumerate(dict.fromkeys(t for pair in pairs for t in pair))}

    def judge(results: Sequence[Result]) -> list[float]:
        found = [vector(result, head) for result in results]
        return [_cosine(found[number[first]], found[number[second]]) for first, second in pairs]

    prompts = [cut(tokenizer.encode(text), most) for text in number]
    return Asked(prompts, [encoding()] * len(prompts), judge)


def _cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / max(float(np.linalg.norm(a) * np.linalg.norm(b)), 1e-12))


def _ask_language_model(
    tokenizer: Tokenizer, pairs: Sequence[tuple[str, str]], instruction: str
) -> Asked:
    if not tokenizer.has_chat_template:
        raise InvalidRequestError(
            "the model has no chat template, which tells how to ask it about texts: start the server"
            " with --chat-template, or serve a reranker",
            param="model",
        )
    words = [token_of(tokenizer, word) for word in (YES, NO)]
    prompts = [
        tokenizer.encode(_question(tokenizer, instruction, *pair), add_special_tokens=False)
        for pair in pairs
    ]
    return ask_labels(prompts, words, lambda shares: shares[0])


def _question(tokenizer: Tokenizer, instruction: str, query: str, document: str) -> str:
    content = f"<Instruct>: {instruction}\n<Query>: {query}\n<Document>: {document}"
    messages = [{"role": "system", "content": JUDGE}, {"role": "user", "content": content}]
    return tokenizer.apply_chat_template(messages, enable_thinking=False)


def token_of(tokenizer: Tokenizer, word: str) -> int:
    """The one token of a word. Raises InvalidRequestError if it has several."""
    ids = tokenizer.encode(word, add_special_tokens=False)
    if len(ids) != 1:
        raise InvalidRequestError(
            f"the model's tokenizer cuts {word!r} into {len(ids)} tokens, so that it cannot be asked"
            " for a yes or no: use a reranker",
            param="model",
        )
    return ids[0]


def ask_labels(
    prompts: Sequence[Sequence[int]],
    labels: Sequence[int],
    pick: Callable[[list[float]], Any],
    *,
    softmax: bool = True,
) -> Asked:
    """How likely each of some tokens comes after each prompt; `pick` makes a result of the shares.

    softmax: as if one of them came for sure; else their probabilities among all tokens.
    """
    params = SamplingParams(
        max_tokens=1,
        temperature=0.0,
        ignore_eos=True,
        logprobs=0,
        logprob_token_ids=tuple(labels),
    )

    def judge(results: Sequence[Result]) -> list[Any]:
        return [pick(_shares(result.logprobs[0].wanted, softmax)) for result in results]

    return Asked(prompts, [params] * len(prompts), judge)


def _shares(logprobs: Sequence[float], softmax: bool) -> list[float]:
    values = np.array(logprobs, dtype=np.float64)
    total = np.logaddexp.reduce(values) if softmax else 0.0
    return [float(share) for share in np.exp(values - total)]


def joined(
    tokenizer: Tokenizer, query: Text, items: Sequence[Text], *, item_first: bool
) -> list[Sequence[int]]:
    """The query with each item as one prompt; texts are joined as they are."""

    def join(item: Text) -> Sequence[int]:
        first, second = (item, query) if item_first else (query, item)
        if isinstance(first, str) and isinstance(second, str):
            return tokenizer.encode(first + second)
        return [*first, *second]  # type: ignore[list-item]

    return [join(item) for item in items]


def cut(ids: Sequence[int], most: int | None) -> Sequence[int]:
    """A text's tokens, of too many the first ones; the last one, which ends a text, stays."""
    if most is None or len(ids) <= most:
        return ids
    return [*ids[: most - 1], ids[-1]]
