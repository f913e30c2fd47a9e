"""From what a client may call a prompt (text, token ids, lists of either, a chat) to token ids."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from inarch.errors import InvalidRequestError
from inarch.sampling import check_token_ids
from inarch_server.body import shown

if TYPE_CHECKING:
    from inarch.engine.async_engine import AsyncEngine

MAX_PROMPTS = 1024  # of one request
# Characters or token ids. Up to here the work takes about a millisecond; more of it goes to a thread,
# so that the streams of others go on.
INLINE_LENGTH = 4096


@dataclass(frozen=True, eq=False)
class Prompt:
    ids: Sequence[int]
    text: str | None = None  # as it was given, if it was given as text


def split(value: Any, param: str) -> list[str | list[int]]:
    """A text, a list of token ids, or a list of either, as a list of prompts."""
    if isinstance(value, str):
        return [_text(value, param)]
    if not isinstance(value, list):
        raise _wrong(value, param)
    if not value:
        raise InvalidRequestError(f"{param} must not be empty", param=param)
    if isinstance(value[0], str):
        return [_text(item, f"{param}[{i}]") for i, item in enumerate(_limited(value, param))]
    if isinstance(value[0], list):
        return [_ids(item, f"{param}[{i}]") for i, item in enumerate(_limited(value, param))]
    return [_ids(value, param)]


def _limited(prompts: list[Any], param: str) -> list[Any]:
    if len(prompts) > MAX_PROMPTS:
        raise InvalidRequestError(
            f"{param} holds {len(prompts)} prompts, more than the {MAX_PROMPTS} of one request;"
            " send several requests",
            param=param,
        )
    return prompts


def _text(value: Any, param: str) -> str:
    if not isinstance(value, str):
        raise _wrong(value, param)
    if not value:
        raise InvalidRequestError(f"{param} must not be empty", param=param)
    return value


def _ids(value: Any, param: str) -> list[int]:
    if not isinstance(value, list):
        raise _wrong(value, param)
    if not value:
        raise InvalidRequestError(f"{param} must not be empty", param=param)
    for i, item in enumerate(value):
        if type(item) is not int:  # bool is a subclass of int
            raise InvalidRequestError(
                f"{param}[{i}]: expected a token id, got {shown(item)}", param=f"{param}[{i}]"
            )
    return value


def _wrong(value: Any, param: str) -> InvalidRequestError:
    return InvalidRequestError(
        f"{param} must be a text, a list of token ids, or a list of texts or of lists of token ids,"
        f" got {shown(value)}",
        param=param,
    )


async def tokenize(
    engine: AsyncEngine, given: Sequence[str | list[int]], param: str, *, special: bool = True
) -> list[Prompt]:
    """Token ids of every prompt; `special`: with what the tokenizer puts before a text (bos)."""

    def work() -> list[Prompt]:
        names = [param] if len(given) == 1 else [f"{param}[{i}]" for i in range(len(given))]
        return [_prompt(engine, one, name, special) for one, name in zip(given, names, strict=True)]

    if sum(map(len, given)) <= INLINE_LENGTH:
        return work()
    return await asyncio.to_thread(work)


def _prompt(engine: AsyncEngine, given: str | list[int], param: str, special: bool) -> Prompt:
    if isinstance(given, list):
        _check_length(engine, len(given), param)  # first: the next one walks through all of them
        check_token_ids(given, engine.info.vocab_size, param=param)
        return Prompt(given)
    ids = engine.tokenizer.encode(given, add_special_tokens=special)
    if not ids:
        raise InvalidRequestError(f"{param} holds no token", param=param)
    _check_length(engine, len(ids), param)
    return Prompt(ids, given)


def _check_length(engine: AsyncEngine, tokens: int, param: str) -> None:
    """At least one token of the answer must fit behind the prompt."""
    for limit, whose in (
        (engine.info.context_length, "the model's context length"),
        (engine.info.max_request_tokens, "what the KV cache can hold for one request"),
    ):
        if tokens >= limit:
            raise InvalidRequestError(
                f"{param} has {tokens} tokens and leaves no room for an answer: {whose} is"
                f" {limit} tokens; shorten it",
                param=param,
                code="context_length_exceeded",
            )
