"""Steps of a small model, one after the other: padded, captured, replayed, with pages that come.

The same steps run on the reference on the CPU; logits must agree at every one of them. What is stale
after a replay shows here: plans, page tables, inputs.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from inarch.conformance.case import Case, generator
from inarch.conformance.compare import check_close, worst
from inarch.conformance.subject import Candidate, Subject, dtype_name
from inarch.hal.attention import Attention, AttentionBatch, AttentionSpec, attention_facts
from inarch.hal.device import Device
from inarch.hal.executor import Executor, StepInputs, StepShape
from inarch.hal.kv import NULL_PAGE, KVHeads, KVSpec, KVState, KVStore
from inarch.hal.reference.attention import ReferenceAttention
from inarch.hal.reference.device import ReferenceDevice
from inarch.hal.reference.executor import EagerExecutor
from inarch.hal.reference.kv import ReferenceKVStore

TOLERANCE = {"float32": 1e-4, "float16": 1e-2, "bfloat16": 6e-2}
LAYERS, HIDDEN, VOCAB = 2, 48, 61
ROWS = 10  # of requests; one more is the null row
HEADS: dict[str, Any] = {"q_heads": 4, "kv_heads": 2, "key_dim": 64, "value_dim": 64}
SPECS: dict[str, dict[str, Any]] = {"plain": {}, "window": {"window": 20}}

Step = Mapping[int, int]  # row -> new tokens


def scripts(page: int) -> dict[str, Sequence[Step]]:
    """What comes after what. Rows come and go, so buckets grow, shrink and are met again."""

    def decode(*rows: int) -> Step:
        return dict.fromkeys(rows, 1)

    return {
        "decodes": (
            *({row: page - 2 + row for row in (0, 1, 2)},),
            *[decode(0, 1, 2)] * 4,
            {3: 5},
            *[decode(2, 3, 0, 1)] * 3,
            *[decode(3)] * 2,
            *[decode(0, 1, 2)] * 2,
        ),
        "chunks": ({0: 7}, {0: page, 1: 3}, {0: 2, 1: 1}, {1: 9, 2: 1}, decode(0, 1, 2), {2: 30}),
        "many": ({row: row + 1 for row in range(ROWS)}, *[decode(*range(ROWS))] * 3, decode(7, 4)),
    }


def cases(subject: Subject) -> Iterator[Case]:
    page = subject.page_tokens()[0]
    for dtype in subject.dtypes():
        for kind, changes in SPECS.items():
            spec = AttentionSpec(scale=0.125, dtype=dtype, **HEADS, **changes)
            store = subject.store(_pages(spec), page)
            facts = attention_facts(spec, store)
            for candidate in subject.candidates("attention", facts, ReferenceAttention):
                for script in scripts(page):
                    name = f"{script}-{kind}-{dtype_name(dtype)}"
                    run = functools.partial(_check, subject, candidate, spec, script, name)
                    column = dtype_name(dtype)
                    yield Case(subject.level, "steps", name, run, candidate.name, column)


def facts(subject: Subject) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """An executor is asked for, not chosen among kernels."""
    return iter(())


def _pages(spec: AttentionSpec) -> KVSpec:
    return KVSpec((KVHeads(spec.kv_heads, spec.key_dim, spec.value_dim),) * LAYERS, spec.dtype)


def _check(
    subject: Subject, candidate: Candidate, spec: AttentionSpec, script: str, name: str
) -> str:
    device, page = subject.device, subject.page_tokens()[0]
    store = subject.store(_pages(spec), page)
    with torch.inference_mode():
        attention: Attention = candidate.loaded()(spec, store, device)
        captured = device.executor() if attention.capturable else None
        ours = Loop(device, store, spec, attention, captured or EagerExecutor(device), name)
        steps = scripts(page)[script]
        errors = []
        for number, (step, expected) in enumerate(
            zip(steps, _expected(spec, script, page, name), strict=True)
        ):
            got = torch.from_numpy(ours.step(step).copy()).double()
            what = f"the logits of step {number}, {dict(step)}"
            errors.append(check_close(what, got, expected, TOLERANCE[dtype_name(spec.dtype)]))
    return worst(errors) + (", captured" if captured else ", as it comes")


def _expected(spec: AttentionSpec, script: str, page: int, name: str) -> Iterator[Tensor]:
    cpu = ReferenceDevice()
    store = ReferenceKVStore(_pages(spec), page, torch.device("cpu"))
    attention: Attention = ReferenceAttention(spec, store, cpu)
    loop = Loop(cpu, store, spec, attention, EagerExecutor(cpu), name)
    for step in scripts(page)[script]:
        yield torch.from_numpy(loop.step(step).copy()).double()


class Model:
    """Embeddings, attentions with a residual, logits: random weights, the same on every device."""

    def __init__(
        self, attention: Attention, spec: AttentionSpec, device: Device, name: str
    ) -> None:
        rng = generator("steps", name)
        self._attention, self._spec = attention, spec
        self._widths = [
            spec.q_heads * spec.key_dim,
            spec.kv_heads * spec.key_dim,
            spec.kv_heads * spec.value_dim,
        ]

        def weight(*shape: int) -> Tensor:
            numbers = rng.standard_normal(shape, np.float32) * shape[-1] ** -0.5
            return device.upload(numbers.astype(np.float32)).to(spec.dtype)

        self._embedding = weight(VOCAB, HIDDEN)
        self._projections = [weight(sum(self._widths), HIDDEN) for _ in range(LAYERS)]
        self._outs = [weight(HIDDEN, spec.q_heads * spec.value_dim) for _ in range(LAYERS)]
        self._head = weight(VOCAB, HIDDEN)

    def step(self, inputs: StepInputs, kv: KVState) -> tuple[Tensor, KVState]:
        x = F.embedding(inputs.token_ids, self._embedding)
        x = x + (inputs.positions[:, None] * 0.01).to(x.dtype)
        spec = self._spec
        for layer, (projection, out) in enumerate(zip(self._projections, self._outs, strict=True)):
            q, k, v = torch.split(x @ projection.t(), self._widths, -1)
            result = self._attention.run(
                layer,
                torch.unflatten(q, 1, (spec.q_heads, spec.key_dim)),
                torch.unflatten(k, 1, (spec.kv_heads, spec.key_dim)),
                torch.unflatten(v, 1, (spec.kv_heads, spec.value_dim)),
                kv,
                inputs.plans[0],
            )
            kv = result.kv
            x = x + result.out.flatten(1) @ out.t()
        return (x[inputs.last_token] @ self._head.t()).float(), kv


@dataclass
class Loop:
    """What the core does with an executor: pages, padding, updates of the page table, one plan."""

    device: Device
    store: KVStore
    spec: AttentionSpec
    attention: Attention
    executor: Executor
    name: str
    lengths: dict[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        size = self.store.layout.page_tokens
        self._size, columns = size, -(-96 // size) + 2
        self._model = Model(self.attention, self.spec, self.device, self.name)
        self._table = np.full((ROWS + 1, columns), NULL_PAGE, np.int32)
        self._free = list(range(1, 1 + ROWS * columns))
        self._updates: list[tuple[int, int, int]] | None = None  # None: nobody has the table yet
        self._tokens = generator("steps", self.name, "tokens")
        self.kv = self.store.allocate(1 + ROWS * columns)

    def step(self, step: Step) -> np.ndarray:
        """Logits [rows of the step, VOCAB]."""
        rows, new = list(step), list(step.values())
        shape = self.executor.bucket(StepShape(sum(new), len(rows), max(new)))
        starts = [self.lengths.get(row, 0) for row in rows]
        for row, start, count in zip(rows, starts, new, strict=True):
            self._grow(row, start + count)
        batch = self._batch(rows, starts, new, shape)
        plan = self.attention.plan(batch)
        positions = np.arange(shape.tokens) - np.repeat(
            batch.q_indptr[:-1], np.diff(batch.q_indptr)
        )
        positions += np.repeat(batch.kv_lens - np.diff(batch.q_indptr), np.diff(batch.q_indptr))
        tokens = np.zeros(shape.tokens, np.int64)
        tokens[: sum(new)] = self._tokens.integers(0, VOCAB, sum(new))
        inputs = {
            "token_ids": tokens,
            "positions": positions.astype(np.int64),
            "last_token": batch.q_indptr[1:].astype(np.int64) - 1,
        }
        there = self.executor.upload(shape, {**inputs, **plan.arrays}, plan.passing)
        given = StepInputs(
            there["token_ids"], there["positions"], there["last_token"], (plan.bind(there),)
        )
        logits, self.kv = self.executor.run(self._model.step, shape, given, self.kv)
        found: np.ndarray = self.device.download(logits).wait()
        return found[: len(rows)]

    def _grow(self, row: int, length: int) -> None:
        """Give a row the pages of so many tokens, in no order."""
        self.lengths[row] = length
        have = int(np.count_nonzero(self._table[row]))
        for column in range(have, -(-length // self._size)):
            page = self._free.pop((row * 7 + column * 3) % len(self._free))
            self._table[row, column] = page
            if self._updates is not None:
                self._updates.append((row, column, page))

    def _batch(
        self, rows: list[int], starts: list[int], new: list[int], shape: StepShape
    ) -> AttentionBatch:
        """With padding as `AttentionBatch` has it."""
        extra, spare = shape.seqs - len(rows), shape.tokens - sum(new)
        padding = [1 if i < spare else 0 for i in range(extra)]
        if padding:
            padding[-1] += max(spare - extra, 0)
        lengths = np.array([*new, *padding], np.int32)
        updates = None
        if self._updates is not None:
            changed = np.array(self._updates, np.int32).reshape(-1, 3)
            updates = (changed[:, 0], changed[:, 1], changed[:, 2])
        self._updates = []
        return AttentionBatch(
            q_indptr=np.cumsum([0, *lengths]).astype(np.int32),
            kv_lens=np.array([*starts, *[0] * extra], np.int32) + lengths,
            rows=np.array([*rows, *[ROWS] * extra], np.int32),
            page_table=self._table,
            page_updates=updates,
            bucket=shape if shape.captured else None,
        )
