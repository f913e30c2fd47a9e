"""Finding the first match of regular expressions in text that arrives a few characters at a time.

An answer ends as soon as its text has a match: the shortest beginning that does decides, so `a+` ends
it at the first a, however many might follow. Where a match has begun and may still become one, the
text from there on must be held back; the library's partial matching says where that is.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import regex

from inarch.errors import InvalidRequestError

# For the matching of one request: so much at first, and so much for each character of its answers.
BUDGET_S = 0.25
BUDGET_S_A_CHARACTER = 100e-6


def compile_pattern(pattern: str) -> regex.Pattern[str]:
    """Raises InvalidRequestError for what is no pattern, or matches even no text."""
    try:
        compiled = regex.compile(pattern)
        empty = compiled.fullmatch("", timeout=BUDGET_S)
    except (regex.error, TimeoutError, RecursionError, OverflowError) as error:
        raise InvalidRequestError(
            f"stop_regex: {pattern!r} is not a regular expression: {error}", param="stop_regex"
        ) from None
    if empty is not None:
        raise InvalidRequestError(
            f"stop_regex: {pattern!r} matches the empty text, so every answer would be empty",
            param="stop_regex",
        )
    return compiled


class MatchingBudget:
    """Processor time that is left for matching; all answers of one request draw on it."""

    def __init__(self) -> None:
        self.left_s = BUDGET_S

    @contextmanager
    def spend(self) -> Iterator[float]:
        """Yields how long it may take."""
        began = time.thread_time()
        try:
            yield max(self.left_s, 1e-6)
        finally:
            self.left_s -= time.thread_time() - began


class StopPatterns:
    """The text of one answer, as far as it has come, and the patterns that may end it."""

    def __init__(self, patterns: Sequence[str], budget: MatchingBudget) -> None:
        self._budget = budget
        self._patterns = [compile_pattern(pattern) for pattern in patterns]
        self._from = [0] * len(patterns)  # of each: no match that may still come begins before
        self._text = ""

    def add(self, text: str) -> None:
        """Text of which `found` will be asked."""
        self._text += text
        self._budget.left_s += BUDGET_S_A_CHARACTER * len(text)

    def found(self, end: int) -> tuple[int, str] | None:
        """The longest match that ends before character `end`: its length and pattern.

        To be asked for every end in turn. A match that is found once is not found again.
        """
        best = None
        for i, pattern in enumerate(self._patterns):
            match = self._search(pattern, self._from[i], end, partial=False)
            if match is not None:
                self._from[i] = end
                if best is None or end - match.start() > best[0]:
                    best = end - match.start(), pattern.pattern
        return best

    def held(self) -> int:
        """Characters at the end of the text that may yet be part of a match."""
        end = len(self._text)
        for i, pattern in enumerate(self._patterns):
            match = self._search(pattern, self._from[i], end, partial=True)
            self._from[i] = end if match is None else match.start()
        return end - min(self._from)

    def _search(
        self, pattern: regex.Pattern[str], start: int, end: int, *, partial: bool
    ) -> regex.Match[str] | None:
        try:
            with self._budget.spend() as most_s:
                return pattern.search(self._text, start, end, partial=partial, timeout=most_s)
        except TimeoutError:
            raise InvalidRequestError(
                f"stop_regex: {pattern.pattern!r} takes too long to match; write it"
                " without repetitions inside repetitions",
                param="stop_regex",
            ) from None
