"""The requests that run: prompts of which something is still to be computed, and decodes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from inarch.cache.sharing import shared_prefixes
from inarch.engine.request import Request
from inarch.engine.table import RequestTable
from inarch.hal.attention import SharedPrefixes


class Running:
    """prefills, in the order in which they go on, and decodes, in that of their beginning.

    A step's arithmetic is over the rows of the decodes as an array; that, and what they share, is made
    anew only when it changed.
    """

    def __init__(self, table: RequestTable, page_tokens: int) -> None:
        self.prefills: list[Request] = []
        self.decodes: dict[Request, None] = {}
        self._table, self._page_tokens = table, page_tokens
        self._decode_rows = np.empty(0, dtype=np.int32)
        self._decodes_changed = False
        self._shared: SharedPrefixes | None = None  # by the decodes in `_shared_rows`
        self._shared_rows = np.empty(0, dtype=np.int32)

    def __len__(self) -> int:
        return len(self.prefills) + len(self.decodes)

    def __iter__(self) -> Iterator[Request]:
        yield from self.prefills
        yield from self.decodes

    def begin(self, request: Request) -> None:
        self.prefills.append(request)

    def start_decoding(self, requests: Sequence[Request]) -> None:
        """Of these, those whose known tokens are all launched."""
        for request in requests:
            if self._table.computed[request.row] == request.known:
                self.prefills.remove(request)
                self.decodes[request] = None
                self._decodes_changed = True

    def prefill_again(self, request: Request) -> None:
        """A decode has known tokens to compute: before prompts that begin, since its stream runs."""
        del self.decodes[request]
        self._decodes_changed = True
        self.prefills.insert(0, request)

    def leave(self, request: Request) -> None:
        if request in self.decodes:
            del self.decodes[request]
            self._decodes_changed = True
        else:
            self.prefills.remove(request)

    def decode_rows(self) -> np.ndarray:
        if self._decodes_changed:
            self._decodes_changed = False
            rows = (request.row for request in self.decodes)
            self._decode_rows = np.fromiter(rows, np.int32, len(self.decodes))
        return self._decode_rows

    def shared_by(self, decodes: Sequence[Request], rows: np.ndarray) -> SharedPrefixes | None:
        """What decodes share: found anew only when others decode than in the step before.

        The same rows are the same requests, since a row's next request is prefilled first; and what
        they share stays, whatever happens to the tree below and beside it.
        """
        if not np.array_equal(rows, self._shared_rows):
            nodes = [request.node for request in decodes]
            self._shared = shared_prefixes(nodes, self._page_tokens)
            self._shared_rows = rows
        return self._shared
