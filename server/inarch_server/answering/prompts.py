"""From what a client may call a prompt (text, token ids, lists of either, a chat) to token ids."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from inarch.engine.vectors import cut
from inarch.errors import InvalidRequestError
from inarch.sampling import check_token_ids
from inarch_server.http.body import shown

if TYPE_CHECKING:
    from inarch.engine.async_engine import AsyncEngine

MAX_PROMPTS = 1024  # of one request for answers
# No vocabulary has a longer token. A text that is too long by this measure is not even tokenized.
MAX_TOKEN_CHARACTERS = 512
# Characters or token ids. Up to here the work takes about a millisecond; more of it goes to a thread,
# so that the streams of others go on.
INLINE_LENGTH = 4096


@dataclass(frozen=True, eq=False)
class Prompt:
    ids: Sequence[int]
    text: str | None = None  # as it was given, if it was given as text


def split(value: Any, param: str, *, most: int = MAX_PROMPTS) -> dict[str, str | list[Any]]:
    """A text, a list of token ids, or a list of either, as prompts by their path in the request.

    What lists of token ids hold is looked at by `tokenize`, once they are known to be short enough.
    """
    if not (isinstance(value, list) and value and isinstance(value[0], str | list)):
        return {param: _one(value, list if isinstance(value, list) else str, param)}
    if len(value) > most:
        raise InvalidRequestError(
            f"{param} holds {len(value)} prompts, more than the {most} of one request;"
            " send several requests",
            param=param,
        )
    paths = [f"{param}[{i}]" for i in range(len(value))]
    return {path: _one(item, type(value[0]), path) for path, item in zip(paths, value, strict=True)}


def _one(value: Any, kind: type[str | list[Any]], param: str) -> str | list[Any]:
    if not isinstance(value, kind):
        raise _wrong(value, param)
    if not value:
        raise InvalidRequestError(f"{param} must not be empty", param=param)
    return value


def _wrong(value: Any, param: str) -> InvalidRequestError:
    return InvalidRequestError(
        f"{param} must be a text, a list of token ids, or a list of texts or of lists of token ids,"
        f" got {shown(value)}",
        param=param,
    )


async def tokenize(
    engine: AsyncEngine,
    given: Mapping[str, str | list[Any]],
    *,
    special: bool = True,
    answered: bool = True,
    most: int | None = None,
) -> list[Prompt]:
    """Token ids of prompts by path; `special`: with what the tokenizer puts before a text (bos).

    answered: there must be room for an answer. most: tokens to which each prompt is cut.
    """

    def work() -> list[Prompt]:
        found = [_prompt(engine, prompt, path, special, most) for path, prompt in given.items()]
        for path, prompt in zip(given, found, strict=True):
            _check_length(engine, len(prompt.ids), path, answered=answered)
        return found

    if sum(map(len, given.values())) <= INLINE_LENGTH:
        return work()
    return await asyncio.to_thread(work)


def _prompt(
    engine: AsyncEngine, given: str | list[Any], param: str, special: bool, most: int | None
) -> Prompt:
    if isinstance(given, list):
        given = list(cut(engine.tokenizer, given, most))
        if len(given) <= engine.info.context_length:  # else it is refused for that
            _check_ids(engine, given, param)
        return Prompt(given)
    if len(given) > MAX_TOKEN_CHARACTERS * engine.info.context_length:
        raise InvalidRequestError(
            f"{param} has {len(given)} characters, more than the {engine.info.context_length} tokens"
            " of the model's context length can hold; shorten it",
            param=param,
            code="context_length_exceeded",
        )
    ids = engine.tokenizer.encode(given, add_special_tokens=special)
    if not ids:
        raise InvalidRequestError(f"{param} holds no token", param=param)
    return Prompt(cut(engine.tokenizer, ids, most), given)


def _check_ids(engine: AsyncEngine, given: list[Any], param: str) -> None:
    if set(map(type, given)) != {int}:  # bool is a subclass of int
        i, item = next((i, item) for i, item in enumerate(given) if type(item) is not int)
        raise InvalidRequestError(
            f"{param}[{i}]: expected a token id, got {shown(item)}", param=f"{param}[{i}]"
        )
    check_token_ids(given, engine.info.vocab_size, param=param)


def _check_length(engine: AsyncEngine, tokens: int, param: str, *, answered: bool) -> None:
    """answered: at least one token of the answer must fit behind the prompt."""
    info, most = engine.info, "what the KV cache can hold for one request"
    if info.head.whole_prompts:
        most = "the budget of a step of this server (--max-step-tokens)"
    for limit, whose in (
        (info.context_length, "the model's context length"),
        (info.max_request_tokens, most),
    ):
        if tokens > limit - answered:
            why = " and leaves no room for an answer" if answered else ""
            raise InvalidRequestError(
                f"{param} has {tokens} tokens{why}: {whose} is {limit} tokens; shorten it",
                param=param,
                code="context_length_exceeded",
            )
