"""Compare what a device computed with what is right, and say by how much it is off."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from inarch.conformance.case import Failed
from inarch.conformance.subject import dtype_name


class _Doubled(TorchFunctionMode):
    """Whatever asks for float32 gets float64."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is Tensor.float:
            func = Tensor.double
        wide = tuple(torch.float64 if x is torch.float32 else x for x in args)
        named = {k: torch.float64 if x is torch.float32 else x for k, x in (kwargs or {}).items()}
        return func(*wide, **named)


def in_float64(function: Any, arguments: Mapping[str, Any]) -> Any:
    """What a reference gives when all of it, what it widens to float32 too, is float64."""
    with _Doubled():
        return function(**{name: doubled(value) for name, value in arguments.items()})


def doubled(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.double() if value.is_floating_point() else value.clone()
    return value


def check_close(
    what: str,
    got: Tensor,
    expected: Tensor,
    tolerance: float,
    rows: Tensor | None = None,
    slack: Tensor | None = None,
) -> float:
    """The largest error of host tensors, relative to the value and the size of the whole.

    An element is off by |got - expected| / (|expected| + rms of expected). rows: which rows count.
    slack: how far each element may be off besides. Raises Failed.
    """
    if got.shape != expected.shape:
        raise Failed(f"{what} has shape {list(got.shape)}, not {list(expected.shape)}")
    if rows is not None:
        got, expected = got[rows], expected[rows]
    if not expected.numel():
        return 0.0
    finite = expected.isfinite()
    _check_special(what, got, expected, finite)
    size = expected[finite].square().mean().sqrt() if finite.any() else torch.zeros(())
    away = (got - expected).abs()
    if slack is not None:
        away = (away - slack).clamp(min=0)
    error = away / (expected.abs() + size).clamp(min=1e-30)
    error = torch.where(finite, error, 0.0)
    worst = float(error.max())
    if worst > tolerance:
        at = _place(error)
        wrong = int((error > tolerance).sum())
        raise Failed(
            f"{what} is off by {worst:.2g} where {tolerance:.2g} is allowed, at {wrong} of "
            f"{error.numel()} places: {list(at)} is {float(got[at]):.6g}, not "
            f"{float(expected[at]):.6g}"
        )
    return worst


def _check_special(what: str, got: Tensor, expected: Tensor, finite: Tensor) -> None:
    """NaN and infinities: where they are expected, and nowhere else."""
    nan = got.isnan() & ~expected.isnan()
    if nan.any():
        raise Failed(f"{what} is NaN at {int(nan.sum())} places, first {list(_place(nan))}")
    wrong = ~finite & (got != expected) & ~(got.isnan() & expected.isnan())
    if wrong.any():
        at = _place(wrong)
        raise Failed(f"{what} at {list(at)} is {float(got[at])}, not {float(expected[at])}")


def _place(x: Tensor) -> tuple[int, ...]:
    """Of the largest element."""
    flat = int(x.double().flatten().argmax())
    return tuple(int(i) for i in torch.unravel_index(torch.tensor(flat), x.shape))


def check_equal(what: str, got: Tensor, expected: Tensor) -> None:
    """Raise Failed unless two host tensors of integers are equal."""
    if got.shape != expected.shape:
        raise Failed(f"{what} has shape {list(got.shape)}, not {list(expected.shape)}")
    different = got != expected
    if different.any():
        at = _place(different)
        raise Failed(
            f"{what} is wrong at {int(different.sum())} of {different.numel()} places: {list(at)} is "
            f"{got[at].item()}, not {expected[at].item()}"
        )


def check_dtype(what: str, tensor: Tensor, dtype: torch.dtype) -> None:
    if tensor.dtype != dtype:
        raise Failed(f"{what} is {dtype_name(tensor.dtype)}, not {dtype_name(dtype)}")


def worst(errors: Iterable[float]) -> str:
    return f"off by at most {max(errors, default=0.0):.1e}"
