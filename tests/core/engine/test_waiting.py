"""The line of waiting requests: priority first, then age and cached prefixes, and nobody starves."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inarch.engine.request import Request
from inarch.engine.waiting import MAX_OUTRANKED, MAX_PASSED_OVER, WaitingLine
from inarch.sampling import SamplingParams

HANDLES = itertools.count()


def make(priority: int = 0) -> Request:
    prompt = np.array([1], dtype=np.int32)
    return Request(next(HANDLES), prompt, SamplingParams(), max_tokens=1, priority=priority)


def admit(line: WaitingLine, cached: dict[Request, int] | None = None) -> Request:
    request = line.candidates(lambda r: (cached or {}).get(r, 0))[0]
    line.admit(request)
    return request


def joined(line: WaitingLine, *priorities: int) -> list[Request]:
    requests = [make(priority) for priority in priorities]
    for request in requests:
        line.join(request)
    return requests


@given(st.lists(st.integers(-3, 3), min_size=1, max_size=MAX_OUTRANKED))
def test_a_higher_priority_goes_first_and_equals_in_the_order_they_came(
    priorities: list[int],
) -> None:
    line = WaitingLine()
    requests = joined(line, *priorities)
    assert [admit(line) for _ in requests] == sorted(requests, key=lambda r: -r.priority)
    assert len(line) == 0


def test_a_longer_cached_prefix_counts_among_equals_only() -> None:
    line = WaitingLine()
    plain, cached, low = joined(line, 1, 1, 0)
    prefixes = {cached: 5, low: 9}
    assert [admit(line, prefixes) for _ in range(3)] == [cached, plain, low]


def test_who_is_set_back_stands_in_front_of_equals_but_not_of_higher_ones() -> None:
    line = WaitingLine()
    low, equal, high = joined(line, 0, 5, 9)
    back = make(5)
    line.return_first(back)
    prefixes = {equal: 9}  # which does not count before one that was set back
    assert [admit(line, prefixes) for _ in range(4)] == [high, back, equal, low]


def test_who_was_set_back_waits_for_its_token_in_flight_and_then_goes_first() -> None:
    line = WaitingLine()
    (equal,) = joined(line, 0)
    back = make()
    line.return_first(back)
    back.in_flight = 1
    assert line.candidates(lambda r: 0) == [equal]
    back.in_flight = 0
    assert admit(line) is back


@given(st.lists(st.lists(st.integers(0, 4), max_size=3), max_size=300), st.data())
def test_nobody_starves_and_each_is_admitted_once(
    arrivals: list[list[int]], data: st.DataObject
) -> None:
    """After each admission others come, of whatever priority and with whatever in the cache."""
    line, waited, served = WaitingLine(), dict[Request, int](), list[Request]()
    first = joined(line, 0)
    waited.update(dict.fromkeys(first, 0))
    for priorities in arrivals:
        for request in joined(line, *priorities):
            waited[request] = 0
        if not waited:
            break
        lucky = data.draw(st.sampled_from(sorted(waited, key=lambda r: r.handle)))
        request = admit(line, {lucky: 1})
        served.append(request)
        del waited[request]
        assert len(line) == len(waited)
        for other in waited:
            waited[other] += 1
        # The oldest of a priority is passed by equals, and each turn of its priority takes a while.
        heads = {r.priority: r for r in reversed(list(line))}
        for head in heads.values():
            assert waited[head] <= (MAX_PASSED_OVER + 2) * (MAX_OUTRANKED + len(heads))
    assert len(set(served)) == len(served)


def test_a_low_priority_has_its_turn_although_higher_ones_never_end() -> None:
    line = WaitingLine()
    low, lower = joined(line, 0, -7)
    turns = []
    for turn in range(3 * MAX_OUTRANKED):
        line.join(make(priority=1))
        if admit(line) in (low, lower):
            turns.append(turn)
    assert turns == [MAX_OUTRANKED, MAX_OUTRANKED + 1]


def test_low_priorities_take_turns_however_many_of_one_wait() -> None:
    line = WaitingLine()
    *many, lower = joined(line, *[0] * 5, -7)
    for _ in range(MAX_OUTRANKED + 2):
        line.join(make(priority=1))
        admit(line)
    assert many[0] not in line
    assert many[1] in line
    assert lower not in line


def test_more_than_a_window_of_high_ones_cannot_hide_whose_turn_it_is() -> None:
    line = WaitingLine()
    (low,) = joined(line, 0)
    joined(line, *[1] * 500)
    assert [admit(line) for _ in range(MAX_OUTRANKED + 1)][-1] is low


def test_leaving_keeps_the_others_in_order() -> None:
    line = WaitingLine()
    a, b, c = joined(line, 0, 0, 3)
    line.leave(c)
    line.leave(a)
    assert (b in line, a in line, list(line), len(line)) == (True, False, [b], 1)


@pytest.mark.parametrize("priority", [-(2**31), 0, 2**31 - 1])
def test_any_32_bit_priority_will_do(priority: int) -> None:
    line = WaitingLine()
    assert admit_only(line, priority).priority == priority


def admit_only(line: WaitingLine, priority: int) -> Request:
    joined(line, priority)
    return admit(line)
