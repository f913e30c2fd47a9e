"""Linear layers by small integers, from one row to hundreds, against the float64 of what they stand for.

A kernel may round activations to 8 bits for each group of inputs. What that leaves is computed for
every element and allowed, six times its standard deviation. Where all activations of a group are as
large, or all are zero, rounding leaves nothing: such rows are held to what the dtype itself allows.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from inarch.conformance.calls import normal
from inarch.conformance.case import Case, generator
from inarch.conformance.compare import check_close, check_dtype, worst
from inarch.conformance.memory import Arguments, poisoned
from inarch.conformance.subject import Candidate, Subject, dtype_name
from inarch.hal.op import DEFAULT_TOLERANCE
from inarch.hal.quantized_linear import QuantizedLinear, QuantizedLinearSpec, QuantizedWeight
from inarch.hal.reference.quantized_linear import ReferenceQuantizedLinear

TOKENS = (1, 1, 2, 5, 40, 131)  # of one call after the other, with the same packed weight
STEPS, SURE = 127, 6.0  # of rounding to 8 bits: in half the range; standard deviations allowed
ROWS = ("normal", "as-large", "outlier", "zero")  # of activations, in turn
SHAPES = (  # bits, group, zero points, N, K, bias
    (8, 32, False, 96, 256, False),
    (8, 64, False, 151, 200, True),
    (8, 128, True, 64, 384, False),
    (8, None, False, 128, 320, True),
    (8, None, True, 33, 77, False),
    (4, 32, False, 96, 256, True),
    (4, 32, True, 64, 77, True),
    (4, 64, False, 7, 192, False),
    (4, 64, True, 128, 320, False),
    (4, 128, False, 152, 200, True),
    (4, 128, True, 64, 1024, False),
    (4, None, False, 32, 128, False),
)


def cases(subject: Subject) -> Iterator[Case]:
    for spec in _specs(subject):
        facts = vars(spec)
        for candidate in subject.candidates("quantized_linear", facts, ReferenceQuantizedLinear):
            for repeat in range(subject.depth):
                name = _name(spec) + (f"-{repeat}" if repeat else "")
                run = functools.partial(_check, subject, candidate, spec, name)
                kernel, column = candidate.name, dtype_name(spec.dtype)
                yield Case(subject.level, "quantized_linear", name, run, kernel, column)


def facts(subject: Subject) -> Iterator[tuple[str, Mapping[str, Any]]]:
    yield from (("quantized_linear", vars(spec)) for spec in _specs(subject))


def _specs(subject: Subject) -> Iterator[QuantizedLinearSpec]:
    for dtype in subject.dtypes():
        for bits, group, zeros, outputs, inputs, bias in SHAPES:
            yield QuantizedLinearSpec(outputs, inputs, dtype, bits, group, zeros, bias)


def _name(spec: QuantizedLinearSpec) -> str:
    size = "whole" if spec.group is None else f"groups-of-{spec.group}"
    more = ("-zeros" if spec.zero_points else "") + ("-bias" if spec.bias else "")
    shape = f"{spec.outputs}x{spec.inputs}"
    return f"int{spec.bits}-{size}{more}-{shape}-{dtype_name(spec.dtype)}"


@torch.inference_mode()
def _check(subject: Subject, candidate: Candidate, spec: QuantizedLinearSpec, name: str) -> str:
    kernel: QuantizedLinear = candidate.loaded()()
    rng = generator("quantized_linear", name)
    host = _weight(rng, spec)
    arguments = Arguments(subject, host, weights=tuple(host))
    values = dict(arguments.values)
    bias = values.pop("bias", None)
    with poisoned(subject):
        packed = kernel.prepack(spec, QuantizedWeight(**values), bias)
    errors = [
        _apply(subject, kernel, packed, spec, host, _activations(rng, spec, call, tokens))
        for call, tokens in enumerate(TOKENS)
    ]
    arguments.check(())
    return worst(errors)


def _apply(
    subject: Subject,
    kernel: QuantizedLinear,
    packed: Any,
    spec: QuantizedLinearSpec,
    host: Mapping[str, Tensor],
    x: Tensor,
) -> float:
    given = Arguments(subject, {"x": x}, strided=("x",) if len(x) > 1 else ())
    with poisoned(subject):
        out = kernel.apply(given.values["x"], packed)
    check_dtype("the output", out, spec.dtype)
    weight = _meant(spec, host)
    expected = x.double() @ weight.T
    if spec.bias:
        expected = expected + host["bias"].double()
    tolerance, slack = DEFAULT_TOLERANCE[dtype_name(spec.dtype)], rounding(spec, x, weight)
    what = f"the output of {len(x)} rows"
    error = check_close(what, subject.download(out), expected, tolerance, slack=slack)
    given.check(())
    return error


def _weight(rng: np.random.Generator, spec: QuantizedLinearSpec) -> dict[str, Tensor]:
    """Of about unit outputs for unit inputs. Scales have either sign; those of the first output are 0."""
    most, groups = 1 << spec.bits, spec.scheme.groups(spec.inputs)
    values = rng.integers(0, most, (spec.outputs, spec.inputs), np.uint8)
    size = 3.5 / most / spec.inputs**0.5
    scales = rng.uniform(0.3, 1.7, (spec.outputs, groups)) * size
    scales *= rng.choice((-1, 1), scales.shape)
    scales[0] = 0
    host = {
        "values": torch.from_numpy(values),
        "scales": torch.from_numpy(scales).half().float(),  # as the core rounds them
    }
    if spec.zero_points:
        zeros = rng.integers(0, most, scales.shape, np.uint8)
        zeros[-1], zeros[-2] = 0, most - 1
        host["zeros"] = torch.from_numpy(zeros)
    return host | ({"bias": normal(rng, (spec.outputs,), spec.dtype)} if spec.bias else {})


def _meant(spec: QuantizedLinearSpec, host: Mapping[str, Tensor]) -> Tensor:
    """The weight [N, K] in float64."""

    def each(of_groups: Tensor) -> Tensor:
        size = spec.group or spec.inputs
        return of_groups.double().repeat_interleave(size, 1)[:, : spec.inputs]

    zeros = each(host["zeros"]) if spec.zero_points else float(1 << (spec.bits - 1))
    return (host["values"].double() - zeros) * each(host["scales"])


def _activations(
    rng: np.random.Generator, spec: QuantizedLinearSpec, call: int, tokens: int
) -> Tensor:
    """[tokens, K], its rows of the kinds in turn, from another one on in each call."""
    x = rng.standard_normal((tokens, spec.inputs))
    for row in range(tokens):
        match ROWS[(call + row) % len(ROWS)]:
            case "as-large":
                x[row] = np.sign(x[row]) * (1 + row % 5 / 4)
            case "outlier":
                x[row, rng.integers(spec.inputs)] = 30.0
            case "zero":
                x[row] = 0
    return torch.from_numpy(x).to(spec.dtype)


def rounding(spec: QuantizedLinearSpec, x: Tensor, weight: Tensor) -> Tensor:
    """What rounding each group of x [T, K] to 8 bits may change of x @ weight.T, [T, N]."""
    size, groups = spec.group or spec.inputs, spec.scheme.groups(spec.inputs)
    padding = (0, groups * size - spec.inputs)
    grouped = F.pad(x.double().abs(), padding, value=torch.nan).view(len(x), groups, size)
    most = grouped.nan_to_num(0).amax(-1)
    alike = ((grouped == most[..., None]) | grouped.isnan()).all(-1)
    step = torch.where(alike, 0.0, most / STEPS)
    squares = F.pad(weight.square(), padding).view(len(weight), groups, size).sum(-1)
    return SURE * (step.square() / 12 @ squares.T).sqrt()
