"""The free page ids of a KV pool, as a stack in one numpy array."""

from __future__ import annotations

import numpy as np

from inarch.hal.kv import NULL_PAGE


class PageAllocator:
    """Hands out ids 1 .. total - 1; the null page is never given. Cost: the pages touched."""

    def __init__(self, total: int) -> None:
        if total < 2:
            raise ValueError(f"a pool needs a null page and one more, got {total}")
        self.total = total - 1
        self._stack = np.arange(total - 1, NULL_PAGE, -1, dtype=np.int32)
        self._size = self.total

    @property
    def free(self) -> int:
        return self._size

    def take(self, count: int) -> np.ndarray:
        """Remove `count` ids (int32) from the pool; the caller has checked `free`."""
        assert 0 <= count <= self._size, f"took {count} pages of {self._size}"
        self._size -= count
        return self._stack[self._size : self._size + count].copy()

    def give(self, pages: np.ndarray) -> None:
        """Return ids that were taken."""
        end = self._size + len(pages)
        assert end <= self.total, "more pages returned than taken"
        self._stack[self._size : end] = pages
        self._size = end
