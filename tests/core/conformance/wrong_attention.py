"""Attention that is wrong in one thing each, in its own cases, in steps and in whole models."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from inarch.hal.attention import AttentionBatch, AttentionResult, AttentionSpec, HostPlan
from inarch.hal.device import Device
from inarch.hal.executor import Step, StepInputs, StepShape
from inarch.hal.kv import KVState, KVStore
from inarch.hal.latent import LatentSpec
from inarch.hal.op import Kernel
from inarch.hal.reference.attention import ReferenceAttention
from inarch.hal.reference.executor import EagerExecutor
from inarch.hal.reference.latent import ReferenceLatentAttention

from .mutants import Mutant, model


def with_spec(**changes: Any) -> Callable[..., Any]:
    """The reference for a spec that differs wherever the field is set at all."""

    def make(spec: AttentionSpec, store: KVStore, device: Device) -> ReferenceAttention:
        wrong = {
            name: change(getattr(spec, name))
            for name, change in changes.items()
            if getattr(spec, name) not in (None, False)
        }
        return ReferenceAttention(dataclasses.replace(spec, **wrong), store, device)

    return make


class Base2Sums(ReferenceAttention):
    def run(self, *args: Any, **options: Any) -> AttentionResult:
        result = super().run(*args, **options)
        return result if result.lse is None else result._replace(lse=result.lse / np.log(2))


class TreesAreChains(ReferenceAttention):
    def plan(self, batch: AttentionBatch) -> HostPlan:
        return super().plan(dataclasses.replace(batch, tree_parent=None))


class CountsPositions(ReferenceAttention):
    """Rotates by the place in the batch, which a draft in a tree shares with its siblings' depth."""

    def plan(self, batch: AttentionBatch) -> HostPlan:
        starts = batch.kv_lens - batch.q_indptr[1:]
        lengths = np.diff(batch.q_indptr)
        self._counted = np.arange(batch.q_indptr[-1]) + np.repeat(starts, lengths)
        return super().plan(batch)

    def run(self, *args: Any, rotation: Any = None, **options: Any) -> AttentionResult:
        if rotation is not None:
            counted = torch.from_numpy(self._counted.astype(np.int64))
            rotation = dataclasses.replace(rotation, positions=counted)
        return super().run(*args, rotation=rotation, **options)


class NeverGoesBack(ReferenceAttention):
    """Takes a sequence to be as long as it ever was: drafts that were rejected are still seen."""

    def plan(self, batch: AttentionBatch) -> HostPlan:
        self._longest = getattr(self, "_longest", {})
        lengths = batch.kv_lens.copy()
        for s, row in enumerate(batch.rows.tolist()):
            lengths[s] = self._longest[row] = max(self._longest.get(row, 0), lengths[s])
        return super().plan(dataclasses.replace(batch, kv_lens=lengths))


class WritesAForeignPage(ReferenceAttention):
    def run(self, *args: Any, **options: Any) -> AttentionResult:
        result = super().run(*args, **options)
        for part in result.kv[args[0]]:
            part[-1, 0] = 0.0
        return result


class WritesAnotherLayer(ReferenceAttention):
    def run(self, layer: int, *args: Any, **options: Any) -> AttentionResult:
        result = super().run(layer, *args, **options)
        result.kv[0][0].copy_(result.kv[layer][0])
        return result


class StalePlans(ReferenceAttention):
    """Keeps the first plan of each shape of batch."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._plans: dict[tuple[int, ...], HostPlan] = {}

    def plan(self, batch: AttentionBatch) -> HostPlan:
        return self._plans.setdefault(tuple(np.diff(batch.q_indptr)), super().plan(batch))


class ForgetsUpdates(ReferenceAttention):
    """Keeps its own page table and never hears of a new page."""

    _table: np.ndarray | None = None

    def plan(self, batch: AttentionBatch) -> HostPlan:
        if batch.page_updates is None or self._table is None:
            self._table = batch.page_table.copy()
        return super().plan(dataclasses.replace(batch, page_table=self._table))


class Capturable(ReferenceAttention):
    capturable = True


class StaleInputs(EagerExecutor):
    """Replays each shape of step with the tokens of the first."""

    def __init__(self, device: Device) -> None:
        super().__init__(device)
        self._first: dict[StepShape, Tensor] = {}

    def run(self, step: Step, shape: StepShape, inputs: StepInputs, kv: KVState) -> Any:
        first = self._first.setdefault(shape, inputs.token_ids)
        return step(dataclasses.replace(inputs, token_ids=first), kv)


class PlansThatLookBack(ReferenceAttention):
    """Reads the batch only when the plan is bound, when the core has gone on."""

    def plan(self, batch: AttentionBatch) -> HostPlan:
        planned = super().plan(batch)
        return dataclasses.replace(
            planned, bind=lambda there: super(PlansThatLookBack, self).plan(batch).bind(there)
        )


class SoftcapAfterMask(ReferenceAttention):
    """What is masked is -cap, not -inf."""

    def attend(self, group: Any, q: Tensor, k: Tensor, v: Tensor, sinks: Any, lse: bool) -> Any:
        cap = self._spec.softcap
        if cap is None:
            return super().attend(group, q, k, v, sinks, lse)
        shared = q.shape[2] // k.shape[2]
        k, v = (x.repeat_interleave(shared, 2) for x in (k, v))
        scores = torch.einsum("nqhd,nlhd->nhql", q, k).float() * self._spec.scale
        seen = self._visible(group, slice(None), group.span)[:, None]
        scores = torch.tanh(scores.masked_fill(~seen, -torch.inf) / cap) * cap
        out = torch.einsum("nhql,nlhd->nqhd", scores.softmax(-1), v)
        return out, scores.logsumexp(-1).transpose(1, 2)


class SinkInTheNumerator(ReferenceAttention):
    """The sink draws its share of the values, from the first key."""

    def attend(self, group: Any, q: Tensor, k: Tensor, v: Tensor, sinks: Any, lse: bool) -> Any:
        out, sums = super().attend(group, q, k, v, sinks, True)
        if sinks is None:
            return out, sums if lse else None
        share = torch.exp(sinks - sums).unsqueeze(-1)
        first = v[:, :1].repeat_interleave(q.shape[2] // v.shape[2], 2)
        return out + share * first, sums


class ReadsBehindTheEnd(ReferenceAttention):
    """Trusts that what lies behind a sequence's last token is harmless."""

    def gather(self, group: Any, *args: Any) -> Any:
        k, v = super().gather(dataclasses.replace(group, unwritten=None), *args)
        return k, v


class IgnoresPageTables(ReferenceAttention):
    """Pages in the order of their numbers."""

    def plan(self, batch: AttentionBatch) -> HostPlan:
        table = np.sort(batch.page_table, axis=1)
        return super().plan(dataclasses.replace(batch, page_table=table))


class SharesTooMuch(ReferenceAttention):
    """Takes a group's members to share one page more than they do."""

    def plan(self, batch: AttentionBatch) -> HostPlan:
        if batch.shared is None:
            return super().plan(batch)
        table, members = batch.page_table.copy(), batch.shared.sequences
        pages = int(batch.shared.tokens[0]) // self._page_tokens + 1
        rows = batch.rows[members]
        table[rows[1:], :pages] = table[rows[0], :pages]
        return super().plan(dataclasses.replace(batch, page_table=table))


class LatentScale(ReferenceLatentAttention):
    def __init__(self, spec: LatentSpec, store: KVStore, device: Device) -> None:
        super().__init__(dataclasses.replace(spec, scale=spec.kv_rank**-0.5), store, device)


class LatentTrees(ReferenceLatentAttention):
    def plan(self, batch: AttentionBatch) -> HostPlan:
        return super().plan(dataclasses.replace(batch, tree_parent=None))


class Unsupported:
    """Said yes, and then cannot."""

    def __init__(self, spec: AttentionSpec, store: KVStore, device: Device) -> None:
        if spec.window:
            raise NotImplementedError("windows")
        self._right = ReferenceAttention(spec, store, device)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._right, name)


def attention(kind: Callable[..., Any], told: str, facet: str = "attention") -> Mutant:
    return Mutant(3, facet, told, [Kernel("attention", "wrong", kind)])


VERIFIED = "*dense-verification-float32"
ATTENTION: dict[str, Mutant] = {
    "window-off-by-one": attention(with_spec(window=lambda w: w + 1), "out is off by"),
    "chunk-as-window": attention(with_spec(chunk=lambda c: c + 1), "out is off by"),
    "swallowed-scale": attention(with_spec(scale=lambda s: 0.125), "out is off by"),
    "causal-throughout": attention(
        lambda spec, store, device: ReferenceAttention(
            dataclasses.replace(spec, causal=True), store, device
        ),
        "out is off by",
    ),
    "base-2-sums": attention(Base2Sums, "lse is off by"),
    "tree-ignored": attention(TreesAreChains, "out is off by"),
    "foreign-page": attention(WritesAForeignPage, "of no sequence of the batch"),
    "another-layer": attention(WritesAnotherLayer, "k of layer 0 is wrong"),
    "stale-plan": attention(StalePlans, "the logits of step", "steps"),
    "stale-inputs": Mutant(
        3,
        "steps",
        "the logits of step 2",
        [Kernel("attention", "wrong", Capturable)],
        executor=StaleInputs,
        cases=("*/decodes-plain-float32",),
    ),
    "forgets-page-updates": attention(ForgetsUpdates, "step", "steps"),
    "plan-looks-back": attention(PlansThatLookBack, "Error"),
    "softcap-after-mask": attention(SoftcapAfterMask, "out is off by"),
    "sink-in-the-numerator": attention(SinkInTheNumerator, "out is off by"),
    "reads-behind-the-end": attention(ReadsBehindTheEnd, "out is NaN"),
    "ignores-page-tables": attention(IgnoresPageTables, "out is"),
    "shares-too-much": attention(SharesTooMuch, "out is"),
    "said-yes-and-cannot": attention(Unsupported, "NotImplementedError: windows"),
    "latent-scale": Mutant(
        3,
        "latent_attention",
        "out is off by",
        [Kernel("latent_attention", "wrong", LatentScale)],
    ),
    "model-without-trees": model(VERIFIED, "attention", TreesAreChains, "step 3: the logits"),
    "counts-positions": model(VERIFIED, "attention", CountsPositions, "step 3: the logits"),
    "never-goes-back": model(VERIFIED, "attention", NeverGoesBack, "step 2: the logits"),
    "latent-without-trees": model(
        "*latent-verification-float32", "latent_attention", LatentTrees, "step 3: the logits"
    ),
}
