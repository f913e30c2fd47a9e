"""Level 1: what a device declares of itself is well-formed, and its predicates answer whatever comes."""

from __future__ import annotations

import functools
import inspect
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch

from inarch.conformance import facets
from inarch.conformance.calls import Example, split
from inarch.conformance.case import Case, Failed, generator, require
from inarch.conformance.subject import DTYPES, Subject, ask
from inarch.hal.dispatch import REFERENCE
from inarch.hal.executor import StepShape
from inarch.hal.op import Kernel
from inarch.hal.ops import FACETS, OPS
from inarch.hal.support import Support

ODD_SIZES = (1, 3, 1 << 20)
ODD_DTYPES = (torch.float64, torch.float8_e4m3fn)
SHAPES = (
    *(StepShape(n, n, 1) for n in (1, 2, 3, 7, 8, 33, 255)),
    *(StepShape(tokens, seqs, tokens - seqs + 1) for tokens, seqs in ((5, 1), (70, 4), (513, 9))),
)


def cases(subject: Subject) -> Iterator[Case]:
    def case(facet: str, name: str, check: Callable[[], str], kernel: str = "") -> Case:
        return Case(1, facet, name, check, kernel)

    for name, check in DECLARED.items():
        yield case("device", name, functools.partial(check, subject))
    examples = list(facets.examples())
    for kernel in subject.kernels:
        yield case(
            kernel.op, "predicate", functools.partial(_answers, subject, kernel), kernel.name
        )
        own = [e for e in examples if e.op.name == kernel.op]
        if own:
            yield case(kernel.op, "signature", functools.partial(_takes, kernel, own), kernel.name)


# ---- kernels ----


def _kernels(subject: Subject) -> str:
    """Names of real ops and facets, each kernel of an op with a name of its own."""
    for kernel in subject.kernels:
        require(isinstance(kernel, Kernel), f"kernels() gave {kernel!r}, which is no Kernel")
        known = kernel.op in OPS or kernel.op in FACETS
        require(
            known, f"kernel {kernel.name!r} is for {kernel.op!r}, which is neither op nor facet"
        )
        require(kernel.name.strip(), f"a kernel of {kernel.op} has no name")
        require(kernel.name != REFERENCE, f"a kernel of {kernel.op} is called {REFERENCE!r}")
    times = Counter((kernel.op, kernel.name) for kernel in subject.kernels)
    twice = [f"{op}: {name}" for (op, name), count in times.items() if count > 1]
    require(not twice, f"kernels of one op share a name: {', '.join(twice)}")
    return f"{len(subject.kernels)} kernels of {len({k.op for k in subject.kernels})} ops"


def _answers(subject: Subject, kernel: Kernel) -> str:
    """Yes, or no with a reason, to whatever a model may ask."""
    said: Counter[bool] = Counter()
    for facts in grid(subject, kernel.op):
        answer = ask(kernel, facts)
        if isinstance(answer, Exception):
            told = ", ".join(f"{name}={value}" for name, value in facts.items())
            raise Failed(f"{type(answer).__name__}: {answer}; asked with {told}") from answer
        said[bool(answer)] += 1
    return f"yes to {said[True]} and no to {said[False]} questions"


def grid(subject: Subject, op: str) -> Iterator[Mapping[str, Any]]:
    """Facts as models ask with, and each of them once more with every single one made odd."""
    for facts in facets.facts(subject, op):
        yield facts
        for name, value in facts.items():
            if isinstance(value, torch.dtype):
                yield from ({**facts, name: dtype} for dtype in (*DTYPES, *ODD_DTYPES))
            elif isinstance(value, int) and not isinstance(value, bool):
                yield from ({**facts, name: size} for size in ODD_SIZES)


def _takes(kernel: Kernel, examples: list[Example]) -> str:
    """The implementation loads, and takes the arguments that models give."""
    implementation = kernel.load()
    try:
        signature = inspect.signature(implementation)
    except (TypeError, ValueError):
        return "compiled: it does not tell its arguments"
    for example in examples:
        values = example.make(generator("signature"))
        positional, named = split(example.op, values)
        try:
            signature.bind(*positional, **named)
        except TypeError as error:
            call = ", ".join(name if name not in named else f"{name}=" for name in values)
            raise Failed(f"it cannot be called as {kernel.op}({call}): {error}") from error
    return str(signature)


# ---- the device ----


def _info(subject: Subject) -> str:
    info = subject.device.info
    require(info.name.strip() and info.arch.strip(), "info has no name or no architecture")
    require(info.memory_bytes > 0, f"info says {info.memory_bytes} bytes of memory")
    require(
        isinstance(subject.device.torch_device, torch.device), "torch_device is no torch.device"
    )
    require(0 < subject.device.memory_share <= 1, f"memory_share is {subject.device.memory_share}")
    return f"{info.name}, {info.arch}"


def _dtypes(subject: Subject) -> str:
    for stored in DTYPES:
        offered = subject.device.dtypes(stored)
        require(offered, f"no dtype to compute in for a checkpoint of {stored}")
        for dtype, reason in offered:
            require(isinstance(dtype, torch.dtype), f"{dtype!r} is no dtype")
            require(str(reason).strip(), f"{dtype} is offered without a reason")
    return ", ".join(str(dtype).removeprefix("torch.") for dtype in subject.dtypes())


def _page_tokens(subject: Subject) -> str:
    offered = subject.device.page_tokens()
    for size, reason in offered:
        require(isinstance(size, int) and size > 0, f"a page of {size!r} tokens")
        require(str(reason).strip(), f"pages of {size} tokens are offered without a reason")
    return ", ".join(str(size) for size, _ in offered) or "any"


def _kv_dtypes(subject: Subject) -> str:
    for dtype in subject.dtypes():
        offered = subject.device.kv_dtypes(dtype)
        require(offered and offered[0][1], f"no dtype to keep K and V in when computing in {dtype}")
        for kept, support in offered:
            require(isinstance(support, Support), f"{kept}: {support!r} is no Support")
            require(support or support.why.strip(), f"{kept} is refused without a reason")
    return ""


def _memory(subject: Subject) -> str:
    stats = subject.device.memory()
    require(0 < stats.free <= stats.total, f"{stats.free} of {stats.total} bytes are free")
    require(0 <= stats.used <= stats.total, f"{stats.used} of {stats.total} bytes are used")
    return f"{stats.free >> 20} of {stats.total >> 20} MiB are free"


def _buckets(subject: Subject) -> str:
    """A bucket holds what it is asked for, and is its own bucket."""
    executor = subject.device.executor()
    if executor is None:
        return "none of its own: steps run as they come"
    for shape in SHAPES:
        bucket = executor.bucket(shape)
        fits = all(getattr(bucket, f) >= getattr(shape, f) for f in ("tokens", "seqs", "max_query"))
        require(fits, f"{shape} is to be padded to {bucket}, which is smaller")
        padded = bucket.tokens == shape.tokens or bucket.seqs > shape.seqs
        require(padded, f"{shape} is padded to {bucket} without a sequence for the new tokens")
        again = executor.bucket(bucket)
        same = (again.tokens, again.seqs) == (bucket.tokens, bucket.seqs)
        require(
            same or not bucket.captured, f"the bucket {bucket} of {shape} has the bucket {again}"
        )
    return ""


DECLARED: dict[str, Callable[[Subject], str]] = {
    "info": _info,
    "memory": _memory,
    "dtypes": _dtypes,
    "page-tokens": _page_tokens,
    "kv-dtypes": _kv_dtypes,
    "kernels": _kernels,
    "buckets": _buckets,
}
