"""What a run amounts to: figures from records, and the file that keeps them.

Percentiles are nearest-rank, without interpolation: every figure is a time that was measured.
"""

from __future__ import annotations

import dataclasses
import datetime
import json
import os
import platform
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inarch.bench import BenchError
from inarch.bench.record import Record

MERGED = 1.05  # tokens per event from which ITL is no longer that of tokens
LATE_MS = 100.0  # a client later than this is itself the bottleneck


@dataclass(frozen=True, slots=True)
class Distribution:
    """Of times in milliseconds."""

    mean: float
    p50: float
    p90: float
    p99: float

    @staticmethod
    def of(seconds: Iterable[float]) -> Distribution | None:
        """None when there is nothing to describe."""
        values = sorted(s * 1000 for s in seconds)
        if not values:
            return None
        p50, p90, p99 = (round(percentile(values, p), 3) for p in (50, 90, 99))
        return Distribution(round(sum(values) / len(values), 3), p50, p90, p99)


@dataclass(frozen=True, slots=True)
class Summary:
    """The figures of one run; rates are over the time from the first request to the last text."""

    requests: int
    completed: int
    failed: int
    unfinished: int  # cut off by Ctrl-C
    first_error: str | None
    wall_s: float
    input_tokens: int
    output_tokens: int
    text_events: int
    uncounted: int  # answers without token counts from the server: events and words counted instead
    other_length: int  # answers that are not as long as asked for
    output_tok_per_s: float | None
    total_tok_per_s: float | None
    requests_per_s: float | None
    mean_in_flight: float | None
    max_in_flight: int
    ttft_ms: Distribution | None
    itl_ms: Distribution | None
    tpot_ms: Distribution | None
    e2e_ms: Distribution | None
    late_ms: Distribution | None  # sent later than planned

    @property
    def tokens_per_event(self) -> float:
        return self.output_tokens / self.text_events if self.text_events else 0.0


def summarize(records: Sequence[Record], planned: int) -> Summary:
    """The figures of a run of `planned` requests; times and tokens are those of completed ones."""
    good = [r for r in records if r.ok]
    errors = [r.error or "the answer holds no text" for r in records if not r.ok]
    start = min((r.sent_s for r in good), default=0.0)
    wall_s = max((r.text_s[-1] for r in good), default=start) - start
    inputs, outputs = sum(r.input_tokens for r in good), sum(r.output_tokens for r in good)
    return Summary(
        requests=planned,
        completed=len(good),
        failed=len(errors),
        unfinished=planned - len(records),
        first_error=errors[0] if errors else None,
        wall_s=round(wall_s, 3),
        input_tokens=inputs,
        output_tokens=outputs,
        text_events=sum(len(r.text_s) for r in good),
        uncounted=sum(not r.counted for r in good),
        other_length=sum(r.output_tokens != r.wanted_tokens for r in good),
        output_tok_per_s=_rate(outputs, wall_s),
        total_tok_per_s=_rate(inputs + outputs, wall_s),
        requests_per_s=_rate(len(good), wall_s),
        mean_in_flight=_rate(sum(r.e2e_s for r in good), wall_s),
        max_in_flight=max((n for _, n in in_flight(good)), default=0),
        ttft_ms=Distribution.of(r.ttft_s for r in good),
        itl_ms=Distribution.of(gap for r in good for gap in r.gaps_s),
        tpot_ms=Distribution.of(r.tpot_s for r in good if r.tpot_s is not None),
        e2e_ms=Distribution.of(r.e2e_s for r in good),
        late_ms=Distribution.of(r.sent_s - r.due_s for r in good),
    )


def notes(summary: Summary, *, open_loop: bool) -> list[str]:
    """What a reader must know before trusting the figures.

    `open_loop`: requests arrive at a rate and wait for no other, so lateness is the client's fault.
    """
    lines = []
    if summary.unfinished:
        lines.append(f"interrupted: {summary.unfinished} of {summary.requests} not finished")
    if summary.failed:
        lines.append(f"{summary.failed} failed; the first: {summary.first_error}")
    if summary.uncounted:
        lines.append(
            f"{summary.uncounted} answers without token counts from the server: their text events "
            "are counted as output tokens, and words as input tokens"
        )
    elif summary.other_length:
        lines.append(f"{summary.other_length} answers are not as long as was asked for")
    if not summary.uncounted and summary.tokens_per_event > MERGED:
        lines.append(
            f"{summary.tokens_per_event:.2f} tokens come in one event: compare TPOT, not ITL"
        )
    if open_loop and summary.late_ms and summary.late_ms.p99 > LATE_MS:
        lines.append(
            f"the client sent late (p99 {summary.late_ms.p99:.0f} ms): use more --processes, "
            "or another machine, for this rate"
        )
    return lines


def percentile(ordered: Sequence[float], p: float) -> float:
    """The value at rank p % of values in ascending order."""
    return ordered[min(len(ordered) - 1, int(p / 100 * len(ordered)))]


def in_flight(records: Iterable[Record]) -> list[tuple[float, int]]:
    """(seconds, requests in flight from then on), in order, for completed requests."""
    changes = [change for r in records for change in ((r.sent_s, 1), (r.text_s[-1], -1))]
    steps, count = [], 0
    for time_s, change in sorted(changes):
        count += change
        steps.append((time_s, count))
    return steps


def as_json(
    benchmark: str, config: dict[str, Any], summary: Summary, records: Iterable[Record]
) -> dict[str, Any]:
    """What is worth keeping of a run: when, where, how, the figures, and a row for each request."""
    now = datetime.datetime.now().astimezone()
    return {
        "benchmark": benchmark,
        "date": now.isoformat(timespec="seconds"),
        "host": {
            "name": platform.node(),
            "platform": platform.platform(),
            "python": platform.python_version(),
            "cpus": os.cpu_count(),
        },
        "config": config,
        "summary": dataclasses.asdict(summary),
        "requests": [_row(record) for record in records],
    }


def write_json(path: Path, document: dict[str, Any]) -> None:
    """Raises BenchError when the file cannot be written."""
    try:
        path.write_text(json.dumps(document, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    except OSError as error:
        raise BenchError(f"cannot write {path}: {error.strerror}") from None


def _row(record: Record) -> dict[str, Any]:
    ok = record.ok
    return {
        "index": record.index,
        "sent_s": round(record.sent_s, 6),
        "ttft_ms": _milliseconds(record.ttft_s) if ok else None,
        "tpot_ms": _milliseconds(record.tpot_s) if ok else None,
        "e2e_ms": _milliseconds(record.e2e_s) if ok else None,
        "input_tokens": record.input_tokens,
        "output_tokens": record.output_tokens,
        "text_events": len(record.text_s),
        "error": record.error,
    }


def _milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 3)


def _rate(amount: float, wall_s: float) -> float | None:
    return round(amount / wall_s, 2) if wall_s > 0 else None
