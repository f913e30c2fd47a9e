"""The running requests as rows of numpy arrays, so that a step's arithmetic is a few array calls.

A row belongs to one request from admission to its end (or retraction). One further row, the null
row, has only null pages: padding sequences use it.
"""

from __future__ import annotations

from collections.abc import MutableSequence

import numpy as np

from inarch.engine.journal import as_number
from inarch.engine.request import NO_ROW, Request

NOTHING = np.empty(0, dtype=np.int32)


class RequestTable:
    """Pages and lengths of up to `rows` running requests of up to `max_pages` pages each."""

    def __init__(self, rows: int, max_pages: int) -> None:
        self.null_row = rows
        self.requests = np.empty(rows, dtype=object)
        self.pages = np.zeros((rows + 1, max_pages), dtype=np.int32)
        self.num_pages = np.zeros(rows, dtype=np.int32)
        self.computed = np.zeros(rows, dtype=np.int32)  # tokens whose KV has been launched
        self.limit = np.zeros(rows, dtype=np.int32)  # most tokens whose KV will be needed
        # What is added to the positions of each row; None where none ever is.
        self.shifts: np.ndarray | None = None
        # Client and handle of each row in turn: the engine process puts its journal here.
        self.holders: MutableSequence[int] | memoryview = [0] * (2 * rows)
        self._free = list(range(rows - 1, -1, -1))
        self._updates: list[tuple[np.ndarray, np.ndarray]] | None = None  # None: all of it is new

    @property
    def free_rows(self) -> int:
        return len(self._free)

    def open(self, request: Request, *, computed: int, limit: int) -> int:
        """Give a request a row, still without the pages of its `computed` tokens."""
        row = self._free.pop()
        self.requests[row] = request
        self.num_pages[row] = 0
        self.computed[row] = computed
        self.limit[row] = limit
        self.holders[2 * row] = as_number(request.client)
        self.holders[2 * row + 1] = request.handle
        request.row = row
        return row

    def close(self, request: Request) -> None:
        self.requests[request.row] = None
        self.holders[2 * request.row + 1] = 0
        self._free.append(request.row)
        request.row = NO_ROW

    def append_pages(self, row: int, pages: np.ndarray) -> None:
        """Add pages at the end of one row."""
        at = int(self.num_pages[row])
        self._write(np.full(len(pages), row), np.arange(at, at + len(pages)), pages)
        self.num_pages[row] = at + len(pages)

    def append_page_each(self, rows: np.ndarray, pages: np.ndarray) -> None:
        """Add one page at the end of each of several different rows."""
        self._write(rows, self.num_pages[rows], pages)
        self.num_pages[rows] += 1

    def replace_pages(self, row: int, at: int, pages: np.ndarray) -> None:
        """Exchange pages of a row for others with the same content."""
        self._write(np.full(len(pages), row), np.arange(at, at + len(pages)), pages)

    def row_pages(self, row: int, start: int, end: int) -> np.ndarray:
        return self.pages[row, start:end].copy()

    def take_updates(self) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
        """The places written since the last call: rows, columns and the pages that are there now.

        None the first time: whoever keeps a copy of the table must take all of it.
        """
        updates, self._updates = self._updates, []
        if updates is None:
            return None
        if not updates:
            return NOTHING, NOTHING, NOTHING
        rows, columns = (np.concatenate(part) for part in zip(*updates, strict=True))
        return rows, columns, self.pages[rows, columns]

    def _write(self, rows: np.ndarray, columns: np.ndarray, pages: np.ndarray) -> None:
        self.pages[rows, columns] = pages
        if self._updates is not None:
            self._updates.append((rows, columns))
