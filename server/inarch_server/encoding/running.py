"""Run what is asked of texts, and word what it cost."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from aiohttp import web

from inarch.errors import InvalidRequestError
from inarch.sampling import SamplingParams, Terms, encoding
from inarch_server.answering.prompts import Prompt, split, tokenize
from inarch_server.encoding.protocol import MOST_TEXTS
from inarch_server.service import SERVICE

if TYPE_CHECKING:
    from inarch_server.answering.answers import Piece


@dataclass(frozen=True)
class Ran:
    """The results of some prompts, in their order."""

    id: str
    pieces: Sequence[Piece]
    prompt_tokens: int
    cached_tokens: int

    def usage(self) -> dict[str, Any]:
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": 0,
            "total_tokens": self.prompt_tokens,
            "prompt_tokens_details": {"cached_tokens": self.cached_tokens},
        }


async def run_texts(
    request: web.Request,
    given: Any,
    param: str,
    terms: Terms,
    *,
    name: str,
    before: str = "",
    most: int | None = None,
) -> Ran:
    """Encode what the body has under `param`: a text, token ids, or a list of either.

    before: put before every text. most: tokens to which each is cut. Raises InvalidRequestError.
    """
    texts: Mapping[str, str | list[Any]] = split(given, param, most=MOST_TEXTS)
    if before:
        texts = {path: before + t if isinstance(t, str) else t for path, t in texts.items()}
    engine = request.app[SERVICE].engine
    prompts = await tokenize(engine, texts, answered=False, most=most)
    return await run(request, prompts, [encoding()] * len(prompts), terms, name=name)


async def run(
    request: web.Request,
    prompts: Sequence[Prompt],
    params: Sequence[SamplingParams],
    terms: Terms,
    *,
    name: str,
) -> Ran:
    ids = [f"{name}-{i}" for i in range(len(prompts))]
    with request.app[SERVICE].answer(request, ids, prompts, params, terms) as answers:
        pieces = await answers.all()
        cost = answers.usage()
    if any(piece.finish_reason == "abort" for piece in pieces):
        raise InvalidRequestError("the request was aborted", status=503, code="aborted")
    cached = cost["prompt_tokens_details"]["cached_tokens"]
    return Ran(name, pieces, cost["prompt_tokens"], cached)


def new_id(kind: str, given: str | None) -> str:
    return given or f"{kind}-{uuid.uuid4().hex}"
