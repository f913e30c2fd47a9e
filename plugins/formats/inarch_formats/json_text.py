"""JSON read as it comes, without changing a character of it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable

from inarch_formats.reader import MalformedError, Reader, Steps

PLAIN = re.compile(r'[^"\\]*')  # of a string
FLAT = re.compile(r'[^"{}\[\]]*')  # outside of strings
SCALAR = re.compile(r"[-+.\w]*")
CLOSER = {"{": "}", "[": "]"}
Take = Callable[[str], None]


def read_string(reader: Reader) -> Steps[str]:
    """Consume a string, and decode it."""
    pieces: list[str] = []
    yield from copy_string(reader, pieces.append)
    return str(_decoded("".join(pieces)))


def copy_string(reader: Reader, take: Take) -> Steps[None]:
    """Consume a string with its quotes; `take` is given its text as it comes."""
    take((yield from reader.expect('"')))
    while True:
        yield from reader.peek()
        length = _end(PLAIN, reader.rest)
        if length == len(reader.rest):
            take(reader.consume(length))
        elif reader.rest[length] == '"':
            take(reader.consume(length + 1))
            return
        else:
            take(reader.consume(length + 1))
            yield from reader.peek()
            take(reader.consume(1))


def copy_value(reader: Reader, take: Take) -> Steps[None]:
    """Consume any value; `take` is given its text as it comes."""
    first = yield from reader.spaces()
    if first in CLOSER:
        yield from _copy_nested(reader, take)
    elif first == '"':
        yield from copy_string(reader, take)
    else:
        yield from _copy_scalar(reader, take)


def _copy_nested(reader: Reader, take: Take) -> Steps[None]:
    closers: list[str] = []
    while True:
        yield from reader.peek()
        if length := _end(FLAT, reader.rest):
            take(reader.consume(length))
            continue
        mark = reader.rest[0]
        if mark == '"':
            yield from copy_string(reader, take)
            continue
        if mark in CLOSER:
            closers.append(CLOSER[mark])
        elif mark != closers.pop():
            raise MalformedError
        take(reader.consume(1))
        if not closers:
            return


def _copy_scalar(reader: Reader, take: Take) -> Steps[None]:
    pieces: list[str] = []
    while True:
        length = _end(SCALAR, reader.rest)
        pieces.append(reader.consume(length))
        if reader.rest or reader.ended:
            break
        yield
    text = "".join(pieces)
    _decoded(text)
    take(text)


def _decoded(text: str) -> object:
    try:
        return json.loads(text, strict=False)
    except ValueError:
        raise MalformedError from None


def _end(pattern: re.Pattern[str], text: str) -> int:
    match = pattern.match(text)
    return match.end() if match is not None else 0
