"""The processes of the load generator, against a server that counts the requests in flight."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from inarch.bench import BenchError
from inarch.bench.client import Target
from inarch.bench.fleet import Load, Pulse, make_shares, run_load
from inarch.bench.record import Record
from inarch.bench.workload import BenchRequest


def target(url: str, **body: Any) -> Target:
    return Target(url, "completions", {"model": "stub", **body}, {}, timeout_s=60.0)


def requests(count: int, spacing_s: float = 0.0) -> list[BenchRequest]:
    return [BenchRequest(i, f"number {i}", 2, 4, i * spacing_s) for i in range(count)]


def load(
    url: str, asked: list[BenchRequest], concurrency: int | None = None, processes: int = 2
) -> Load:
    return run_load(make_shares(target(url), asked, concurrency, processes), lambda *_: None)


@pytest.mark.parametrize("concurrency", [1, 5])
def test_as_many_requests_as_allowed_are_in_flight_and_never_more(
    start_stub: Callable[..., Any], concurrency: int
) -> None:
    stub = start_stub(gate=concurrency)  # with fewer in flight, no request would ever be answered
    records = load(stub.url, requests(24), concurrency).records
    assert [record.error for record in records] == [None] * 24
    assert stub.max_in_flight == concurrency


def test_without_a_limit_all_requests_are_in_flight_at_once(
    start_stub: Callable[..., Any],
) -> None:
    stub = start_stub(gate=24)
    assert all(record.ok for record in load(stub.url, requests(24)).records)


@pytest.mark.parametrize("concurrency", [None, 3])
def test_every_request_is_sent_once_and_records_come_in_order(
    start_stub: Callable[..., Any], concurrency: int | None
) -> None:
    stub = start_stub()
    outcome = load(stub.url, requests(25), concurrency)
    assert sorted(body["prompt"] for body in stub.bodies) == sorted(
        f"number {i}" for i in range(25)
    )
    assert [record.index for record in outcome.records] == list(range(25))
    assert not outcome.interrupted


@pytest.mark.parametrize("concurrency", [None, 2])
def test_no_request_is_sent_before_its_time(
    start_stub: Callable[..., Any], concurrency: int | None
) -> None:
    asked = requests(8, spacing_s=0.02)
    records = load(start_stub().url, asked, concurrency).records
    assert [record.due_s for record in records] == [request.offset_s for request in asked]
    assert all(record.sent_s >= record.due_s for record in records)


def test_the_work_is_divided_over_no_more_processes_than_are_worth_it() -> None:
    def sizes(count: int, concurrency: int | None, processes: int) -> list[int]:
        shares = make_shares(target("http://x"), requests(count), concurrency, processes)
        return [share.slots for share in shares]

    assert sizes(100, None, 4) == [25, 25, 25, 25]
    assert sizes(100, 6, 4) == [2, 2, 1, 1]
    assert sizes(100, 2, 4) == [1, 1]
    assert sizes(3, None, 4) == [3]
    assert sizes(3, 50, 4) == [3]


def test_watchers_see_every_record_and_the_state_of_all_workers(
    start_stub: Callable[..., Any],
) -> None:
    seen: list[Record] = []
    pulses: list[Pulse] = []

    def watch(record: Record | None, pulse: Pulse) -> None:
        pulses.append(pulse)
        if record is not None:
            seen.append(record)

    shares = make_shares(target(start_stub().url), requests(12), None, 2)
    records = run_load(shares, watch).records
    assert sorted(seen, key=lambda record: record.index) == records
    assert pulses[-1] == Pulse(in_flight=0, text_events=12 * 4)


def test_the_failure_of_some_requests_leaves_the_others_alone(
    start_stub: Callable[..., Any],
) -> None:
    stub = start_stub(refuse=lambda body: "odd" if int(body["prompt"].split()[1]) % 2 else None)
    records = load(stub.url, requests(10)).records
    assert [record.ok for record in records] == [True, False] * 5


def test_a_client_process_that_dies_is_reported(capfd: pytest.CaptureFixture[str]) -> None:
    unsendable = target("http://127.0.0.1:1", field=object())  # JSON cannot hold it
    with pytest.raises(BenchError, match="a client process died"):
        run_load(make_shares(unsendable, requests(4), None, 1), lambda *_: None)
    assert "Traceback" in capfd.readouterr().err
