"""Attention over pages: every kind of batch and mask, what is written, and that nothing leaks."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from inarch.conformance.attending import attend
from inarch.conformance.batches import PADDING, Scene, Sequence_, build_scene, chain
from inarch.conformance.calls import normal
from inarch.conformance.case import Case, generator, require
from inarch.conformance.compare import check_close, check_dtype, in_float64, worst
from inarch.conformance.facets.pages import kept_in
from inarch.conformance.facets.rotary import cos_sin
from inarch.conformance.memory import Arguments, poisoned
from inarch.conformance.subject import Candidate, Subject, dtype_name
from inarch.hal.attention import (
    Attention,
    AttentionBatch,
    AttentionPlan,
    AttentionResult,
    AttentionSpec,
    Rotation,
    SharedPrefixes,
    attention_facts,
)
from inarch.hal.kv import KVHeads, KVSpec, KVState, KVStore
from inarch.hal.ops.rotary import qk_norm_rope, rope
from inarch.hal.reference.attention import ReferenceAttention
from inarch.hal.reference.kv import narrowed

TOLERANCE = {"float32": 2e-5, "float16": 4e-3, "bfloat16": 3e-2}
LAYER, LAYERS = 1, 2  # what is run, of how many
EPS = 1e-6
HEADS: dict[str, Any] = {"q_heads": 4, "kv_heads": 2, "key_dim": 64, "value_dim": 64}
TREE = ((-1, 0, 0, 1, 1, 2), (-1, -1, 0, 2), (-1, 0, 1, 1, 0))

Sequences = Callable[[int], Sequence[Sequence_]]  # of the size of a page


def mixed(page: int) -> Sequence[Sequence_]:
    """Decodes, extends and prefills, ending before, at and behind the border of a page."""
    return (
        chain(2 * page - 1, 1),
        chain(page + 3, 5),
        chain(0, 7),
        chain(page, 1),
        chain(0, 1),
        chain(3, page),
    )


def decodes(page: int) -> Sequence[Sequence_]:
    return tuple(chain(n, 1) for n in (0, 1, page - 1, page, 3 * page + 5, 17))


def prefills(page: int) -> Sequence[Sequence_]:
    return tuple(chain(0, n) for n in (1, page, page + 1, 2 * page + 3))


def long_prefix(page: int) -> Sequence[Sequence_]:
    return (chain(530, 1), chain(411, 3), chain(2, 1))


def trees(page: int) -> Sequence[Sequence_]:
    prefixes = (page + 2, 0, page - 2)
    return (*(Sequence_(p, t) for p, t in zip(prefixes, TREE, strict=True)), chain(9, 1))


def shared(page: int) -> Sequence[Sequence_]:
    first = chain(2 * page + 3, 1)
    rest = (Sequence_(2 * page + n, (-1,), shares=2) for n in (0, 1, 9))
    return (chain(5, 1), first, *rest, chain(page, 1))


def padded(page: int) -> Sequence[Sequence_]:
    return (chain(page + 1, 1), chain(4, 1), PADDING, PADDING)


def padded_prefill(page: int) -> Sequence[Sequence_]:
    last = Sequence_(0, tuple(range(-1, 5)), padding=True)
    return (chain(3, 6), chain(page, 1), PADDING, last)


@dataclass(frozen=True)
class Kind:
    """One kind of attention and of batch. every_dtype: it is worth it, not in float32 alone."""

    sequences: Sequences = mixed
    changes: dict[str, Any] = dataclasses.field(default_factory=dict)
    lse: bool = False
    rotary: str = ""  # "halves", "pairs", "part", "norm"
    every_dtype: bool = False
    hint: bool = False  # says which prefixes are shared

    def spec(self, dtype: torch.dtype) -> AttentionSpec:
        fields = HEADS | self.changes
        fields.setdefault("scale", fields["key_dim"] ** -0.5)
        return AttentionSpec(dtype=dtype, **fields)


def _kinds() -> dict[str, Kind]:
    sinks, capped = {"sinks": True}, {"softcap": 1.5}
    return {
        "mixed": Kind(every_dtype=True),
        "decodes": Kind(decodes, every_dtype=True),
        "prefills": Kind(prefills, every_dtype=True),
        "long-prefix": Kind(long_prefix, every_dtype=True),
        "one-kv-head": Kind(changes={"kv_heads": 1}),
        "as-many-kv-heads": Kind(changes={"kv_heads": 4}),
        "seven-to-one": Kind(decodes, {"q_heads": 14, "kv_heads": 2}, every_dtype=True),
        "heads-of-128": Kind(changes={"key_dim": 128, "value_dim": 128}, every_dtype=True),
        "heads-of-256": Kind(changes={"key_dim": 256, "value_dim": 256}),
        "heads-of-80": Kind(changes={"key_dim": 80, "value_dim": 80}),
        "narrow-values": Kind(changes={"value_dim": 32}),
        "other-scale": Kind(changes={"scale": 0.7}),
        "window": Kind(changes={"window": 7}, every_dtype=True),
        "window-of-one": Kind(changes={"window": 1}),
        "wide-window": Kind(long_prefix, {"window": 128}, every_dtype=True),
        "chunk": Kind(changes={"chunk": 11}),
        "softcap": Kind(changes=capped, every_dtype=True),
        "sinks": Kind(changes=sinks, every_dtype=True),
        "window-sinks": Kind(decodes, {"window": 9, **sinks}, lse=True),
        "window-softcap": Kind(changes={"window": 9, **capped}, lse=True),
        "lse": Kind(lse=True, every_dtype=True),
        "lse-decodes": Kind(decodes, lse=True),
        "lse-sinks": Kind(changes=sinks, lse=True),
        "tree": Kind(trees, every_dtype=True),
        "tree-window": Kind(trees, {"window": 3}),
        "tree-lse": Kind(trees, lse=True),
        "tree-rotated": Kind(trees, rotary="halves"),
        "shared-prefixes": Kind(shared, hint=True, every_dtype=True),
        "shared-window": Kind(shared, {"window": 30}, hint=True),
        "shared-unsaid": Kind(shared),
        "shared-lse": Kind(shared, lse=True, hint=True),
        "both-sides": Kind(prefills, {"causal": False}, every_dtype=True),
        "both-sides-window": Kind(prefills, {"causal": False, "window": 5}),
        "padding": Kind(padded, every_dtype=True),
        "padded-prefill": Kind(padded_prefill),
        "rotated": Kind(rotary="halves", every_dtype=True),
        "rotated-decodes": Kind(decodes, rotary="halves"),
        "rotated-pairs": Kind(rotary="pairs"),
        "rotated-in-part": Kind(rotary="part"),
        "normed-rotated": Kind(rotary="norm", every_dtype=True),
    }


def cases(subject: Subject) -> Iterator[Case]:
    pages = subject.page_tokens()
    for dtype in subject.dtypes():
        for name, kind in _kinds().items():
            if dtype != torch.float32 and not kind.every_dtype:
                continue
            yield from _of_kind(subject, name, kind, dtype, dtype, pages[0])
        for page in pages[1:]:
            for name in ("mixed", "decodes"):
                yield from _of_kind(subject, f"{name}-{page}", _kinds()[name], dtype, dtype, page)
        for kept, _ in kept_in(subject, dtype):
            for name in ("mixed", "decodes", "window", "tree") if kept != dtype else ():
                narrow = f"{name}-in-{dtype_name(kept)}"
                yield from _of_kind(subject, narrow, _kinds()[name], dtype, kept, pages[0])


def facts(subject: Subject) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for dtype in subject.dtypes():
        for kind in _kinds().values():
            spec = kind.spec(dtype)
            store = subject.store(_pages(spec, dtype), subject.page_tokens()[0])
            yield "attention", attention_facts(spec, store)


def _pages(spec: AttentionSpec, kept: torch.dtype) -> KVSpec:
    return KVSpec((KVHeads(spec.kv_heads, spec.key_dim, spec.value_dim),) * LAYERS, kept)


def _of_kind(
    subject: Subject, name: str, kind: Kind, dtype: torch.dtype, kept: torch.dtype, page: int
) -> Iterator[Case]:
    spec = kind.spec(dtype)
    store = subject.store(_pages(spec, kept), page)
    for candidate in subject.candidates(
        "attention", attention_facts(spec, store), ReferenceAttention
    ):
        for repeat in range(subject.depth):
            trial = Trial(subject, candidate, spec, store, kind, f"{name}-{repeat}")
            full = f"{name}-{dtype_name(dtype)}" + (f"-{repeat}" if repeat else "")
            yield Case(
                subject.level, "attention", full, trial.check, candidate.name, dtype_name(dtype)
            )


@dataclass(frozen=True, eq=False)
class Trial:
    """One kernel on one batch."""

    subject: Subject
    candidate: Candidate
    spec: AttentionSpec
    store: KVStore
    kind: Kind
    seed: str

    @property
    def dtype(self) -> str:
        return dtype_name(self.spec.dtype)

    def check(self) -> str:
        factory = self.candidate.loaded()
        rng = generator("attention", self.seed, self.dtype)
        with torch.inference_mode():
            attention: Attention = factory(self.spec, self.store, self.subject.device)
            scene = self.scene(rng)
            return self.attended(attention, scene, rng, scene.load(self.store))[0]

    def scene(self, rng: np.random.Generator) -> Scene:
        sequences = self.kind.sequences(self.store.layout.page_tokens)
        tree = any(s.parents != chain(0, len(s.parents)).parents for s in sequences)
        hint = _hint(sequences, self.store.layout.page_tokens) if self.kind.hint else None
        size = self.store.layout.page_tokens
        return build_scene(rng, self.store.spec, sequences, size, tree=tree, shared=hint)

    def attended(
        self, attention: Attention, scene: Scene, rng: np.random.Generator, kv: KVState
    ) -> tuple[str, KVState]:
        """Plan, run and compare: what is worth saying, and the state after it."""
        host = self.inputs(scene, rng)
        arguments = Arguments(self.subject, host, strided=("q", "k", "v"))
        values = arguments.values
        plan = self.planned(attention, scene.batch)
        rotation = self.rotation(values)
        given: dict[str, Any] = {
            "rotation": rotation,
            "sinks": values.get("sinks"),
            "lse": self.kind.lse,
        }
        with poisoned(self.subject):
            q, k, v = (values[name] for name in "qkv")
            result = attention.run(LAYER, q, k, v, kv, plan, **given)
        note = self.compare(scene, host, result)
        arguments.check(("q", "k") if rotation is not None else ())
        return note, result.kv

    def planned(self, attention: Attention, batch: AttentionBatch) -> AttentionPlan:
        """A plan must have copied what it keeps: the core goes on with the arrays at once."""
        arrays: dict[str, Any] = {
            k: v.copy() for k, v in vars(batch).items() if isinstance(v, np.ndarray)
        }
        planned = attention.plan(dataclasses.replace(batch, **arrays))
        for array in arrays.values():
            array.fill(0)
        return planned.on(self.subject.device)

    def inputs(self, scene: Scene, rng: np.random.Generator) -> dict[str, Tensor]:
        spec, tokens = self.spec, len(scene.real)
        host = {
            "q": normal(rng, (tokens, spec.q_heads, spec.key_dim), spec.dtype),
            "k": normal(rng, (tokens, spec.kv_heads, spec.key_dim), spec.dtype),
            "v": normal(rng, (tokens, spec.kv_heads, spec.value_dim), spec.dtype),
        }
        if spec.sinks:
            host["sinks"] = normal(rng, (spec.q_heads,), torch.float32)
        if self.kind.rotary:
            host["positions"] = torch.from_numpy(_positions(scene))
            host["cos_sin"] = cos_sin(spec.key_dim // (2 if self.kind.rotary == "part" else 1))
        if self.kind.rotary == "norm":
            for name in ("q_weight", "k_weight"):
                host[name] = 1 + 0.2 * normal(rng, (spec.key_dim,), spec.dtype)
        return host

    def rotation(self, values: dict[str, Tensor]) -> Rotation | None:
        if not self.kind.rotary:
            return None
        spec, interleaved = self.spec, self.kind.rotary == "pairs"
        facts: dict[str, Any] = {
            "dtype": spec.dtype,
            "q_heads": spec.q_heads,
            "kv_heads": spec.kv_heads,
            "head_dim": spec.key_dim,
            "rotary_dim": values["cos_sin"].shape[1],
            "interleaved": interleaved,
        }
        norm, op = None, rope
        if self.kind.rotary == "norm":
            facts |= {"hidden": spec.key_dim, "weight_dtype": spec.dtype}
            norm, op = (values["q_weight"], values["k_weight"], EPS), qk_norm_rope  # type: ignore
        turn = self.subject.dispatcher().bind(op, **facts)
        return Rotation(turn, values["positions"], values["cos_sin"], interleaved, norm)

    def compare(self, scene: Scene, host: dict[str, Tensor], result: AttentionResult) -> str:
        tolerance = TOLERANCE[self.dtype] * (2 if self.kind.rotary else 1)
        q, k, v = self.expected_inputs(host)
        k, v = (narrowed(x, self.store.spec.dtype).double() for x in (k, v))

        def history(s: int) -> tuple[Tensor, Tensor]:
            return scene.history(s, LAYER)

        out, lse = attend(self.spec, scene, q, k, v, host.get("sinks"), history)
        check_dtype("out", result.out, self.spec.dtype)
        got, real = self.subject.download(result.out), scene.real
        errors = [check_close("out", got, out, tolerance, real)]
        require(
            (result.lse is not None) == self.kind.lse,
            "lse was not asked for" if result.lse is not None else "lse was asked for",
        )
        if result.lse is not None:
            check_dtype("lse", result.lse, torch.float32)
            found = self.subject.download(result.lse)
            errors.append(check_close("lse", found, lse, tolerance, real))
        exact = tolerance if self.kind.rotary else 0.0
        scene.check_pages(self.store, result.kv, LAYER, (k, v), exact)
        return worst(errors)

    def expected_inputs(self, host: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """q, k, v as they are attended with: rotated in float64."""
        q, k, v = (host[name].double() for name in "qkv")
        if self.kind.rotary:
            arguments = {name: host[name] for name in ("q", "k", "positions", "cos_sin")}
            arguments["interleaved"] = self.kind.rotary == "pairs"  # type: ignore[assignment]
            op: Any = rope
            if self.kind.rotary == "norm":
                op = qk_norm_rope
                arguments |= {name: host[name] for name in ("q_weight", "k_weight")}
                arguments["eps"] = EPS  # type: ignore[assignment]
            q, k = in_float64(op.reference, arguments)
            # They are kept in the dtype computed in, wherever they are rotated.
            k = k.to(self.spec.dtype).double()
        return q, k, v


def _positions(scene: Scene) -> np.ndarray:
    """int64 [T]: a drafted token's is its depth behind the prefix."""
    found: list[int] = []
    for sequence in scene.sequences:
        depth: list[int] = []
        for parent in sequence.parents:
            depth.append(0 if parent < 0 else depth[parent] + 1)
        found += [sequence.prefix + d for d in depth]
    return np.array(found, np.int64)


def _hint(sequences: Sequence[Sequence_], page: int) -> SharedPrefixes:
    """The one group of those that share pages with the sequence before them."""
    sharing = [s for s, sequence in enumerate(sequences) if sequence.shares]
    members = np.array([sharing[0] - 1, *sharing], np.int32)
    tokens = np.array([sequences[sharing[0]].shares * page], np.int32)
    return SharedPrefixes(members, np.array([0, len(members)], np.int32), tokens)
