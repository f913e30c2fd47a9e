"""Finding stop strings in text that arrives a few characters at a time.

All stop strings are one automaton (Aho and Corasick, "Efficient string matching", 1975) that reads
each character once. Its state is the longest end of the text that is the beginning of a stop
string, so what drives the search also says how much text must be held back.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

START = 0


class StopStrings:
    """A state is an integer; `match` and `held` are indexed by it. Immutable, may be shared.

    match[state]: the longest stop string that ends right here, None if none does.
    held[state]: characters at the end of the text that may yet become a stop string.
    """

    def __init__(self, stops: Iterable[str]) -> None:
        self._next: list[dict[str, int]] = [{}]
        self._fallback = [START]
        self.match: list[str | None] = [None]
        self.held = [0]
        for stop in stops:
            self._insert(stop)
        self._link()

    def step(self, state: int, char: str) -> int:
        """The state after one more character; amortised constant time."""
        while state != START and char not in self._next[state]:
            state = self._fallback[state]
        return self._next[state].get(char, START)

    def _insert(self, stop: str) -> None:
        state = START
        for depth, char in enumerate(stop, 1):
            following = self._next[state].setdefault(char, len(self._next))
            if following == len(self._next):
                self._next.append({})
                self._fallback.append(START)
                self.match.append(None)
                self.held.append(depth)
            state = following
        self.match[state] = stop

    def _link(self) -> None:
        """Breadth first: the shorter state which a state falls back to is done before it."""
        queue = deque(self._next[START].values())
        while queue:
            state = queue.popleft()
            fallback = self._fallback[state]
            self.match[state] = self.match[state] or self.match[fallback]
            if not self._next[state]:  # a whole stop string cannot grow
                self.held[state] = self.held[fallback]
            for char, following in self._next[state].items():
                self._fallback[following] = self.step(fallback, char)
                queue.append(following)
