"""From token ids to text, as they come: what may be sent now, and where the answer ends.

Two things make a token's text unsafe to send at once. It may end in the middle of a character,
whose other bytes come with the next token; and it may be the beginning of a stop string, which the
client should never see. Both are held back until it is clear what they are.
"""

from __future__ import annotations

import codecs
from collections.abc import Callable, Sequence, Set
from typing import Protocol

from inarch.engine.text.stop_patterns import MatchingBudget, StopPatterns
from inarch.engine.text.stop_strings import START, StopStrings
from inarch.engine.text.token_bytes import TokenBytes

REPLACEMENT = "\ufffd"  # what decoding gives for bytes that are no character
LONGEST_CHARACTER = 4  # bytes in UTF-8
CONTEXT_TOKENS = 8  # of the prompt, that may change the text of the first token
HELD_TOKENS = 8  # most tokens one character can take; beyond, they are simply not valid text


class TextSource(Protocol):
    """Turns token ids into text, withholding a character until it is complete."""

    def feed(self, token_ids: Sequence[int]) -> str: ...

    def flush(self) -> str:
        """What is left of an incomplete character, as U+FFFD."""
        ...


class ByteText:
    """Text of a vocabulary whose tokens are bytes: join the bytes, decode what is complete."""

    def __init__(self, table: TokenBytes, prompt_ids: Sequence[int]) -> None:
        self._table = table
        context = _last_bytes(table, prompt_ids)
        self._rest = _unfinished(context)
        self._begun = bool(context) or table.spelling.at_start is None

    def feed(self, token_ids: Sequence[int]) -> str:
        new = self._join(token_ids) if self._begun else self._begin(token_ids)
        data = self._rest + new
        text, used = codecs.utf_8_decode(data, "replace", False)
        self._rest = data[used:]
        return text

    def flush(self) -> str:
        rest, self._rest = self._rest, b""
        return rest.decode(errors="replace")

    def _begin(self, token_ids: Sequence[int]) -> bytes:
        for at, token_id in enumerate(token_ids):
            if self._table[token_id]:
                self._begun = True
                return self._table.at_start(token_id) + self._join(token_ids[at + 1 :])
        return b""

    def _join(self, token_ids: Sequence[int]) -> bytes:
        return b"".join(map(self._table.__getitem__, token_ids))


class WindowText:
    """Text by any other decoder: decode a window of tokens with and without the new ones.

    The window is what came since the last text was given out, after enough context for the decoder
    to join the two correctly. Ids in `hidden` are left out.
    """

    def __init__(
        self,
        decode: Callable[[Sequence[int]], str],
        prompt_ids: Sequence[int],
        hidden: Set[int] = frozenset(),
    ) -> None:
        self._decode, self._hidden = decode, hidden
        self._window = self._visible(prompt_ids[-CONTEXT_TOKENS:])
        self._context = len(self._window)
        self._known = decode(self._window)

    def feed(self, token_ids: Sequence[int]) -> str:
        return "".join([self._feed_one(token_id) for token_id in self._visible(token_ids)])

    def flush(self) -> str:
        return self._give(self._decode(self._window))

    def _feed_one(self, token_id: int) -> str:
        self._window.append(token_id)
        text = self._decode(self._window)
        pending = len(self._window) - self._context
        if text.endswith(REPLACEMENT) and pending < HELD_TOKENS:
            return ""
        return self._give(text)

    def _visible(self, token_ids: Sequence[int]) -> list[int]:
        return [token_id for token_id in token_ids if token_id not in self._hidden]

    def _give(self, text: str) -> str:
        new = text[len(self._known) :]
        if new:
            self._window = self._window[self._context :]
            self._context = len(self._window)
            self._known = self._decode(self._window)
        return new


class Detokenizer:
    """The text of one answer, piece by piece.

    The pieces that `push` and `finish` return make up the decoded answer, up to the stop string
    or match of a pattern that ends first (of those that end together, the longest), however the
    tokens are cut.
    """

    def __init__(
        self,
        source: TextSource,
        stop: Sequence[str] = (),
        *,
        patterns: Sequence[str] = (),
        include_stop: bool = False,
        budget: MatchingBudget | None = None,
    ) -> None:
        """budget: what the patterns of several answers share; None: this one has its own."""
        self._source = source
        self._stops = StopStrings(stop) if stop or patterns else None
        self._patterns = StopPatterns(patterns, budget or MatchingBudget()) if patterns else None
        self._released = 0  # characters before those that are held back
        self._include_stop = include_stop
        self._state = START
        self._held = ""
        self.matched: str | None = None

    def push(self, token_ids: Sequence[int], *, check_stops: bool = True) -> str:
        """The text that these tokens make safe to send; nothing once a stop string has matched.

        A stop string that ends in tokens pushed with check_stops=False is ordinary text.
        """
        text = self._source.feed(token_ids)
        return text if self._stops is None else self._until_stop(text, self._stops, check_stops)

    def finish(self, *, check_stops: bool = True) -> str:
        """All that was held back: the answer has ended without more tokens."""
        text = self._source.flush()
        if self._stops is None:
            return text
        text = self._until_stop(text, self._stops, check_stops)
        held, self._held = self._held, ""
        return text + held

    def _until_stop(self, text: str, stops: StopStrings, check_stops: bool) -> str:
        if self.matched is not None:
            return ""
        if self._patterns is not None:
            self._patterns.add(text)
        text, start = self._held + text, len(self._held)
        for end, char in enumerate(text[start:], start + 1):
            self._state = stops.step(self._state, char)
            found = stops.match[self._state]
            length = len(found or "")
            if self._patterns is not None:
                match = self._patterns.found(self._released + end)
                if match is not None and match[0] > length:
                    length, found = match
            if found is not None and check_stops:
                self.matched, self._held = found, ""
                return text[: end if self._include_stop else end - length]
        held = stops.held[self._state]
        if self._patterns is not None:
            held = max(held, self._patterns.held())
        safe = len(text) - held
        self._released += safe
        self._held = text[safe:]
        return text[:safe]


def _last_bytes(table: TokenBytes, token_ids: Sequence[int]) -> bytes:
    """At least the last character's worth of bytes, empty only if no token is visible."""
    last = b""
    for token_id in reversed(token_ids):
        last = table[token_id] + last
        if len(last) >= LONGEST_CHARACTER:
            break
    return last


def _unfinished(data: bytes) -> bytes:
    """The end of `data` that is the beginning of a character."""
    for length in range(min(LONGEST_CHARACTER - 1, len(data)), 0, -1):
        end = data[-length:]
        if codecs.utf_8_decode(end, "replace", False)[1] == 0:
            return end
    return b""
