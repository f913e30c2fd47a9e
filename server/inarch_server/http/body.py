"""Read the JSON body of a request into a model, or say exactly what is wrong with it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, TypeVar

import msgspec
from aiohttp import web
from pydantic import BaseModel, ConfigDict, ValidationError

from inarch.errors import InvalidRequestError
from inarch_server.http.turnstile import TURNSTILE

MAX_BODY_BYTES = 32 << 20
BODY_TIMEOUT_S = 60.0  # for a client that sends its body drop by drop
SHOWN_VALUE = 60  # characters


class Body(BaseModel):
    """A request, or part of one. Types are taken at their word: no "3" for 3, no true for 1.

    Unknown fields are ignored, since OpenAI's clients send some that mean nothing here. A field
    that would change the answer, but is not supported, is declared and refused.
    """

    model_config = ConfigDict(strict=True, extra="ignore", frozen=True, allow_inf_nan=False)


BodyT = TypeVar("BodyT", bound=Body)


async def read_body(request: web.Request, model: type[BodyT]) -> BodyT:
    """The body as `model`; InvalidRequestError names the field, the value and what was expected."""
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            raw = await request.read()
    except TimeoutError:
        raise InvalidRequestError(
            f"the body did not arrive within {BODY_TIMEOUT_S:g} s", status=408
        ) from None
    await request.app[TURNSTILE].enter()
    return validate(decode(raw), model)


def decode(raw: bytes) -> dict[str, Any]:
    """A JSON object; strict JSON in UTF-8: no NaN, no Infinity, nothing after the object."""
    try:
        value = msgspec.json.decode(raw)
    except UnicodeDecodeError as error:
        raise InvalidRequestError(f"the body is not valid UTF-8: {error.reason}") from None
    except (msgspec.DecodeError, RecursionError) as error:
        reason = "it is empty" if not raw.strip() else str(error)
        raise InvalidRequestError(f"the body is not valid JSON: {reason}") from None
    if not isinstance(value, dict):
        raise InvalidRequestError(f"the body must be a JSON object, got {shown(value)}")
    return value


def validate(value: Any, model: type[BodyT], under: str = "") -> BodyT:
    """`value` as `model`; `under` is the path of the value in the body, for messages."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
    where = path([under, *_in_value(value, first["loc"], first["type"] == "missing")])
    if first["type"] == "missing":
        raise InvalidRequestError(f"{where} is required", param=where)
    reason = str(first["msg"]).removeprefix("Value error, ")
    reason = reason[:1].lower() + reason[1:]
    raise InvalidRequestError(f"{where}: {reason}, got {shown(first['input'])}", param=where)


def _in_value(value: Any, location: Sequence[str | int], missing: bool) -> list[str | int]:
    """A location without what stands in no body: the names of the alternatives that were tried."""
    found: list[str | int] = []
    for part in location:
        is_key = part in value if isinstance(value, dict) else isinstance(part, int)
        if is_key and isinstance(value, dict | list | tuple):
            found.append(part)
            value = value[part]  # type: ignore[index]
    return [*found, location[-1]] if missing else found


def path(location: Sequence[str | int]) -> str:
    """Where in the body, as OpenAI writes it: messages[0].role"""
    parts = (f"[{part}]" if isinstance(part, int) else f".{part}" for part in location)
    return "".join(parts).strip(".")


def shown(value: Any) -> str:
    """A value as JSON, short enough for a message."""
    if isinstance(value, dict | list):
        return f"{'an object' if isinstance(value, dict) else 'a list'} of {len(value)}"
    text = msgspec.json.encode(value).decode()
    return text if len(text) <= SHOWN_VALUE else text[: SHOWN_VALUE - 3] + "..."
