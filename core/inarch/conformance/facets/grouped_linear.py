"""Linear layers of many experts: groups of any size, empty ones among them."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from inarch.conformance.calls import normal
from inarch.conformance.case import Case, generator, require
from inarch.conformance.compare import check_close, check_dtype, worst
from inarch.conformance.memory import Arguments, poisoned
from inarch.conformance.subject import Candidate, Subject, dtype_name
from inarch.hal.grouped_linear import GroupedLinear, GroupedLinearSpec, RowGroups
from inarch.hal.op import DEFAULT_TOLERANCE
from inarch.hal.reference.grouped_linear import ReferenceGroupedLinear

SHAPES: tuple[tuple[Sequence[int], int, int, bool], ...] = (  # rows of each expert, N, K, bias
    ((1, 0, 0, 2), 64, 128, False),
    ((0, 7, 33, 0, 1, 16), 96, 80, True),
    ((130, 0, 5), 128, 64, False),
    ((0,) * 15 + (3,), 256, 96, True),
    ((1,) * 40, 32, 64, False),
)


def cases(subject: Subject) -> Iterator[Case]:
    for dtype in subject.dtypes():
        for rows, outputs, inputs, bias in SHAPES:
            spec = GroupedLinearSpec(len(rows), outputs, inputs, dtype, bias)
            shape = f"{len(rows)}-experts-{sum(rows)}x{outputs}x{inputs}-{dtype_name(dtype)}"
            for candidate in subject.candidates(
                "grouped_linear", vars(spec), ReferenceGroupedLinear
            ):
                for repeat in range(subject.depth):
                    name = f"{shape}-{repeat}" if repeat else shape
                    run = functools.partial(_check, subject, candidate, spec, rows, name)
                    kernel = candidate.name
                    yield Case(
                        subject.level, "grouped_linear", name, run, kernel, dtype_name(dtype)
                    )


def facts(subject: Subject) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for dtype in subject.dtypes():
        for rows, outputs, inputs, bias in SHAPES:
            yield "grouped_linear", vars(GroupedLinearSpec(len(rows), outputs, inputs, dtype, bias))


@torch.inference_mode()
def _check(
    subject: Subject, candidate: Candidate, spec: GroupedLinearSpec, rows: Sequence[int], name: str
) -> str:
    kernel: GroupedLinear = candidate.loaded()()
    require(isinstance(kernel.capturable, bool), f"capturable is {kernel.capturable!r}")
    rng = generator("grouped_linear", name)
    weight = normal(rng, (spec.experts, spec.outputs, spec.inputs), torch.float32)
    host = {
        "x": normal(rng, (sum(rows), spec.inputs), spec.dtype),
        "weight": (weight * spec.inputs**-0.5).to(spec.dtype),
        "ends": torch.from_numpy(np.cumsum(rows).astype(np.int32)),
    }
    if spec.bias:
        host["bias"] = normal(rng, (spec.experts, spec.outputs), spec.dtype)
    arguments = Arguments(subject, host, weights=("weight", "bias"))
    values = arguments.values
    with poisoned(subject):
        packed = kernel.prepack(spec, values["weight"], values.get("bias"))
        out = kernel.apply(values["x"], packed, RowGroups(values["ends"]))
    check_dtype("the output", out, spec.dtype)
    owners = torch.from_numpy(np.repeat(np.arange(spec.experts), rows))
    expected = torch.einsum("mk,mnk->mn", host["x"].double(), host["weight"].double()[owners])
    if spec.bias:
        expected = expected + host["bias"].double()[owners]
    tolerance = DEFAULT_TOLERANCE[dtype_name(spec.dtype)]
    error = check_close("the output", subject.download(out), expected, tolerance)
    arguments.check(())
    return worst([error])
