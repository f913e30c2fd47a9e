"""Linear layers: shapes that fill tiles and shapes that do not, from one row to hundreds."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from inarch.conformance.calls import normal
from inarch.conformance.case import Case, generator, require
from inarch.conformance.compare import check_close, check_dtype, worst
from inarch.conformance.memory import Arguments, poisoned
from inarch.conformance.subject import Candidate, Subject, dtype_name
from inarch.hal.linear import Linear, LinearSpec
from inarch.hal.op import DEFAULT_TOLERANCE
from inarch.hal.reference.linear import ReferenceLinear

BATCH_INVARIANT = "batch_invariant"  # among a device's features: a row knows nothing of the others
SHAPES = (  # T, N, K, bias
    (1, 896, 896, True),
    (1, 151, 64, False),
    (2, 4864, 128, False),
    (7, 96, 100, True),
    (16, 512, 896, False),
    (33, 64, 1000, True),
    (130, 256, 192, False),
    (300, 128, 64, True),
)


def cases(subject: Subject) -> Iterator[Case]:
    for dtype in subject.dtypes():
        for tokens, outputs, inputs, bias in SHAPES:
            spec = LinearSpec(outputs, inputs, dtype, bias)
            name = f"{tokens}x{outputs}x{inputs}" + ("-bias" if bias else "")
            yield from _of(subject, spec, name, functools.partial(_multiply, subject, spec, tokens))
        if BATCH_INVARIANT in subject.device.info.features:
            spec = LinearSpec(512, 896, dtype, bias=True)
            alone = functools.partial(_rows_alone, subject, spec)
            yield from _of(subject, spec, "rows-alone", alone)


def facts(subject: Subject) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for dtype in subject.dtypes():
        for _, outputs, inputs, bias in SHAPES:
            yield "linear", vars(LinearSpec(outputs, inputs, dtype, bias))


def _of(
    subject: Subject, spec: LinearSpec, name: str, check: Callable[[Linear, str], str]
) -> Iterator[Case]:
    for candidate in subject.candidates("linear", vars(spec), ReferenceLinear):
        for repeat in range(subject.depth):
            full = f"{name}-{dtype_name(spec.dtype)}" + (f"-{repeat}" if repeat else "")
            run = functools.partial(_started, candidate, check, full)
            yield Case(subject.level, "linear", full, run, candidate.name, dtype_name(spec.dtype))


def _started(candidate: Candidate, check: Callable[[Linear, str], str], name: str) -> str:
    with torch.inference_mode():
        return check(candidate.loaded()(), name)


def _multiply(subject: Subject, spec: LinearSpec, tokens: int, kernel: Linear, name: str) -> str:
    rng = generator("linear", name)
    host = weights(spec, rng)
    host["x"] = normal(rng, (tokens, spec.inputs), spec.dtype)
    strided = ("x",) if tokens > 1 else ()
    arguments = Arguments(subject, host, strided, weights=("weight", "bias"))
    values = arguments.values
    with poisoned(subject):
        packed = kernel.prepack(spec, values["weight"], values.get("bias"))
        out = kernel.apply(values["x"], packed)
        again = kernel.apply(values["x"], packed)
    check_dtype("the output", out, spec.dtype)
    expected = host["x"].double() @ host["weight"].double().T
    if spec.bias:
        expected = expected + host["bias"].double()
    tolerance = DEFAULT_TOLERANCE[dtype_name(spec.dtype)]
    found = [subject.download(x) for x in (out, again)]
    errors = [check_close("the output", x, expected, tolerance) for x in found]
    arguments.check(())
    return worst(errors)


def weights(spec: LinearSpec, rng: Any) -> dict[str, Tensor]:
    """Of unit outputs for unit inputs."""
    scaled = normal(rng, (spec.outputs, spec.inputs), torch.float32) * spec.inputs**-0.5
    found = {"weight": scaled.to(spec.dtype)}
    return found | ({"bias": normal(rng, (spec.outputs,), spec.dtype)} if spec.bias else {})


def _rows_alone(subject: Subject, spec: LinearSpec, kernel: Linear, name: str) -> str:
    """A row comes out the same alone and in any batch, to the last bit."""
    rng = generator("linear", name)
    host = {name: subject.load(x) for name, x in weights(spec, rng).items()}
    packed = kernel.prepack(spec, host["weight"], host.get("bias"))
    x = normal(rng, (67, spec.inputs), spec.dtype)
    whole = subject.download(kernel.apply(subject.upload(x), packed))
    for rows in (slice(0, 1), slice(66, 67), slice(3, 20)):
        part = subject.download(kernel.apply(subject.upload(x[rows].clone()), packed))
        require(bool((part == whole[rows]).all()), f"rows {rows.start}..{rows.stop - 1} differ")
    return ""
