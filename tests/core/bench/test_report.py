"""Figures from records: the definitions, worked by hand."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from inarch.bench import BenchError
from inarch.bench.record import Record
from inarch.bench.report import (
    Distribution,
    as_json,
    in_flight,
    notes,
    percentile,
    summarize,
    write_json,
)

FAST = Record(
    index=0, due_s=0.0, sent_s=1.0, text_s=(1.5, 1.7, 1.8), input_tokens=10, output_tokens=3,
    wanted_tokens=3,
)  # fmt: skip
MERGED = Record(
    index=1, due_s=1.0, sent_s=1.25, text_s=(2.25, 3.0), input_tokens=20, output_tokens=7,
    wanted_tokens=7,
)  # fmt: skip
FAILED = Record(
    index=2, due_s=0.0, sent_s=0.5, text_s=(9.0,), input_tokens=5, output_tokens=1,
    wanted_tokens=4, error="HTTP 500: oops",
)  # fmt: skip


def test_latencies_of_one_request() -> None:
    assert FAST.ttft_s == pytest.approx(0.5)
    assert FAST.gaps_s == pytest.approx([0.2, 0.1])
    assert FAST.tpot_s == pytest.approx(0.15)
    assert FAST.e2e_s == pytest.approx(0.8)
    assert MERGED.tpot_s == pytest.approx(0.125)  # by tokens, though there were two events


def test_an_answer_of_one_token_has_no_time_per_output_token() -> None:
    single = replace(FAST, text_s=(1.5,), output_tokens=1)
    assert single.tpot_s is None
    assert summarize([single], 1).tpot_ms is None
    assert summarize([single], 1).itl_ms is None


def test_rates_are_over_the_time_from_the_first_request_to_the_last_text() -> None:
    summary = summarize([FAST, MERGED], 2)
    assert summary.wall_s == 2.0
    assert (summary.input_tokens, summary.output_tokens, summary.text_events) == (30, 10, 5)
    assert summary.output_tok_per_s == 5.0
    assert summary.total_tok_per_s == 20.0
    assert summary.requests_per_s == 1.0
    assert summary.mean_in_flight == pytest.approx((0.8 + 1.75) / 2, abs=0.01)
    assert summary.max_in_flight == 2


def test_distributions_are_over_requests_except_gaps_which_are_over_all_events() -> None:
    summary = summarize([FAST, MERGED], 2)
    assert summary.ttft_ms is not None
    assert summary.ttft_ms.mean == pytest.approx(750)
    assert summary.itl_ms is not None
    assert summary.itl_ms.mean == pytest.approx(350)
    assert summary.itl_ms.p99 == pytest.approx(750)
    assert summary.late_ms is not None
    assert summary.late_ms.p99 == pytest.approx(1000)


def test_failed_requests_are_counted_and_change_no_other_figure() -> None:
    clean, summary = summarize([FAST, MERGED], 2), summarize([FAST, FAILED, MERGED], 4)
    assert (summary.completed, summary.failed, summary.unfinished) == (2, 1, 1)
    assert summary.first_error == "HTTP 500: oops"
    same = replace(summary, requests=2, failed=0, unfinished=0, first_error=None)
    assert same == clean


def test_percentiles_are_nearest_rank() -> None:
    values = [float(i) for i in range(1, 101)]
    assert [percentile(values, p) for p in (50, 90, 99)] == [51.0, 91.0, 100.0]
    assert percentile([4.0], 99) == 4.0
    assert Distribution.of([]) is None
    assert Distribution.of([0.001, 0.003]) == Distribution(mean=2.0, p50=3.0, p90=3.0, p99=3.0)


def test_a_request_that_ends_as_another_begins_does_not_overlap_it() -> None:
    after = replace(FAST, sent_s=FAST.text_s[-1], text_s=(2.0,))
    assert in_flight([FAST, after]) == [(1.0, 1), (1.8, 0), (1.8, 1), (2.0, 0)]


def test_nothing_finished_gives_empty_figures() -> None:
    summary = summarize([], 5)
    assert summary.unfinished == 5
    assert summary.output_tok_per_s is None
    assert summary.ttft_ms is None
    json.dumps(as_json("serve", {}, summary, []), allow_nan=False)


def test_a_clean_run_needs_no_notes() -> None:
    assert notes(summarize([replace(FAST, due_s=1.0)], 1), open_loop=True) == []


def test_notes_tell_what_spoils_the_figures() -> None:
    lines = notes(summarize([FAST, MERGED, FAILED], 4), open_loop=True)
    assert any("1 of 4 not finished" in line for line in lines)
    assert any("1 failed; the first: HTTP 500: oops" in line for line in lines)
    assert any("2.00 tokens come in one event: compare TPOT" in line for line in lines)
    assert any("sent late (p99 1000 ms)" in line for line in lines)


def test_lateness_is_expected_when_requests_wait_for_each_other() -> None:
    assert notes(summarize([FAST], 1), open_loop=False) == []


def test_notes_tell_of_guessed_counts_and_other_lengths() -> None:
    guessed, short = replace(FAST, counted=False), replace(FAST, wanted_tokens=9)
    assert "1 answers without token counts" in notes(summarize([guessed], 1), open_loop=False)[0]
    assert "1 answers are not as long" in notes(summarize([short], 1), open_loop=False)[0]


def test_the_file_holds_the_settings_the_figures_the_host_and_a_row_for_each_request(
    tmp_path: Path,
) -> None:
    path = tmp_path / "run.json"
    records = [FAST, FAILED]
    write_json(path, as_json("serve", {"seed": 3}, summarize(records, 2), records))
    document = json.loads(path.read_text())
    assert document["benchmark"] == "serve"
    assert document["config"] == {"seed": 3}
    assert document["summary"]["ttft_ms"]["p50"] == 500.0
    assert {"date", "host"} <= document.keys()
    assert document["requests"][0]["e2e_ms"] == 800.0
    assert document["requests"][1]["ttft_ms"] is None
    assert document["requests"][1]["error"] == "HTTP 500: oops"


def test_a_file_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="cannot write"):
        write_json(tmp_path, {})
