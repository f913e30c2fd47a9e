"""The exact bytes that each token id stands for.

Text is cut into tokens by bytes, not by characters, so half an emoji is a token like any other.
A vocabulary writes such bytes in one of two ways: byte-level BPE gives every byte a printable
character; SentencePiece writes a space as ▁ and a rare byte as <0xE2>. The tokenizer's decoder says
which one it is. With any other (WordPiece, word-end suffixes) a token has no bytes by itself.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Set
from dataclasses import dataclass
from typing import Any

from tokenizers import Tokenizer as Backend


@dataclass(frozen=True)
class Spelling:
    """How a vocabulary writes bytes: from a token as the vocabulary has it to what it means."""

    anywhere: Callable[[str], bytes]
    # Some decoders drop the space that begins a text; None if the place makes no difference.
    at_start: Callable[[str], bytes] | None = None


class TokenBytes(dict[int, bytes]):
    """Token id -> bytes, worked out when an id is first seen: most of a vocabulary never is.

    Ids in `hidden`, and ids that the vocabulary lacks, are no bytes.
    """

    def __init__(
        self, backend: Backend, spelling: Spelling, hidden: Set[int] = frozenset()
    ) -> None:
        super().__init__()
        self._backend, self._hidden = backend, hidden
        self.spelling = spelling

    def __missing__(self, token_id: int) -> bytes:
        token = None if token_id in self._hidden else self._backend.id_to_token(token_id)
        self[token_id] = value = b"" if token is None else self.spelling.anywhere(token)
        return value

    def at_start(self, token_id: int) -> bytes:
        """The bytes of a visible token which begins the text."""
        spell = self.spelling.at_start or self.spelling.anywhere
        return spell(self._backend.id_to_token(token_id) or "")


def spelling_of(decoder: Any) -> Spelling | None:
    """The spelling that a decoder of `tokenizers` reads, None if its tokens are not bytes."""
    if decoder is None:
        return None
    steps = _flatten(json.loads(decoder.__getstate__()))
    kinds = [step["type"] for step in steps]
    if kinds == ["ByteLevel"]:
        return Spelling(_byte_level)
    if kinds == ["Metaspace"]:
        return _metaspace(steps[0])
    return _sentencepiece(steps)


def _flatten(state: dict[str, Any]) -> list[dict[str, Any]]:
    if state["type"] != "Sequence":
        return [state]
    return [step for inner in state["decoders"] for step in _flatten(inner)]


def _byte_alphabet() -> dict[str, int]:
    """The printable character that byte-level BPE (GPT-2, 2019) writes for each byte, reversed."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = [byte for byte in range(256) if byte not in printable]
    shifted = {chr(256 + index): byte for index, byte in enumerate(others)}
    return shifted | {chr(byte): byte for byte in printable}


_BYTE_OF = _byte_alphabet()


def _byte_level(token: str) -> bytes:
    try:
        return bytes([_BYTE_OF[char] for char in token])
    except KeyError:  # an added token, written as it is
        return token.encode()


def _metaspace(step: dict[str, Any]) -> Spelling:
    mark = step["replacement"]
    at_start = None if step["prepend_scheme"] == "never" else _with_mark(mark, "")
    return Spelling(_with_mark(mark, " "), at_start)


def _with_mark(mark: str, meaning: str) -> Callable[[str], bytes]:
    return lambda token: token.replace(mark, meaning).encode()


def _sentencepiece(steps: list[dict[str, Any]]) -> Spelling | None:
    """Replace ▁ by a space, bytes from <0x..>, fuse, and strip the space that begins the text."""
    space_mark = byte_fallback = fused = strips = False
    for step in steps:
        match step:
            case {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}:
                space_mark = True
            case {"type": "ByteFallback"}:
                byte_fallback = True
            case {"type": "Fuse"}:
                fused = True
            case {"type": "Strip", "content": " ", "start": 1, "stop": 0} if fused and not strips:
                strips = True
            case _:
                return None
    if not space_mark:
        return None
    words = _with_mark("▁", " ")
    anywhere = _with_byte_tokens(words) if byte_fallback else words
    at_start = (lambda token: anywhere(token).removeprefix(b" ")) if strips else None
    return Spelling(anywhere, at_start)


def _with_byte_tokens(otherwise: Callable[[str], bytes]) -> Callable[[str], bytes]:
    def spell(token: str) -> bytes:
        if len(token) == 6 and token.startswith("<0x") and token.endswith(">"):
            try:
                return bytes([int(token[3:5], 16)])
            except ValueError:
                pass
        return otherwise(token)

    return spell
