"""A profile as a picture: each case one bar of milliseconds a step, stacked by kind of kernel."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path

from gpu_plot import INK, MUTED
from gpu_trace import KINDS, OTHER, Case

IDLE = "idle"
LEAST_LABEL = 0.06  # share of a bar that is wide enough for its figure
COLORS = (
    *("#0f766e", "#7dd3c0", "#2563eb", "#93c5fd", "#7c3aed"),
    *("#c4b5fd", "#c2410c", "#eab308", "#94a3b8", "#475569"),
)


def write_plot(path: Path, title: str, cases: Sequence[Case]) -> None:
    """Nothing without matplotlib, or without a case in which anything ran."""
    shown = [case for case in cases if case.step_ms]
    if importlib.util.find_spec("matplotlib") is None or not shown:
        print(f"{path} is not drawn: there is {'no matplotlib' if shown else 'nothing to show'}")
        return
    from matplotlib.figure import Figure

    picture = Figure(figsize=(10, 1.7 + 0.45 * len(shown)), dpi=150, facecolor="white")
    axes = picture.add_subplot()
    left = [0.0] * len(shown)
    for kind, color in zip((*KINDS, OTHER, IDLE), (*COLORS, "#f1f5f9"), strict=True):
        shares = [share(case, kind) for case in shown]
        axes.barh(
            range(len(shown)), shares, left=left, height=0.62, color=color, label=kind,
            edgecolor="#cbd5e1" if kind == IDLE else "white", linewidth=0.6,
        )  # fmt: skip
        for place, (case, part) in enumerate(zip(shown, shares, strict=True)):
            if part >= LEAST_LABEL:
                text = f"{part * case.step_ms:.2f}"
                dark = INK if kind == IDLE else "white"
                axes.text(left[place] + part / 2, place, text, ha="center", va="center",
                          fontsize=7, color=dark)  # fmt: skip
            left[place] += part
    names = [f"{case.name}: {case.step_ms:.2f} ms" for case in shown]
    axes.set_yticks(range(len(shown)), names, fontsize=8)
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    axes.set_xlabel("share of a step; figures are milliseconds", color=MUTED, fontsize=8)
    axes.set_title(title, loc="left", fontsize=10, color=INK)
    axes.tick_params(length=0, colors=MUTED, labelsize=8)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False, fontsize=8)
    picture.tight_layout()
    picture.savefig(path)


def share(case: Case, kind: str) -> float:
    return case.idle if kind == IDLE else case.kinds[kind] / case.step_ms
