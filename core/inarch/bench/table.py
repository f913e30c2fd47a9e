"""A run's figures for the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from inarch.bench.report import Distribution, Summary

LATENCIES = (
    ("TTFT", "time to first token", "ttft_ms"),
    ("ITL", "inter-token latency", "itl_ms"),
    ("TPOT", "time per output token", "tpot_ms"),
    ("E2E", "whole request", "e2e_ms"),
)


def print_summary(
    console: Console, title: str, subtitle: str, summary: Summary, notes: Sequence[str]
) -> None:
    console.print()
    console.print(f"[bold]{escape(title)}[/bold]")
    console.print(f"[dim]{escape(subtitle)}[/dim]")
    console.print()
    console.print(_throughput(summary))
    console.print()
    console.print(_latencies(summary))
    for note in notes:
        console.print(f"[yellow]note[/yellow]  {escape(note)}", soft_wrap=True)


def _throughput(summary: Summary) -> Table:
    table = Table.grid(padding=(0, 3))
    table.add_column()
    table.add_column(justify="right", style="bold")
    table.add_column(style="dim")
    done = f"{summary.completed:,} of {summary.requests:,}"
    failed = f"[red]{summary.failed:,} failed[/red]" if summary.failed else "none failed"
    in_flight = f"{number(summary.mean_in_flight)} in flight on average"
    table.add_row("Requests", done, f"{failed} in {summary.wall_s:,.2f} s")
    table.add_row("Request rate", f"{number(summary.requests_per_s, 2)} req/s", in_flight)
    output = f"{summary.output_tokens:,} tokens in {summary.text_events:,} events"
    table.add_row("Output", f"{number(summary.output_tok_per_s)} tok/s", output)
    total = f"{summary.input_tokens:,} input tokens besides"
    table.add_row("Input + output", f"{number(summary.total_tok_per_s)} tok/s", total)
    return table


def _latencies(summary: Summary) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    table.add_column("milliseconds")
    for heading in ("mean", "p50", "p90", "p99"):
        table.add_column(heading, justify="right", min_width=9)
    for name, meaning, attribute in LATENCIES:
        times: Distribution | None = getattr(summary, attribute)
        cells = (times.mean, times.p50, times.p90, times.p99) if times else (None,) * 4
        table.add_row(f"{name:<5} [dim]{meaning}[/dim]", *(number(cell, 2) for cell in cells))
    return table


def number(value: float | None, digits: int = 1) -> str:
    return "-" if value is None else f"{value:,.{digits}f}"
