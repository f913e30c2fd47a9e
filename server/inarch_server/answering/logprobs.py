"""Log-probabilities of tokens in the three shapes that clients know."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from inarch.engine.outputs import TokenLogprob

if TYPE_CHECKING:
    from inarch.engine.text.tokenizer import Tokenizer

# JSON has no -inf; this is what OpenAI writes for a token that cannot come.
LOWEST = -9999.0


def chat(tokenizer: Tokenizer, entries: Sequence[TokenLogprob]) -> dict[str, Any]:
    content = [
        {
            **_chat_token(tokenizer, entry.token_id, entry.logprob),
            "top_logprobs": [_chat_token(tokenizer, *top) for top in entry.top],
        }
        for entry in entries
    ]
    return {"content": content, "refusal": None}


def _chat_token(tokenizer: Tokenizer, token_id: int, logprob: float) -> dict[str, Any]:
    return {
        "token": tokenizer.token_text(token_id),
        "logprob": max(logprob, LOWEST),
        "bytes": list(tokenizer.token_bytes(token_id)),
    }


def completion(
    tokenizer: Tokenizer, entries: Sequence[TokenLogprob], offset: int
) -> tuple[dict[str, Any], int]:
    """The four parallel lists, and where the token after the last one begins.

    `offset`: characters of the choice's text before the first entry. Special tokens are listed, but
    not in the text. A log-probability that is not known is NaN, and null in the lists.
    """
    tokens = [tokenizer.token_text(entry.token_id) for entry in entries]
    offsets = []
    for entry, token in zip(entries, tokens, strict=True):
        offsets.append(offset)
        if entry.token_id not in tokenizer.special_ids:
            offset += len(token)
    unknown = [math.isnan(entry.logprob) for entry in entries]
    return {
        "tokens": tokens,
        "token_logprobs": [
            None if null else max(entry.logprob, LOWEST)
            for entry, null in zip(entries, unknown, strict=True)
        ],
        "top_logprobs": [
            None if null else _by_text(tokenizer, entry)
            for entry, null in zip(entries, unknown, strict=True)
        ],
        "text_offset": offsets,
    }, offset


def _by_text(tokenizer: Tokenizer, entry: TokenLogprob) -> dict[str, float]:
    """Of several tokens with one text the likeliest stands."""
    top: dict[str, float] = {}
    for token_id, logprob in entry.top:
        top.setdefault(tokenizer.token_text(token_id), max(logprob, LOWEST))
    return top


def native(
    tokenizer: Tokenizer, entries: Iterable[tuple[int, float]], with_text: bool
) -> list[list[Any]]:
    """[logprob, token id, text or null] of each (token id, logprob)."""
    return [
        [max(logprob, LOWEST), token, tokenizer.token_text(token) if with_text else None]
        for token, logprob in entries
    ]
