"""Latent attention: decodes and prompts, so that an implementation takes each of its two ways."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from inarch.conformance.attending import attend
from inarch.conformance.batches import Scene, build_scene
from inarch.conformance.calls import normal
from inarch.conformance.case import Case, generator
from inarch.conformance.compare import check_close, check_dtype, worst
from inarch.conformance.facets.attention import (
    LAYER,
    LAYERS,
    TOLERANCE,
    Sequences,
    decodes,
    long_prefix,
    mixed,
    padded,
    prefills,
    trees,
)
from inarch.conformance.memory import Arguments, poisoned
from inarch.conformance.subject import Candidate, Subject, dtype_name
from inarch.hal.attention import AttentionSpec
from inarch.hal.kv import KVSpec, KVStore
from inarch.hal.latent import LatentAttention, LatentSpec, UpProjection, latent_facts
from inarch.hal.reference.kv import narrowed
from inarch.hal.reference.latent import ReferenceLatentAttention

BASE = LatentSpec(4, 64, 32, 16, 32, 48**-0.5, torch.float32)
KINDS: dict[str, tuple[LatentSpec, Sequences]] = {
    "mixed": (BASE, mixed),
    "decodes": (BASE, decodes),
    "prefills": (BASE, prefills),
    "long-prefix": (BASE, long_prefix),
    "tree": (BASE, trees),
    "padding": (BASE, padded),
    "always-absorbed": (replace(BASE, kv_rank=24), mixed),
    "narrow-values": (replace(BASE, value_dim=24), mixed),
    "of-real-size": (LatentSpec(16, 512, 128, 64, 128, 192**-0.5, torch.float32), decodes),
}


def cases(subject: Subject) -> Iterator[Case]:
    for dtype in subject.dtypes():
        for name, (base, sequences) in KINDS.items():
            spec = replace(base, dtype=dtype)
            store = _store(subject, spec)
            for candidate in subject.candidates(
                "latent_attention", latent_facts(spec, store), ReferenceLatentAttention
            ):
                full = f"{name}-{dtype_name(dtype)}"
                trial = Trial(subject, candidate, spec, store, sequences, full)
                kernel, column = candidate.name, dtype_name(dtype)
                yield Case(subject.level, "latent_attention", full, trial.check, kernel, column)


def facts(subject: Subject) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for dtype in subject.dtypes():
        for base, _ in KINDS.values():
            spec = replace(base, dtype=dtype)
            yield "latent_attention", latent_facts(spec, _store(subject, spec))


def _store(subject: Subject, spec: LatentSpec) -> KVStore:
    return subject.store(KVSpec((spec.kv_heads,) * LAYERS, spec.dtype), subject.page_tokens()[0])


@dataclass(frozen=True, eq=False)
class Trial:
    """One kernel on one batch."""

    subject: Subject
    candidate: Candidate
    spec: LatentSpec
    store: KVStore
    sequences: Sequences
    name: str

    def check(self) -> str:
        factory, rng = self.candidate.loaded(), generator("latent_attention", self.name)
        size = self.store.layout.page_tokens
        sequences, device = self.sequences(size), self.subject.device
        tree = self.sequences is trees
        scene = build_scene(rng, self.store.spec, sequences, size, tree=tree)
        host = self.inputs(rng, len(scene.real))
        with torch.inference_mode():
            attention: LatentAttention = factory(self.spec, self.store, device)
            kv = scene.load(self.store)
            arguments = Arguments(self.subject, host, strided=("q_nope", "q_rope", "latent"))
            values = arguments.values
            up = UpProjection(values["up_key"], values["up_value"])
            plan = attention.plan(scene.batch).on(device)
            q_nope, q_rope = values["q_nope"], values["q_rope"]
            new = values["latent"], values["k_rope"]
            with poisoned(self.subject):
                out, kv = attention.run(LAYER, q_nope, q_rope, *new, kv, plan, up)
            check_dtype("out", out, self.spec.dtype)
            rows = torch.cat((host["latent"], host["k_rope"]), -1).unsqueeze(1)
            rows = narrowed(rows, self.store.spec.dtype).double()
            expected, tolerance = self.expected(scene, host, rows), TOLERANCE[self.column]
            found = self.subject.download(out)
            error = check_close("out", found, expected, tolerance, scene.real)
            scene.check_pages(self.store, kv, LAYER, (rows, rows[..., :0]), 0.0)
            arguments.check(())
        return worst([error])

    @property
    def column(self) -> str:
        return dtype_name(self.spec.dtype)

    def inputs(self, rng: np.random.Generator, tokens: int) -> dict[str, Tensor]:
        spec = self.spec
        shapes = {
            "q_nope": (tokens, spec.q_heads, spec.nope_dim),
            "q_rope": (tokens, spec.q_heads, spec.rope_dim),
            "latent": (tokens, spec.kv_rank),
            "k_rope": (tokens, spec.rope_dim),
            "up_key": (spec.q_heads, spec.nope_dim, spec.kv_rank),
            "up_value": (spec.q_heads, spec.value_dim, spec.kv_rank),
        }
        host = {name: normal(rng, shape, torch.float32) for name, shape in shapes.items()}
        for name in ("up_key", "up_value"):
            host[name] = host[name] * spec.kv_rank**-0.5
        return {name: x.to(spec.dtype) for name, x in host.items()}

    def expected(self, scene: Scene, host: Mapping[str, Tensor], rows: Tensor) -> Tensor:
        """Expanded, in float64: ordinary attention with a KV head for each head."""
        spec = self.spec
        key, value = host["up_key"].double(), host["up_value"].double()

        def expand(rows: Tensor) -> tuple[Tensor, Tensor]:
            latent, rope = torch.split(rows[:, 0], [spec.kv_rank, spec.rope_dim], -1)
            nope = torch.einsum("tr,hnr->thn", latent, key)
            shared = rope.unsqueeze(1).expand(-1, spec.q_heads, -1)
            return torch.cat((nope, shared), -1), torch.einsum("tr,hvr->thv", latent, value)

        def history(s: int) -> tuple[Tensor, Tensor]:
            return expand(scene.history(s, LAYER)[0].double())

        q = torch.cat((host["q_nope"], host["q_rope"]), -1).double()
        dims = (spec.q_heads, spec.q_heads, spec.nope_dim + spec.rope_dim, spec.value_dim)
        plain = AttentionSpec(*dims, spec.scale, spec.dtype)
        return attend(plain, scene, q, *expand(rows), None, history)[0]
