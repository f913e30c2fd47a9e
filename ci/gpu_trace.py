"""What a profiler's trace says: where the device's time of a step went, by kind of kernel.

Works on spans of time alone, so it needs neither a device nor torch.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

DEVICE_WORK = ("kernel", "gpu_memcpy", "gpu_memset")  # categories of a Chrome trace
# The first that fits a kernel's name; fused kernels count for the first of their parts.
KINDS = {
    "GEMM": r"gemm|gemv|nvjet|cutlass|cublas|xmma|splitk|matmul|linear|wgmma",
    "merge": r"merge",
    "attention": r"attention|attend|flash|fmha",
    "rope": r"rope|rotary",
    "norm": r"norm(?!al)",
    "kv write": r"\bwrite_|kv_|_kv|page_copy",
    "act": r"activation|gated|silu|gelu|swiglu",
    "sampling": r"sampl|argmax|greedy|softmax|sort|topk|top_k|top_p|penal|philox|uniform|scan|logprob"
    "|survey|draw|narrow|\bgather_kernel|cut_kernel",
    "copies": r"memcpy|memset|copy|index|gather|scatter|embed|concat|catarray|fill",
}
OTHER = "other"
NOISE = re.compile(r"^void |at::native::|at::cuda::|\(anonymous namespace\)::|<unnamed>::")
TOP = 4  # kernels shown of each case
KERNEL_WIDTH = 98
NAME = 17  # characters of a case's name
WIDTH = 10  # of a column of figures


@dataclass(frozen=True)
class Span:
    """Something that ran on the device. Microseconds."""

    name: str
    start: float
    end: float


@dataclass(frozen=True)
class Kernel:
    name: str
    kind: str
    calls: float  # a step
    ms: float  # a step


@dataclass(frozen=True)
class Case:
    """Milliseconds a step. Where spans overlap, the time counts once: for the one that began first."""

    name: str
    steps: int
    step_ms: float  # from the first span's begin to the last one's end
    busy_ms: float  # in which anything ran
    host_ms: float  # that the host needs to plan and launch a step
    longest_gap_ms: float
    kinds: dict[str, float]
    kernels: tuple[Kernel, ...]  # most time first

    @property
    def idle(self) -> float:
        return 1 - self.busy_ms / self.step_ms if self.step_ms else 0.0


def read(trace: Path) -> list[Span]:
    """What ran on the device, of a trace in Chrome's format."""
    events = json.loads(trace.read_text())["traceEvents"]
    return [
        Span(event["name"], event["ts"], event["ts"] + event["dur"])
        for event in events
        if event.get("ph") == "X" and event.get("cat") in DEVICE_WORK
    ]


def kind_of(kernel: str) -> str:
    return next(
        (kind for kind, words in KINDS.items() if re.search(words, kernel, re.IGNORECASE)), OTHER
    )


def summarize(name: str, spans: Iterable[Span], steps: int, host_ms: float) -> Case:
    """`spans` are the device's work of `steps` steps."""
    calls, times, kinds = Counter[str](), Counter[str](), Counter[str]()
    ordered = sorted(spans, key=lambda span: span.start)
    first = reached = ordered[0].start if ordered else 0.0
    gap = 0.0
    for span in ordered:
        gap = max(gap, span.start - reached)
        alone = max(span.end - max(span.start, reached), 0.0) / steps / 1000
        calls[span.name] += 1
        times[span.name] += alone
        kinds[kind_of(span.name)] += alone
        reached = max(reached, span.end)
    return Case(
        name=name,
        steps=steps,
        step_ms=(reached - first) / steps / 1000,
        busy_ms=sum(times.values()),
        host_ms=host_ms,
        longest_gap_ms=gap / 1000,
        kinds={kind: kinds[kind] for kind in (*KINDS, OTHER)},
        kernels=tuple(
            Kernel(kernel, kind_of(kernel), calls[kernel] / steps, ms)
            for kernel, ms in times.most_common()
        ),
    )


def table(cases: Sequence[Case]) -> list[str]:
    """Plain text in fixed columns: a line for each case, then its costliest kernels."""
    kinds = (*KINDS, OTHER)
    head = ("step", "busy", "idle", "longest gap", "host", *kinds)
    widths = (8, 8, 7, 12, 8, *(WIDTH for _ in kinds))
    lines = ["ms a step".ljust(NAME) + aligned(head, widths)]
    for case in cases:
        times = (f"{case.kinds[kind]:.3f}" for kind in kinds)
        cells = (
            f"{case.step_ms:.3f}", f"{case.busy_ms:.3f}", f"{case.idle:.1%}",
            f"{case.longest_gap_ms:.3f}", f"{case.host_ms:.3f}", *times,
        )  # fmt: skip
        lines.append(case.name.ljust(NAME) + aligned(cells, widths))
    lines += ["", "costliest kernels".ljust(NAME) + aligned(("ms", "calls"), (8, 8)) + "  kind"]
    for case in cases:
        for kernel in case.kernels[:TOP]:
            shown = NOISE.sub("", kernel.name)[:KERNEL_WIDTH]
            cells = (f"{kernel.ms:.3f}", f"{kernel.calls:.1f}")
            figures = aligned(cells, (8, 8))
            lines.append(f"{case.name:<{NAME}}{figures}  {kernel.kind:<{WIDTH}}{shown}")
    return lines


def aligned(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "".join(cell.rjust(width) for cell, width in zip(cells, widths, strict=True))
