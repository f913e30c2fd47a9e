"""Text that must come next, as the tokens that the model's own tokenizer would cut it into.

Where a grammar leaves no choice of text it still leaves many of tokens: "name" is also "n", "ame". A
model left to choose would, at some positions, begin a word in a way that it has rarely seen. So there
is one choice here: the tokenizer's own. It is the only token that the mask allows, and therefore a
token that may be skipped without asking the model, with the same answer as if it had been asked.

The end of such a text may belong to a token that also has what comes after. Where tokens of the
vocabulary go on from an end of the text, that end is left to the model.
"""

from __future__ import annotations

import bisect
import functools
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from inarch.grammar import Vocabulary

KEPT = 8192  # texts whose tokens are remembered
LONGEST_TEXT = 2000  # characters that are cut into tokens at once
LONGEST_TOKEN = 64  # bytes of a token of which the beginning may be forced


class Automaton(Protocol):
    """What a grammar library gives; see inarch.grammar.Matcher."""

    def fill(self, bitmask: np.ndarray) -> None: ...

    def accept(self, token: int) -> bool: ...

    def acceptable(self, tokens: Sequence[int]) -> int:
        """How many of the tokens could be accepted one after the other; nothing changes."""

    def text(self) -> str:
        """What must come next in any case, "" if there is a choice."""

    @property
    def finished(self) -> bool: ...


class Forcing:
    """Cuts forced texts into tokens of a vocabulary. Safe to use from several threads."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        names = {token: text.encode() for text, token in vocabulary.special.items()}
        self._spelled = {i: names.get(i, piece) for i, piece in enumerate(vocabulary.pieces)}
        self._sorted = sorted(piece for piece in vocabulary.pieces if len(piece) > 1)
        self.tokens = functools.lru_cache(KEPT)(self._tokens)

    def _tokens(self, text: str) -> tuple[int, ...]:
        """The tokens of a text that do not depend on what comes behind it."""
        ids = self._vocabulary.encode(text)
        sure, data, at = 0, text.encode(), 0
        border = len(data) - self._open_end(data)
        for token in ids:
            at += len(self._spelled[token])
            if at > border:
                break
            sure += 1
        return tuple(ids[:sure])

    def _open_end(self, data: bytes) -> int:
        """Length of the longest end of a text with which a longer token begins."""
        for length in range(min(len(data), LONGEST_TOKEN), 0, -1):
            end = data[-length:]
            at = bisect.bisect_right(self._sorted, end)
            if at < len(self._sorted) and self._sorted[at].startswith(end):
                return length
        return 0


class ForcedMatcher:
    """A matcher that cuts forced texts as the tokenizer does."""

    def __init__(self, automaton: Automaton, forcing: Forcing) -> None:
        self._automaton = automaton
        self._forcing = forcing
        self._forced: Sequence[int] | None = None  # None: not known since the last token

    def fill(self, bitmask: np.ndarray) -> None:
        forced = self.forced()
        if forced:
            bitmask.fill(0)
            word = bitmask[forced[0] // 32 :][:1].view(np.uint32)
            word[0] = 1 << forced[0] % 32
        else:
            self._automaton.fill(bitmask)

    def accept(self, token: int) -> bool:
        forced = self.forced()
        if forced and token != forced[0]:
            return False
        if not self._automaton.accept(token):
            return False
        self._forced = forced[1:] or None
        return True

    def forced(self) -> Sequence[int]:
        if self._forced is None:
            text = self._automaton.text()
            tokens = self._forcing.tokens(text[:LONGEST_TEXT]) if text else ()
            self._forced = tokens[: self._automaton.acceptable(tokens)] if tokens else ()
        return self._forced

    @property
    def finished(self) -> bool:
        return self._automaton.finished
