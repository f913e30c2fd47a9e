"""Which slots the recurrent states of running requests are in, and where checkpoints are left behind.

The state of a request advances in a slot of its own. Where a checkpoint is wanted the slot is left
there, and the request goes on in another: at the last page border of its prompt, where its prompt
departs from what is cached, every SPACING tokens of a long one, and in an answer at each page border,
of which the last one stays. Checkpoints are left only while every request that may still come would
find a slot. After Pan et al., 2024, "Marconi", arXiv:2411.19379.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from inarch.cache.states import StateSlots
from inarch.engine.request import Request
from inarch.engine.table import RequestTable
from inarch.hal.state import NULL_SLOT

SPACING = 2048  # tokens


@dataclass(frozen=True, slots=True)
class StateRuns:
    """The runs of a step in the order of its tokens: see StateBatch. All int32 [R]."""

    lengths: np.ndarray
    read: np.ndarray
    write: np.ndarray
    wave: np.ndarray


class RequestStates:
    """Slots by row of the request table."""

    def __init__(
        self, slots: StateSlots, table: RequestTable, page_tokens: int, *, checkpoints: bool
    ) -> None:
        rows = len(table.requests)
        self.slots = slots
        self._table = table
        self._page_tokens = page_tokens
        self._checkpoints = checkpoints
        self._spacing = max(SPACING // page_tokens, 1) * page_tokens
        self._at = np.zeros(rows, dtype=np.int32)  # where the state after `computed` tokens is
        self._own = np.zeros(rows, dtype=np.int32)  # where the next one is written
        self._kept = np.zeros(rows, dtype=np.int32)  # the last one left in an answer
        self._kept_at = np.zeros(rows, dtype=np.int32)  # tokens before it
        self._departs = np.zeros(rows, dtype=np.int32)  # tokens that others' prompts have as well
        # row -> (tokens, slot) of what is left behind and not in the tree yet
        self._left: dict[int, list[tuple[int, int]]] = {}

    # ---- requests come and go ----

    def open(self, row: int, places: tuple[int, int], departs: int) -> None:
        """places: what `StateSlots.begin` gave. departs: tokens of its prompt whose pages are cached."""
        self._at[row], self._own[row] = places
        self._departs[row] = departs

    def close(self, row: int, known: int) -> None:
        """Leave the last state at a page border, if it is of known tokens; give the others back."""
        computed, own = int(self._table.computed[row]), int(self._own[row])
        kept, kept_at = int(self._kept[row]), int(self._kept_at[row])
        at_border = computed % self._page_tokens == 0 and self._at[row] == own
        if self._checkpoints and at_border and computed <= known:
            self._leave(row, computed, own)
            own = NULL_SLOT
        elif kept != NULL_SLOT and kept_at <= known:
            self._leave(row, kept_at, kept)
            kept = NULL_SLOT
        for slot in (own, kept):
            if slot != NULL_SLOT:
                self.slots.give(slot)
        self._at[row] = self._own[row] = self._kept[row] = NULL_SLOT

    def take_left(self, row: int) -> list[tuple[int, int]]:
        """(tokens, slot) of states that were left behind, now the caller's; in order of tokens."""
        return self._left.pop(row, [])

    def _leave(self, row: int, tokens: int, slot: int) -> None:
        self._left.setdefault(row, []).append((tokens, slot))

    # ---- the step ----

    def plan(self, decode_rows: np.ndarray, chunks: Sequence[tuple[Request, int]]) -> StateRuns:
        """The runs of a step: of each decode one, of each chunk (request, tokens) one or more."""
        decodes = np.ones(len(decode_rows), dtype=np.int32)
        runs = [StateRuns(decodes, *self._decodes(decode_rows), decodes - 1)]
        runs += [self._chunk(request, length) for request, length in chunks]
        return StateRuns(
            *(
                np.concatenate([getattr(run, name) for run in runs])
                for name in ("lengths", "read", "write", "wave")
            )
        )

    def _decodes(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Slots that decodes read and write. Who stands at a page border leaves its state there."""
        read, starts = self._at[rows], self._table.computed[rows]
        if self._checkpoints:
            self._keep(rows[(starts % self._page_tokens == 0) & (read == self._own[rows])])
        write = self._own[rows]
        self._at[rows] = write
        return read, write

    def _keep(self, rows: np.ndarray) -> None:
        """The slot of the state kept before is the next one to write; the first time a new one is."""
        new = self._kept[rows]
        first = np.flatnonzero(new == NULL_SLOT)[: self._spare()]
        new[first] = [self.slots.take() for _ in first]
        rows, new = rows[new != NULL_SLOT], new[new != NULL_SLOT]
        self._kept[rows], self._kept_at[rows] = self._own[rows], self._table.computed[rows]
        self._own[rows] = new

    def _chunk(self, request: Request, length: int) -> StateRuns:
        """The runs of a prefill chunk, cut wherever its state is left behind."""
        row = request.row
        start, place = int(self._table.computed[row]), int(self._at[row])
        if self._kept[row] != NULL_SLOT:  # it had decoded, and jumped over tokens since
            self._leave(row, int(self._kept_at[row]), int(self._kept[row]))
            self._kept[row] = NULL_SLOT
        borders, places = [start], [place]
        for tokens in self._cuts(request, start, start + length):
            if tokens == start:
                self._leave(row, start, place)
                self._own[row] = self.slots.take()
                continue
            borders.append(tokens)
            places.append(self.slots.take())
            self._leave(row, tokens, places[-1])
        self._at[row] = self._own[row]
        return StateRuns(
            np.diff(np.array([*borders, start + length], dtype=np.int32)),
            np.array(places, dtype=np.int32),
            np.array([*places[1:], self._own[row]], dtype=np.int32),
            np.arange(len(places), dtype=np.int32),
        )

    def _cuts(self, request: Request, start: int, end: int) -> list[int]:
        """Where in [start, end) states are left, for as many as there are slots."""
        if not self._checkpoints:
            return []
        row, page = request.row, self._page_tokens
        last = (request.known - 1) // page * page  # of what an equal prompt need not compute
        spaced = range(-(-start // self._spacing) * self._spacing, end, self._spacing)
        wanted = dict.fromkeys((last, int(self._departs[row]), *spaced))
        in_tree = 0 if self._at[row] == self._own[row] else start  # the state that it began with
        found = [tokens for tokens in wanted if max(start, 1) <= tokens < end and tokens != in_tree]
        return sorted(found[: self._spare()])

    def _spare(self) -> int:
        """Slots beyond those that further requests need."""
        return max(self.slots.room - self._table.free_rows, 0)
