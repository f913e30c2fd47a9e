"""The benchmark table as a picture: how far each figure is from its goal, and from its floor."""

from __future__ import annotations

import importlib.util
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

INK, MUTED, GRID, REACHED, MISSED = "#1f2933", "#5f6b7a", "#e3e7ec", "#0f766e", "#c2410c"
PEERS = {"SGLang": "o", "vLLM": "s", "floor": "|"}


def write_plot(path: Path, result: Any, rows: Mapping[str, Any]) -> None:
    """Bars of Inarch's speed as a share of the goal, with marks for the others; nothing without
    matplotlib."""
    if importlib.util.find_spec("matplotlib") is None:
        print(f"{path} is not drawn: matplotlib is not installed")
        return
    from matplotlib.figure import Figure

    figures = [f for row in rows.values() for f in row.figures if result.figures.get(f.name)]
    picture = Figure(figsize=(9, 1.6 + 0.42 * len(figures)), dpi=150, facecolor="white")
    axes = picture.add_subplot()
    for place, figure in enumerate(figures):
        share = speed(figure, statistics.mean(result.figures[figure.name]))
        axes.barh(place, share, height=0.55, color=REACHED if share >= 1 else MISSED, alpha=0.85)
        for (name, mark), text in zip(
            PEERS.items(), (figure.sglang, figure.vllm, figure.floor), strict=True
        ):
            if text:
                axes.plot(
                    speed(figure, middle(text)), place, mark, color=INK, markersize=6,
                    label=name if place == 0 else None, markerfacecolor="white",
                )  # fmt: skip
    axes.axvline(1, color=INK, linewidth=1)
    axes.set_yticks(range(len(figures)), [f.name for f in figures], fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel(
        "speed as a share of the goal; further right is faster", color=MUTED, fontsize=8
    )
    axes.set_title(f"Inarch on {result.device}, {result.date}", loc="left", fontsize=10, color=INK)
    axes.grid(True, axis="x", color=GRID)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, colors=MUTED, labelsize=8)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.legend(loc="lower right", frameon=False, fontsize=8)
    picture.tight_layout()
    picture.savefig(path)


def speed(figure: Any, value: float) -> float:
    """1.0 at the goal, more if faster."""
    ratio: float = value / figure.goal
    return 1 / ratio if figure.less_is_better and ratio else ratio


def middle(text: str) -> float:
    """Of a figure of the table: "5.2", or a range like "4,600-5,400"."""
    values = [float(part.replace(",", "")) for part in text.split("-")]
    return sum(values) / len(values)
