"""AMD's AITER, where it is installed: each function is called only if it is the one we were written for.

AITER has no stable interface. So the parameters of every installed function are compared with those
that we pass, before it enters the kernel table; another signature is refused with both of them.
"""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import inspect
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from inarch.hal.op import Facts, Kernel
from inarch.hal.support import Support, no, yes
from inarch_amd.architectures import family

ARCHS = ("gfx942", "gfx950")  # for which AITER has kernels of its own
DTYPES = (torch.bfloat16, torch.float16)
COST = 0.4  # it is installed to be used: better than the 0.5 of Triton's
# What is passed, in this order. Whatever else a function takes must have a default.
SIGNATURES = {
    "rms_norm": ("input", "weight", "epsilon"),
    "rmsnorm2d_fwd_with_add": (
        "out", "input", "residual_in", "residual_out", "weight", "epsilon",
    ),
    "silu_and_mul": ("out", "input"),
    "gelu_and_mul": ("out", "input"),
    "gelu_tanh_and_mul": ("out", "input"),
}  # fmt: skip
GATED = {
    "silu_mul": "silu_and_mul", "gelu_exact_mul": "gelu_and_mul", "gelu_mul": "gelu_tanh_and_mul",
}  # fmt: skip


def version() -> dict[str, str]:
    """{"aiter": its version} if it is installed."""
    for name in ("amd-aiter", "aiter"):
        try:
            return {"aiter": importlib.metadata.version(name)}
        except importlib.metadata.PackageNotFoundError:
            continue
    return {}


def aiter_kernels(arch: str) -> list[Kernel]:
    """Nothing where AITER is not installed; kernels that refuse with the reason where it does not fit."""
    if not version():
        return []
    module = _module()
    norm, add_norm = (_checked(module, name) for name in ("rms_norm", "rmsnorm2d_fwd_with_add"))
    return [
        _kernel("rms_norm", arch, norm, functools.partial(rms_norm, norm), _norm),
        _kernel("add_rms_norm", arch, add_norm, functools.partial(add_rms_norm, add_norm), _norm),
        *(
            _kernel(op, arch, found, functools.partial(gated, found), _activation)
            for op, found in ((op, _checked(module, name)) for op, name in GATED.items())
        ),
    ]


def _kernel(
    op: str,
    arch: str,
    found: Callable[..., Any] | Support,
    implementation: Callable[..., Any],
    supports: Callable[[Facts], Support],
) -> Kernel:
    def answer(facts: Facts) -> Support:
        if isinstance(found, Support):
            return found
        if family(arch) not in ARCHS:
            return no(f"AITER is written for {' and '.join(ARCHS)}, not for {family(arch)}")
        return supports(facts)

    return Kernel(op, "aiter", implementation, answer)


def _checked(module: ModuleType | Support, name: str) -> Callable[..., Any] | Support:
    """The installed function, or why it is not to be called."""
    if isinstance(module, Support):
        return module
    function = getattr(module, name, None)
    if not callable(function):
        return no(f"the installed AITER has no {name}")
    mismatch = _mismatch(function, SIGNATURES[name])
    if mismatch:
        return no(f"the installed aiter.{name} is not the one this was written for: {mismatch}")
    return function


def _module() -> ModuleType | Support:
    try:
        return importlib.import_module("aiter")
    except Exception as error:
        return no(f"AITER is installed, but cannot be imported: {type(error).__name__}: {error}")


def _mismatch(function: Callable[..., Any], passed: Sequence[str]) -> str:
    """What speaks against calling it with these arguments; empty: nothing."""
    try:
        found = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError) as error:
        return f"its parameters cannot be read ({error})"
    plain = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.POSITIONAL_ONLY)
    first, others = found[: len(passed)], found[len(passed) :]
    fits = [each.name for each in first if each.kind in plain] == list(passed)
    variable = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    needed = [each for each in others if each.default is each.empty and each.kind not in variable]
    if fits and not needed:
        return ""
    return f"it takes ({', '.join(each.name for each in found)}), not ({', '.join(passed)})"


def rms_norm(function: Callable[..., Any], x: Tensor, weight: Tensor, eps: float) -> Tensor:
    found: Tensor = function(x.contiguous(), weight, eps)
    return found


def add_rms_norm(
    function: Callable[..., Any], x: Tensor, residual: Tensor, weight: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    x, residual = x.contiguous(), residual.contiguous()
    out, total = torch.empty_like(x), torch.empty_like(x)
    function(out, x, residual, total, weight, eps)
    return out, total


def gated(function: Callable[..., Any], x: Tensor) -> Tensor:
    out = x.new_empty((*x.shape[:-1], x.shape[-1] // 2))
    function(out, x.contiguous())
    return out


def _norm(facts: Facts) -> Support:
    dtype, weight = facts["dtype"], facts["weight_dtype"]
    if weight != dtype:
        return no(f"a weight of {weight} where rows are of {dtype}: AITER's kernel takes one dtype")
    return _activation(facts)


def _activation(facts: Facts) -> Support:
    if facts["dtype"] not in DTYPES:
        return no(f"{facts['dtype']} is none of {', '.join(map(str, DTYPES))}")
    return yes(cost=COST)
