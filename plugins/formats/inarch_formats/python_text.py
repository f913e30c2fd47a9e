"""Python's literals read as they come, and given on as JSON.

Words that JSON has for them, such as true for True, are understood as well.
"""

from __future__ import annotations

import ast
import json
import re

from inarch_formats.json_text import Take
from inarch_formats.reader import MalformedError, Reader, Steps
from inarch_formats.values import quoted

WORD = re.compile(r"[-+.\w]*")
NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?")  # of JSON
WORDS = {"True": "true", "False": "false", "None": "null"}
WORDS |= {word: word for word in WORDS.values()}
ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f", "v": "\v", "a": "\a", "0": "\0"}
ESCAPES |= {c: c for c in "\\'\""} | {"\n": ""}
CODES = {"x": 2, "u": 4, "U": 8}  # hexadecimal digits of an escape
SURROGATES = range(0xD800, 0xE000)
DEEPEST = 64


def read_word(reader: Reader) -> Steps[str]:
    """Consume a name or a number, "" if there is none; it ends where something else begins."""
    pieces: list[str] = []
    while True:
        match = WORD.match(reader.rest)
        pieces.append(reader.consume(match.end() if match is not None else 0))
        if reader.rest:
            return "".join(pieces)
        yield from reader.more()


def copy_literal(reader: Reader, take: Take, depth: int = 0) -> Steps[None]:
    """Consume a value; `take` is given it as JSON."""
    first = yield from reader.spaces()
    if first in "\"'":
        yield from _copy_string(reader, take)
    elif first in "[({":
        if depth == DEEPEST:
            raise MalformedError
        yield from _copy_nested(reader, take, depth + 1)
    else:
        word = yield from read_word(reader)
        take(WORDS.get(word) or _number(word))


def _copy_nested(reader: Reader, take: Take, depth: int) -> Steps[None]:
    opening = reader.consume(1)
    closing = {"[": "]", "(": ")", "{": "}"}[opening]
    take("{" if opening == "{" else "[")
    first = True
    while (yield from reader.spaces()) != closing:
        if not first:
            yield from reader.expect(",")
            if (yield from reader.spaces()) == closing:
                break
            take(", ")
        first = False
        if opening == "{":
            if (yield from reader.spaces()) not in "\"'":
                raise MalformedError
            yield from _copy_string(reader, take)
            yield from reader.spaces()
            yield from reader.expect(":")
            take(": ")
        yield from copy_literal(reader, take, depth)
    reader.consume(1)
    take("}" if opening == "{" else "]")


def _copy_string(reader: Reader, take: Take) -> Steps[None]:
    quote = reader.consume(1)
    take('"')
    if (yield from reader.peek()) == quote:
        reader.consume(1)
        if (yield from reader.peek()) != quote:
            take('"')
            return
        reader.consume(1)
        quote *= 3
    plain = re.compile(rf"[^\\{quote[0]}]*")
    while True:
        yield from reader.peek()
        match = plain.match(reader.rest)
        if match is not None and match.end():
            take(quoted(reader.consume(match.end()))[1:-1])
        elif reader.rest[0] == "\\":
            yield from _copy_escape(reader, take)
        elif (yield from _ends(reader, quote)):
            take('"')
            return
        else:
            take(quoted(reader.consume(1))[1:-1])


def _ends(reader: Reader, quote: str) -> Steps[bool]:
    """Whether a string ends here; consumes its quote if so."""
    while not reader.rest.startswith(quote):
        if not quote.startswith(reader.rest):
            return False
        yield from reader.more()
    reader.consume(len(quote))
    return True


def _copy_escape(reader: Reader, take: Take) -> Steps[None]:
    reader.consume(1)
    letter = yield from reader.peek()
    reader.consume(1)
    if letter not in CODES:
        take(quoted(ESCAPES.get(letter, "\\" + letter))[1:-1])
        return
    while len(reader.rest) < CODES[letter]:
        yield from reader.more()
    try:
        code = int(reader.consume(CODES[letter]), 16)
        take(f"\\u{code:04x}" if code in SURROGATES else quoted(chr(code))[1:-1])
    except (ValueError, OverflowError):
        raise MalformedError from None


def _number(word: str) -> str:
    if NUMBER.fullmatch(word):
        return word  # whatever its size: JSON has no limits
    try:
        value = ast.literal_eval(word)
        text = json.dumps(value, allow_nan=False)
    except (ValueError, TypeError, SyntaxError, MemoryError):
        raise MalformedError from None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise MalformedError
    return text
