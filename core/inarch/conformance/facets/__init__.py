"""Cases about numbers, one module for each kind of thing that a backend can bring.

To hold a new facet to its contract, write a module with `cases(subject)` and `facts(subject)`, what
models ask its kernels with, and list it in FACETS. A module of ops has `examples(dtypes)` instead:
see calls.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import ModuleType
from typing import Any

from inarch.conformance.calls import Example, op_cases
from inarch.conformance.case import Case
from inarch.conformance.facets import (
    activations,
    attention,
    collectives,
    experts,
    grouped_linear,
    latent_attention,
    linear,
    norms,
    pages,
    quantized_linear,
    recurrent,
    rotary,
    routing,
    sampling,
    steps,
    transfers,
)
from inarch.conformance.subject import DTYPES, Subject

OPS: tuple[ModuleType, ...] = (norms, activations, rotary, routing, sampling, recurrent)
FACETS: tuple[ModuleType, ...] = (
    transfers,
    linear,
    quantized_linear,
    grouped_linear,
    experts,
    pages,
    attention,
    latent_attention,
    steps,
    collectives,
)


def cases(subject: Subject) -> Iterator[Case]:
    for module in OPS:
        yield from op_cases(subject, module.examples(subject.dtypes()))
    for module in FACETS:
        yield from module.cases(subject)


def examples() -> Iterator[Example]:
    """Of every op, in every dtype."""
    for module in OPS:
        yield from module.examples(DTYPES)


def facts(subject: Subject, op: str) -> Iterator[Mapping[str, Any]]:
    """What models ask the kernels of an op or facet with."""
    yield from (example.facts for example in examples() if example.op.name == op)
    for module in FACETS:
        yield from (asked for name, asked in module.facts(subject) if name == op)
