"""A run as a picture: how latencies are distributed, and how load and throughput went over time.

matplotlib is optional (`pip install inarch[bench]`) and imported only here, without the global
state of pyplot.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inarch.bench import BenchError
from inarch.bench.record import Record
from inarch.bench.report import in_flight, percentile

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BINS = 60  # points of the throughput curve, at most
NARROWEST_BIN_S = 0.05
SHORTEST_MS = 0.01  # two events of one packet have no gap, and a logarithm needs one
INK, MUTED, GRID = "#1f2933", "#5f6b7a", "#e3e7ec"
COLOURS = {"TTFT": "#c2410c", "ITL": "#1d4ed8", "throughput": "#0f766e", "in flight": "#64748b"}


def check_plotting() -> None:
    """Raise BenchError when matplotlib is missing: before a long run, not after it."""
    if importlib.util.find_spec("matplotlib") is None:
        raise BenchError("a plot needs matplotlib: pip install 'inarch[bench]'")


def write_plot(path: Path, title: str, subtitle: str, records: Sequence[Record]) -> None:
    """Draw completed requests into a PNG, SVG or PDF file, as `path` ends.

    Raises BenchError when nothing completed, or when the file cannot be written.
    """
    check_plotting()
    from matplotlib.figure import Figure

    good = [record for record in records if record.ok]
    if not good:
        raise BenchError(f"no request completed: there is nothing to draw in {path}")
    figure = Figure(figsize=(12, 5.2), dpi=150, facecolor="white")
    grid = figure.add_gridspec(
        2, 2, height_ratios=(2, 1), left=0.07, right=0.975, top=0.8, bottom=0.115,
        wspace=0.17, hspace=0.27,
    )  # fmt: skip
    figure.text(0.07, 0.945, title, fontsize=14, fontweight="bold", color=INK)
    figure.text(0.07, 0.9, subtitle, fontsize=9.5, color=MUTED)
    _draw_latencies(figure.add_subplot(grid[:, 0]), good)
    upper = figure.add_subplot(grid[0, 1])
    _draw_throughput(upper, good)
    _draw_in_flight(figure.add_subplot(grid[1, 1], sharex=upper), good)
    try:
        figure.savefig(path)
    except (OSError, ValueError) as error:
        raise BenchError(f"cannot write {path}: {error}") from None


def _draw_latencies(axes: Axes, records: Sequence[Record]) -> None:
    """Cumulative distributions of TTFT and ITL, in ms, each with its median and p99."""
    from matplotlib.ticker import LogLocator, NullLocator

    curves = {
        "ITL": sorted(max(gap * 1000, SHORTEST_MS) for r in records for gap in r.gaps_s),
        "TTFT": sorted(max(r.ttft_s * 1000, SHORTEST_MS) for r in records),
    }
    _dress(axes, "")
    drawn = {name: values for name, values in curves.items() if values}
    for name, values in drawn.items():
        _draw_curve(axes, name, values)
    # A few gaps near zero (two events in one packet) would squeeze everything else to the right.
    left = 0.5 * min(percentile(values, 10) for values in drawn.values())
    right = 1.3 * max(values[-1] for values in drawn.values())
    axes.set_xlim(left, right)
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(
        LogLocator(subs=(1.0, 2.0, 5.0) if right < 2000 * left else (1.0,))
    )
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_ylim(0, 1.02)
    axes.set_yticks([0, 0.25, 0.5, 0.75, 0.9, 0.99], ["0", "25 %", "50 %", "75 %", "90 %", "99 %"])
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.10g}")
    axes.set_ylabel("share of values below", color=MUTED)
    axes.set_xlabel("latency in milliseconds (log scale)", color=MUTED)
    axes.legend(
        loc="lower left", bbox_to_anchor=(-0.02, 0.985), ncols=2, frameon=False, fontsize=10,
        labelcolor="linecolor", handlelength=1.2, columnspacing=1.2,
    )  # fmt: skip


def _draw_curve(axes: Axes, name: str, values: Sequence[float]) -> None:
    shares = [(i + 1) / len(values) for i in range(len(values))]
    p50, p99 = percentile(values, 50), percentile(values, 99)
    label = f"{name} p50 {_short(p50)} · p99 {_short(p99)} ms"
    axes.step(values, shares, where="post", color=COLOURS[name], linewidth=2, label=label)
    axes.plot([p50, p99], [0.5, 0.99], "o", color=COLOURS[name], markersize=5, zorder=5)


def _draw_throughput(axes: Axes, records: Sequence[Record]) -> None:
    """Output tokens a second, over the run."""
    times, rates = throughput(records)
    _dress(axes, "Output tokens per second")
    axes.stairs(rates, times, color=COLOURS["throughput"], fill=True, alpha=0.18)
    axes.stairs(rates, times, color=COLOURS["throughput"], linewidth=1.8, baseline=None)
    mean = sum(r.output_tokens for r in records) / (times[-1] - times[0])
    axes.axhline(mean, color=COLOURS["throughput"], linewidth=1, linestyle=(0, (4, 3)))
    axes.annotate(
        f"mean {_short(mean)}", (1, mean), xycoords=("axes fraction", "data"), xytext=(-4, 4),
        textcoords="offset points", ha="right", fontsize=9, color=COLOURS["throughput"],
    )  # fmt: skip
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.10g}")
    axes.tick_params(labelbottom=False)


def _draw_in_flight(axes: Axes, records: Sequence[Record]) -> None:
    from matplotlib.ticker import MaxNLocator

    steps = in_flight(records)
    times, counts = [t for t, _ in steps], [n for _, n in steps]
    _dress(axes, "Requests in flight")
    colour = COLOURS["in flight"]
    axes.fill_between(times, counts, step="post", color=colour, alpha=0.25, linewidth=0)
    axes.step(times, counts, where="post", color=colour, linewidth=1.5)
    axes.set_ylim(0, max(counts) * 1.15)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=4, integer=True))
    axes.set_xlabel("seconds since the start", color=MUTED)


def throughput(records: Sequence[Record]) -> tuple[list[float], list[float]]:
    """(edges of equal bins in seconds, output tokens a second in each bin).

    A request's tokens are spread evenly over its events, since a server may merge tokens.
    """
    start, end = min(r.sent_s for r in records), max(r.text_s[-1] for r in records)
    bins = max(1, min(BINS, int((end - start) / NARROWEST_BIN_S)))
    width = max(end - start, 1e-9) / bins
    tokens = [0.0] * bins
    for record in records:
        weight = record.output_tokens / len(record.text_s)
        for time_s in record.text_s:
            tokens[min(bins - 1, int((time_s - start) / width))] += weight
    return [start + i * width for i in range(bins + 1)], [count / width for count in tokens]


def _dress(axes: Axes, title: str) -> None:
    axes.set_title(title, loc="left", fontsize=10.5, color=INK, pad=6)
    axes.grid(True, color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=MUTED, labelsize=9, length=0)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(MUTED)


def _short(value: Any) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
