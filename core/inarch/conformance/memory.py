"""Traps in memory: guard bands round what a kernel is given, poison in what it allocates.

A kernel that reads past a tensor meets NaN, one that writes past it leaves a trace, and one that
relies on fresh memory being zero shows that in its answer.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from inarch.conformance.case import Failed
from inarch.conformance.subject import Subject

GUARD = 64  # elements on either side: a multiple of every alignment that kernels ask for
INTEGER = -0x5A5A5A5B  # as an index it is far outside
aten = torch.ops.aten
FRESH = (
    aten.empty.memory_format,
    aten.empty_strided.default,
    aten.empty_like.default,
    aten.new_empty.default,
    aten.new_empty_strided.default,
)


def poison(dtype: torch.dtype) -> float | int | bool:
    if dtype.is_floating_point:
        return float("nan")
    if dtype == torch.bool:
        return True
    return max(INTEGER, torch.iinfo(dtype).min)


class Guarded:
    """A host tensor on the device with a guard band before and behind it: `tensor`.

    gap: elements of guard band behind each row too, as rows have that are part of wider ones.
    weight: whether it lies where models find their weights.
    """

    def __init__(
        self, subject: Subject, host: Tensor, gap: int = 0, *, weight: bool = False
    ) -> None:
        self._subject = subject
        rows = host.reshape(len(host), -1) if gap else host.reshape(1, -1)
        framed = torch.full((len(rows) + 2, max(rows.shape[1] + gap, GUARD)), 0, dtype=host.dtype)
        framed.fill_(poison(host.dtype))
        framed[1:-1, : rows.shape[1]] = rows
        self._inside = torch.zeros(framed.shape, dtype=torch.bool)
        self._inside[1:-1, : rows.shape[1]] = True
        self._whole = subject.load(framed) if weight else subject.upload(framed)
        self._before = subject.download(self._whole)
        self.tensor = self._whole[1:-1, : rows.shape[1]].view(host.shape)

    def check(self, name: str, *, writable: bool) -> None:
        """Raise Failed if a guard band changed, or the tensor although it may not."""
        after = self._subject.download(self._whole)
        changed = ~same(self._before, after)
        if (changed & ~self._inside).any():
            raise Failed(f"memory outside the argument {name!r} was written to")
        if changed.any() and not writable:
            raise Failed(
                f"the argument {name!r} was written to, at {int(changed.sum())} of "
                f"{int(self._inside.sum())} places: it is not called dead"
            )


def same(a: Tensor, b: Tensor) -> Tensor:
    """Where two host tensors hold the same, NaN included."""
    if not a.is_floating_point():
        return a == b
    return (a == b) | (a.isnan() & b.isnan())


class _Fresh(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Gives whoever asks torch for fresh memory a piece of poisoned memory between guard bands."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.given: list[Tensor] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if func not in FRESH or not out.is_contiguous() or not out.numel():
            return out
        shape = (out.numel() + 2 * GUARD,)
        whole = torch.full(shape, poison(out.dtype), dtype=out.dtype, device=out.device)
        self.given.append(whole)
        return whole[GUARD:-GUARD].view(out.shape)


@contextmanager
def poisoned(subject: Subject) -> Iterator[None]:
    """While it holds, memory that is taken through torch is poisoned, and guarded.

    Raises Failed at its end if something was written past it. Memory that a compiled library takes
    by itself is out of reach.
    """
    mode = _Fresh()
    with mode:
        yield
    for whole in mode.given:
        if whole.dtype.is_floating_point and whole.dtype.itemsize > 1:
            bands = subject.download(torch.cat((whole[:GUARD], whole[-GUARD:])))
            if not bands.isnan().all():
                raise Failed("memory past the end of a tensor that it allocated was written to")


class Arguments:
    """The arguments of a call, tensors among them on the device and guarded.

    strided: those whose rows are to be part of wider ones, as what a fused projection gives is.
    weights: those that lie where models find their weights.
    """

    def __init__(
        self,
        subject: Subject,
        host: Mapping[str, Any],
        strided: Collection[str] = (),
        weights: Collection[str] = (),
    ) -> None:
        self._guarded = {
            name: Guarded(subject, value, GUARD if name in strided else 0, weight=name in weights)
            for name, value in host.items()
            if isinstance(value, Tensor)
        }
        self.values = {
            name: self._guarded[name].tensor if name in self._guarded else value
            for name, value in host.items()
        }

    def check(self, writable: Collection[str]) -> None:
        for name, guarded in self._guarded.items():
            guarded.check(name, writable=name in writable)
