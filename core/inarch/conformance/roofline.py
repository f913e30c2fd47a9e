"""Level 5: how much of what the device can do at most the main ops reach. Reported, never judged.

The most is measured too: bytes by a copy, operations by a large product of matrices, both torch's own.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from inarch.conformance.batches import build_scene, chain
from inarch.conformance.calls import normal
from inarch.conformance.case import Case, Refused, generator
from inarch.conformance.subject import Subject, dtype_name
from inarch.hal.attention import Attention, AttentionSpec, attention_facts
from inarch.hal.kv import KVHeads, KVSpec
from inarch.hal.linear import Linear, LinearSpec
from inarch.hal.ops.activation import silu_mul
from inarch.hal.ops.norm import rms_norm
from inarch.hal.reference.attention import ReferenceAttention
from inarch.hal.reference.linear import ReferenceLinear

SECONDS = 0.2  # of repetition, for each figure
COPIED = 1 << 28  # bytes
SQUARE = 4096  # rows of the product, an eighth of it on a CPU
ROWS, FEATURES = 512, 4096
HEADS: dict[str, Any] = {"q_heads": 16, "kv_heads": 4, "key_dim": 128, "value_dim": 128}
DECODES, CONTEXT = 8, 2048


@dataclass(frozen=True)
class Work:
    """Something to repeat, and what it takes at least: bytes moved or operations done."""

    run: Callable[[], Any]
    bytes: int = 0
    flops: int = 0


def cases(subject: Subject) -> Iterator[Case]:
    for dtype in subject.dtypes():
        for name, make in WORKS.items():
            run = functools.partial(_measure, subject, dtype, make)
            column = dtype_name(dtype)
            yield Case(5, "roofline", f"{name}-{column}", run, dtype=column)


def _measure(
    subject: Subject, dtype: torch.dtype, make: Callable[[Subject, torch.dtype], Work]
) -> str:
    if subject.simulated:
        raise Refused("a simulated device has no speed of its own")
    with torch.inference_mode():
        work = make(subject, dtype)
        seconds = timed(subject, work.run)
        most = peak(subject, dtype if work.flops else None)
    rate = (work.flops or work.bytes) / seconds
    unit = "Gflop/s" if work.flops else "GB/s"
    return f"{rate / 1e9:.4g} {unit}, {100 * rate / most:.0f} % of {most / 1e9:.4g}"


def timed(subject: Subject, run: Callable[[], Any]) -> float:
    """Seconds of one run, once warm: the best of several bundles of runs."""
    for _ in range(2):
        run()
    subject.device.synchronize()
    best, times, ends = float("inf"), 1, time.perf_counter() + SECONDS
    while time.perf_counter() < ends:
        started = time.perf_counter()
        for _ in range(times):
            run()
        subject.device.synchronize()
        took = time.perf_counter() - started
        best = min(best, took / times)
        times = max(1, min(1000, int(SECONDS / 5 / best)))
    return best


@functools.cache
def peak(subject: Subject, dtype: torch.dtype | None) -> float:
    """Bytes a second of a copy; with a dtype, operations a second of a product in it."""
    if dtype is None:
        source = subject.device.upload(np.zeros(COPIED, np.uint8))
        target = torch.empty_like(source)
        return 2 * COPIED / timed(subject, lambda: target.copy_(source))
    side = SQUARE // (8 if subject.device.torch_device.type == "cpu" else 1)
    a = subject.upload(normal(generator("peak"), (side, side), dtype))
    return 2 * side**3 / timed(subject, lambda: F.linear(a, a))


def _random(subject: Subject, dtype: torch.dtype, *shape: int) -> Tensor:
    return subject.upload(normal(generator("roofline", *shape), shape, dtype))


def _norm(subject: Subject, dtype: torch.dtype) -> Work:
    op = subject.dispatcher().bind(rms_norm, dtype=dtype, hidden=FEATURES, weight_dtype=dtype)
    x, weight = _random(subject, dtype, ROWS, FEATURES), _random(subject, dtype, FEATURES)
    return Work(lambda: op(x, weight, 1e-6), bytes=2 * x.nbytes)


def _activation(subject: Subject, dtype: torch.dtype) -> Work:
    op = subject.dispatcher().bind(silu_mul, dtype=dtype, intermediate=FEATURES)
    x = _random(subject, dtype, ROWS, 2 * FEATURES)
    return Work(lambda: op(x), bytes=x.nbytes * 3 // 2)


def _linear(tokens: int, subject: Subject, dtype: torch.dtype) -> Work:
    """One token moves the weight; many do arithmetic."""
    spec = LinearSpec(FEATURES, FEATURES, dtype)
    select = subject.dispatcher().select
    kernel: Linear = select("linear", ReferenceLinear, **vars(spec))()
    weight = _random(subject, dtype, FEATURES, FEATURES)
    packed, x = kernel.prepack(spec, weight, None), _random(subject, dtype, tokens, FEATURES)
    run = functools.partial(kernel.apply, x, packed)
    if tokens == 1:
        return Work(run, bytes=weight.nbytes)
    return Work(run, flops=2 * tokens * FEATURES**2)


def _decode(subject: Subject, dtype: torch.dtype) -> Work:
    spec = AttentionSpec(scale=0.1, dtype=dtype, **HEADS)
    heads = KVHeads(spec.kv_heads, spec.key_dim, spec.value_dim)
    store = subject.store(KVSpec((heads,), dtype), subject.page_tokens()[0])
    select = subject.dispatcher().select
    facts = attention_facts(spec, store)
    factory = select("attention", ReferenceAttention, **facts)
    attention: Attention = factory(spec, store, subject.device)  # type: ignore[assignment]
    sequences = [chain(CONTEXT - 1, 1)] * DECODES
    size = store.layout.page_tokens
    scene = build_scene(generator("decode"), store.spec, sequences, size)
    kv, plan = scene.load(store), attention.plan(scene.batch).on(subject.device)
    q = _random(subject, dtype, DECODES, spec.q_heads, spec.key_dim)
    k, v = (
        _random(subject, dtype, DECODES, spec.kv_heads, dim)
        for dim in (spec.key_dim, spec.value_dim)
    )
    token = spec.kv_heads * (spec.key_dim + spec.value_dim) * dtype.itemsize
    return Work(lambda: attention.run(0, q, k, v, kv, plan), bytes=DECODES * CONTEXT * token)


WORKS: dict[str, Callable[[Subject, torch.dtype], Work]] = {
    "rms_norm": _norm,
    "silu_mul": _activation,
    "linear-one-token": functools.partial(_linear, 1),
    f"linear-{ROWS}-tokens": functools.partial(_linear, ROWS),
    "attention-decode": _decode,
}
