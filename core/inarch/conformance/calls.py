"""Cases of ordinary ops: call a kernel with generated arguments, compare with the op in float64."""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from inarch.conformance.case import Case, Failed, generator, require
from inarch.conformance.compare import check_close, check_dtype, check_equal, in_float64, worst
from inarch.conformance.memory import Arguments, poisoned
from inarch.conformance.subject import Candidate, Subject, dtype_name
from inarch.hal.op import Op

Make = Callable[[np.random.Generator], dict[str, Any]]
Outputs = tuple[Any, ...]


@dataclass(frozen=True)
class Example:
    """One call of an op.

    facts: what models bind it with. make: its arguments by name, tensors on the host; all of them
    up to the keyword-only ones, in order. dead: those that may be written to. strided: those whose
    rows lie apart. seen: what of the outputs, on the host, counts. accepted: more answers that are right,
    beside the op's own.
    """

    op: Op[..., Any]
    name: str
    dtype: torch.dtype
    facts: Mapping[str, Any]
    make: Make
    dead: Collection[str] = ()
    strided: Collection[str] = ()
    seen: Callable[[Outputs], Outputs] = field(default=lambda outputs: outputs)
    accepted: Callable[[Mapping[str, Any]], Sequence[Outputs]] | None = None


def op_cases(subject: Subject, examples: Iterator[Example]) -> Iterator[Case]:
    for example in examples:
        bind = functools.partial(subject.dispatcher().bind, example.op, **example.facts)
        for candidate in subject.candidates(example.op.name, example.facts, None):
            load = candidate if candidate.name != "reference" else None
            for repeat in range(subject.depth):
                name = f"{example.name}-{dtype_name(example.dtype)}"
                yield Case(
                    subject.level,
                    example.op.name,
                    f"{name}-{repeat}" if repeat else name,
                    functools.partial(_check, subject, example, load, bind, repeat),
                    candidate.name,
                    dtype_name(example.dtype),
                )


@torch.inference_mode()
def _check(
    subject: Subject,
    example: Example,
    candidate: Candidate | None,
    bind: Callable[[], Callable[..., Any]],
    repeat: int,
) -> str:
    kernel = candidate.loaded() if candidate is not None else bind()
    rng = generator(example.op.name, example.name, dtype_name(example.dtype), repeat)
    host = example.make(rng)
    arguments = Arguments(subject, host, example.strided)
    with poisoned(subject):
        found = call(example.op, kernel, arguments.values)
    _check_kinds(_tuple(found), _tuple(example.op(**{k: _copy(v) for k, v in host.items()})))
    got = example.seen(tuple(subject.download(x) for x in _tuple(found)))
    errors = _errors(example, host, got)
    arguments.check(example.dead)
    return errors


def call(op: Op[..., Any], kernel: Callable[..., Any], values: Mapping[str, Any]) -> Any:
    """As models do: by place, keyword-only arguments by name."""
    positional, named = split(op, values)
    return kernel(*positional, **named)


def split(op: Op[..., Any], values: Mapping[str, Any]) -> tuple[list[Any], dict[str, Any]]:
    kinds = {name: p.kind for name, p in inspect.signature(op.reference).parameters.items()}
    named = {k: v for k, v in values.items() if kinds[k] is inspect.Parameter.KEYWORD_ONLY}
    return [v for k, v in values.items() if k not in named], named


def _errors(example: Example, host: Mapping[str, Any], got: Outputs) -> str:
    expected = example.seen(_tuple(in_float64(example.op.reference, host)))
    if example.accepted is None:
        return _compare(example, got, expected)
    try:
        return _compare(example, got, expected)
    except Failed:
        for answer in example.accepted(host):
            with contextlib.suppress(Failed):
                return _compare(example, got, answer)
        raise


def _compare(example: Example, got: Outputs, expected: Outputs) -> str:
    tolerance = example.op.tolerance[dtype_name(example.dtype)]
    errors = []
    for i, (ours, right) in enumerate(zip(got, expected, strict=True)):
        what = f"output {i}" if len(got) > 1 else "the output"
        if right.is_floating_point():
            errors.append(check_close(what, ours, right.double(), tolerance))
        else:
            check_equal(what, ours, right)
    return worst(errors) if errors else ""


def _check_kinds(got: Outputs, plain: Outputs) -> None:
    require(len(got) == len(plain), f"gave {len(got)} outputs, not {len(plain)}")
    for i, (ours, right) in enumerate(zip(got, plain, strict=True)):
        require(isinstance(ours, Tensor), f"output {i} is {type(ours).__name__}, no tensor")
        check_dtype(f"output {i}", ours, right.dtype)


def _tuple(value: Any) -> Outputs:
    return tuple(value) if isinstance(value, tuple | list) else (value,)


def _copy(value: Any) -> Any:
    return value.clone() if isinstance(value, Tensor) else value


def normal(rng: np.random.Generator, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """Standard normal numbers, rounded to `dtype`."""
    return torch.from_numpy(rng.standard_normal(tuple(shape), np.float32)).to(dtype)
