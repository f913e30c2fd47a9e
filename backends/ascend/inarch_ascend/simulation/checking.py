"""Holds each call to what the wheel's Meta functions and the rules of its documentation say.

A call of an operator that no rule is written for is an error.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from inarch_ascend.simulation.memory import NPUError, tensors_and_devices
from inarch_ascend.simulation.rules import RULES

WITHOUT_META = ("npu_convert_weight_to_int4pack",)  # the wheel has no Meta function of it


def check(op: Any, args: Any, kwargs: Any) -> Callable[[Any], None] | None:
    """Refuse a wrong call; return what to do with its result."""
    if op.namespace != "npu":
        return None
    name = op.name().removeprefix("npu::")
    base = name.removesuffix(".out").removesuffix("_get_max_workspace").lstrip("_")
    given = named(op, args, kwargs)
    if name.endswith("_infer_output"):
        return None
    if base not in RULES:
        raise NPUError(f"{name} is called, and no rule says what it takes")
    rule = RULES[base]
    known = inspect.signature(rule).parameters
    set_here = {key for key, value in given.items() if value is not None}
    if unknown := set_here - set(known) - {"out", "workspace"}:
        raise NPUError(f"{name}: no rule says what {', '.join(sorted(unknown))} may be")
    rule(**{key: value for key, value in given.items() if key in known})
    if name.endswith("_get_max_workspace") or name in WITHOUT_META:
        return None
    expected = on_meta(base, {k: v for k, v in given.items() if k not in ("out", "workspace")})
    return lambda out: compare(name, expected, out)


def named(op: Any, args: Any, kwargs: Any) -> dict[str, Any]:
    """The arguments of a call by the names of its schema, defaults where none were given."""
    found = {}
    for place, argument in enumerate(op._schema.arguments):
        if place < len(args):
            found[argument.name] = args[place]
        elif argument.name in kwargs:
            found[argument.name] = kwargs[argument.name]
        elif argument.has_default_value():
            found[argument.name] = argument.default_value
    return found


def on_meta(name: str, given: Mapping[str, Any]) -> Any:
    """The result of the wheel's own Meta function."""

    def meta(value: Any) -> Any:
        if isinstance(value, Tensor):
            return torch.empty_strided(
                value.shape, value.stride(), dtype=value.dtype, device="meta"
            )
        return [meta(x) for x in value] if isinstance(value, list) else value

    packet = getattr(torch.ops.npu, name)
    default = packet.default
    positional = [meta(given[a.name]) for a in default._schema.arguments if not a.kwarg_only]
    keywords = {a.name: meta(given[a.name]) for a in default._schema.arguments if a.kwarg_only}
    try:
        return default(*positional, **keywords)
    except Exception as error:
        raise NPUError(f"{name}: the wheel's Meta function refuses: {error}") from error


def compare(name: str, expected: Any, out: Any) -> None:
    """Our own arithmetic must give what the wheel says that the operator gives."""
    shapes = [
        [(tuple(x.shape), x.dtype) for x in tensors_and_devices((tree,))]
        for tree in (expected, out)
    ]
    if shapes[0] != shapes[1]:
        raise NPUError(f"{name}: the wheel promises {shapes[0]}, computed were {shapes[1]}")
