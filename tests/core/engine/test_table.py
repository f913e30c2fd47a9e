from __future__ import annotations

import numpy as np

from inarch.engine.request import Request
from inarch.engine.table import RequestTable
from inarch.sampling import SamplingParams


def pages(*ids: int) -> np.ndarray:
    return np.array(ids, dtype=np.int32)


def test_a_copy_that_applies_the_updates_equals_the_table() -> None:
    table = RequestTable(rows=3, max_pages=4)
    requests = [Request(i, pages(1), SamplingParams(), max_tokens=4) for i in range(4)]
    first, second = (table.open(request, computed=0, limit=4) for request in requests[:2])
    table.append_pages(first, pages(5, 6))
    assert table.take_updates() is None  # the first time all of it must be taken
    copy = table.pages.copy()
    table.append_page_each(np.array([first, second]), pages(7, 8))
    table.replace_pages(first, 1, pages(9))
    table.close(requests[1])
    again = table.open(requests[2], computed=0, limit=4)
    table.append_pages(again, pages(10, 11))
    updates = table.take_updates()
    assert updates is not None
    copy[updates[0], updates[1]] = updates[2]
    assert np.array_equal(copy, table.pages)
    assert table.take_updates() is not None
    assert [len(part) for part in table.take_updates() or ()] == [0, 0, 0]


def test_a_row_returns_when_its_request_leaves() -> None:
    table = RequestTable(rows=1, max_pages=2)
    request = Request(0, pages(1), SamplingParams(), max_tokens=4)
    row = table.open(request, computed=0, limit=4)
    assert table.free_rows == 0
    assert row != table.null_row
    table.close(request)
    assert table.free_rows == 1
    assert (table.pages[table.null_row] == 0).all()
