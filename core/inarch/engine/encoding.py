"""From texts to what must be computed of them to have their vectors, their classes or their scores.

Both engines and the server use this: it makes prompts and reads results, and runs nothing. A pair of
texts is scored as the model can: by a classifier that reads both, by how alike the vectors of both are,
or by how likely a language model says yes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np

from inarch.engine.messages import HeadInfo, ModelInfo
from inarch.engine.text.tokenizer import Tokenizer
from inarch.engine.vectors import (
    Result,
    check_classifier,
    check_dimensions,
    cut,
    probabilities,
    prompt_text,
    vector,
)
from inarch.errors import InvalidRequestError
from inarch.sampling import SamplingParams, check_token_ids, encoding

Text = str | Sequence[int]
Pair = tuple[str, str]
T = TypeVar("T")

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


@dataclass(frozen=True)
class Asked(Generic[T]):
    """Prompts to compute, and what is made of their results."""

    prompts: Sequence[Sequence[int]]
    params: Sequence[SamplingParams]
    judge: Callable[[Sequence[Result]], list[T]]


@dataclass(frozen=True)
class Encoding:
    """What the model makes of a prompt as a whole.

    vector: float32 [outputs], or [tokens, outputs] where the model makes one for each token: an
    embedding, or the raw scores of `ModelInfo.head.labels`.
    """

    vector: np.ndarray
    prompt_tokens: int
    cached_tokens: int


@dataclass(frozen=True)
class Ranked:
    """A document with its score, and its place among those that were given."""

    index: int
    score: float
    document: str


@dataclass(frozen=True)
class Asking:
    """Makes what a model must compute. `most`: tokens to which a text is cut, if it has more.

    Everything raises InvalidRequestError for what the model cannot do.
    """

    tokenizer: Tokenizer
    info: ModelInfo

    def vectors(
        self,
        inputs: Sequence[Text],
        dimensions: int | None = None,
        prompt_name: str | None = None,
        most: int | None = None,
    ) -> Asked[Encoding]:
        head = self.info.head
        check_dimensions(dimensions, head)
        before = prompt_text(head, prompt_name)

        def read(one: Result) -> Encoding:
            return Encoding(vector(one, head, dimensions), one.prompt_tokens, one.cached_tokens)

        prompts = [self._ids(one, before, most) for one in inputs]
        return Asked(prompts, [encoding()] * len(prompts), lambda found: list(map(read, found)))

    def classes(self, inputs: Sequence[Text], most: int | None = None) -> Asked[np.ndarray]:
        check_classifier(self.info)
        head, asked = self.info.head, self.vectors(inputs, most=most)
        return Asked(
            asked.prompts,
            asked.params,
            lambda found: [probabilities(one.vector, head) for one in asked.judge(found)],
        )

    def ranking(
        self,
        query: str,
        documents: Sequence[str],
        instruction: str | None = None,
        most: int | None = None,
    ) -> Asked[Ranked]:
        """Documents by falling score as answers to a query."""
        head = self.info.head
        own = [documents[i] for i in range(len(documents))]
        if not head.generates and not head.labels:
            query = _search_prompt(head, QUERY) + query
            own = [_search_prompt(head, DOCUMENT) + document for document in own]
        asked = self.pairs(paired(query, own), instruction, most)

        def rank(found: Sequence[Result]) -> list[Ranked]:
            scored = zip(asked.judge(found), documents, strict=True)
            ranked = [Ranked(i, score, document) for i, (score, document) in enumerate(scored)]
            return sorted(ranked, key=lambda one: -one.score)

        return Asked(asked.prompts, asked.params, rank)

    def pairs(
        self, pairs: Sequence[Pair], instruction: str | None = None, most: int | None = None
    ) -> Asked[float]:
        """How well the second text of each pair answers the first.

        instruction: what a language model is to look for.
        """
        info, head = self.info, self.info.head
        if head.generates:
            return self._asked_for_yes(pairs, instruction, most)
        if instruction is not None:
            raise InvalidRequestError(
                f"{info.name} takes no instruction: only language models do", param="instruct"
            )
        if not head.labels:
            return self._compared(pairs, most)
        if len(head.labels) > 1 or head.each_token:
            raise InvalidRequestError(
                f"{info.name} scores {len(head.labels)} labels, not how well texts match: ask it to"
                " classify, or take a model with one label",
                param="model",
            )
        encoded = [self.tokenizer.encode_pair(first, second, most) for first, second in pairs]
        return Asked(
            [ids for ids, _ in encoded],
            [encoding(second if head.tells_texts_apart else None) for _, second in encoded],
            lambda found: [float(probabilities(vector(one, head), head)[0]) for one in found],
        )

    def labels(
        self,
        query: Text,
        items: Sequence[Text],
        labels: Sequence[int],
        *,
        softmax: bool,
        item_first: bool = False,
    ) -> Asked[list[float]]:
        """How likely each of some tokens comes behind the query and each item, as one prompt.

        softmax: as if one of them came for sure; else their probabilities among all tokens.
        """
        check_token_ids(labels, self.info.vocab_size, param="label_token_ids")
        prompts = [self._joined(query, item, item_first) for item in items]
        return _likely(prompts, labels, softmax)

    def _joined(self, query: Text, item: Text, item_first: bool) -> Sequence[int]:
        first, second = (item, query) if item_first else (query, item)
        if isinstance(first, str) and isinstance(second, str):
            return self.tokenizer.encode(first + second)
        ids = [*first, *second]
        check_token_ids(ids, self.info.vocab_size, param="items")
        return ids

    def _compared(self, pairs: Sequence[Pair], most: int | None) -> Asked[float]:
        """By the cosine of their vectors; each text is encoded once, however many pairs it is in."""
        texts = list(dict.fromkeys(text for pair in pairs for text in pair))
        asked = self.vectors(texts, most=most)

        def judge(found: Sequence[Result]) -> list[float]:
            known = dict(zip(texts, asked.judge(found), strict=True))
            return [_cosine(known[a].vector, known[b].vector) for a, b in pairs]

        return Asked(asked.prompts, asked.params, judge)

    def _asked_for_yes(
        self, pairs: Sequence[Pair], instruction: str | None, most: int | None
    ) -> Asked[float]:
        if not self.tokenizer.has_chat_template:
            raise InvalidRequestError(
                f"{self.info.name} has no chat template, which tells how to ask it about texts: start"
                " with --chat-template, or take a reranker",
                param="model",
            )
        words = self.info.head.words or [self._token(word) for word in (YES, NO)]
        prompts = [self._question(instruction, *pair, most) for pair in pairs]
        asked = _likely(prompts, words, softmax=True)
        return Asked(
            prompts, asked.params, lambda found: [shares[0] for shares in asked.judge(found)]
        )

    def _question(
        self, instruction: str | None, query: str, document: str, most: int | None
    ) -> Sequence[int]:
        messages = self._messages(instruction, query, document)
        text = self.tokenizer.apply_chat_template(messages, enable_thinking=False)
        ids = self.tokenizer.encode(text, add_special_tokens=False)
        if most is None or len(ids) < most:
            return ids
        kept = self.tokenizer.encode(document, add_special_tokens=False)
        kept = kept[: max(len(kept) - (len(ids) - most + 1), 0)]  # one more for the answer
        return self._question(instruction, query, self.tokenizer.decode(kept), None)

    def _messages(self, instruction: str | None, query: str, document: str) -> list[dict[str, str]]:
        """A reranker's template knows the two sides of a pair; any other one is asked in words."""
        source = self.tokenizer.chat_template.source
        if all(f'"{role}"' in source or f"'{role}'" in source for role in ("query", "document")):
            stated = instruction or prompt_text(self.info.head, None)
            told = {"system": stated, "query": query, "document": document}
            return [{"role": role, "content": text} for role, text in told.items() if text]
        content = (
            f"<Instruct>: {instruction or INSTRUCTION}\n<Query>: {query}\n<Document>: {document}"
        )
        return [{"role": "system", "content": JUDGE}, {"role": "user", "content": content}]

    def _token(self, word: str) -> int:
        ids = self.tokenizer.encode(word, add_special_tokens=False)
        if len(ids) != 1:
            raise InvalidRequestError(
                f"the tokenizer of {self.info.name} cuts {word!r} into {len(ids)} tokens, so that it"
                " cannot be asked for a yes or no: take a reranker",
                param="model",
            )
        return ids[0]

    def _ids(self, text: Text, before: str, most: int | None) -> Sequence[int]:
        if isinstance(text, str):
            return cut(self.tokenizer, self.tokenizer.encode(before + text), most)
        check_token_ids(text, self.info.vocab_size, param="prompt")
        return cut(self.tokenizer, text, most)


def paired(first: str | Sequence[str], second: str | Sequence[str]) -> list[Pair]:
    """One text of `first` with each of `second`, or as many of both, one with one."""
    ones = [first] if isinstance(first, str) else list(first)
    others = [second] if isinstance(second, str) else list(second)
    if len(ones) not in (1, len(others)) or not others:
        raise InvalidRequestError(
            f"{len(ones)} texts cannot be paired with {len(others)}: give one, or as many",
            param="text_1",
        )
    return list(zip(ones * len(others) if len(ones) == 1 else ones, others, strict=True))


def _search_prompt(head: HeadInfo, names: Sequence[str]) -> str:
    return next((head.prompts[name] for name in names if name in head.prompts), "")


def _cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / max(float(np.linalg.norm(a) * np.linalg.norm(b)), 1e-12))


def _likely(
    prompts: Sequence[Sequence[int]], labels: Sequence[int], softmax: bool
) -> Asked[list[float]]:
    params = SamplingParams(
        max_tokens=1, temperature=0.0, ignore_eos=True, logprobs=0, logprob_token_ids=tuple(labels)
    )

    def shares(result: Result) -> list[float]:
        values = np.array(result.logprobs[0].wanted, dtype=np.float64)
        total = np.logaddexp.reduce(values) if softmax else 0.0
        return [float(share) for share in np.exp(values - total)]

    return Asked(prompts, [params] * len(prompts), lambda found: list(map(shares, found)))
