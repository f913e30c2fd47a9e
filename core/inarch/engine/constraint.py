"""How far one answer has come in its grammar, and what that means for its next token and its end.

The grammar wins over everything else that is asked of an answer's end: with ignore_eos, or before
min_tokens, the end is put off as long as the grammar allows anything else, and no longer.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence

import numpy as np

from inarch.grammar import Compiled, Grammar

log = logging.getLogger("inarch.engine")

EVERYTHING = -1  # a word of a bitmask


class Constraint:
    """Follows an answer token by token: free until `after` has come, then held to the grammar."""

    def __init__(
        self, grammar: Grammar, compiled: Compiled, end_ids: Collection[int], *, ignore_eos: bool
    ) -> None:
        """end_ids: the tokens that end an answer for the grammar."""
        self._matcher = compiled.matcher()
        self._after = list(grammar.after)
        self._held = not grammar.after
        self._end_ids = frozenset(end_ids)
        self._put_off = frozenset(end_ids) if ignore_eos else frozenset[int]()

    def advance(self, output: Sequence[int]) -> str | None:
        """Take note of the answer's last token: "stop" if the grammar ends the answer with it, "failed"
        if the grammar engine did, None if the answer goes on."""
        token = output[-1]
        if not self._held:
            self._held = list(output[-len(self._after) :]) == self._after
            return None
        try:
            if not self._matcher.accept(token):
                raise RuntimeError(f"it forbids token {token}, which it has allowed")
            ended = token in self._end_ids or (not self._end_ids and self._matcher.finished)
        except Exception:  # a plugin's fault costs the request that needed it, nothing else
            log.exception("a grammar engine failed")
            return "failed"
        return "stop" if ended else None

    def follow(self, output: Sequence[int]) -> None:
        """Take note of an answer that was begun elsewhere. Raises RuntimeError if it is not of the
        grammar."""
        seen: list[int] = []
        for token in output:
            seen.append(token)
            if self.advance(seen) == "failed":
                raise RuntimeError("the answer so far is not of the grammar")

    def fill(self, bitmask: np.ndarray, banned: Collection[int]) -> None:
        """Write which tokens may come next to `bitmask` [words] int32.

        banned: those that may not end the answer yet. They stay if nothing else is allowed.
        """
        if self._held:
            self._matcher.fill(bitmask)
            banned = self._put_off.union(banned) if banned else self._put_off
        else:
            bitmask.fill(EVERYTHING)
        if banned:
            _forbid(bitmask, banned)

    def forced(self) -> Sequence[int]:
        """Tokens that come next whatever the model says."""
        return self._matcher.forced() if self._held else ()


def _forbid(bitmask: np.ndarray, tokens: Collection[int]) -> None:
    allowed = [token for token in tokens if int(bitmask[token // 32]) >> token % 32 & 1]
    if not allowed:
        return
    kept = bitmask.view(np.uint32).copy()
    for token in allowed:
        kept[token // 32] &= np.uint32(~(1 << token % 32) & 0xFFFFFFFF)
    if kept.any():
        bitmask[:] = kept.view(np.int32)
