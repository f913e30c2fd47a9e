"""Backends that are wrong in one thing each, made of the reference: what the kit has to catch."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from inarch.errors import BackendError
from inarch.hal.attention import AttentionBatch, AttentionResult, AttentionSpec, HostPlan
from inarch.hal.backend import Backend, Probe
from inarch.hal.device import Device, ReadyTransfer
from inarch.hal.kv import CanonicalPages, KVSpec, KVState, KVStore
from inarch.hal.latent import LatentSpec
from inarch.hal.op import Facts, Kernel, always
from inarch.hal.ops import OPS
from inarch.hal.reference.attention import ReferenceAttention
from inarch.hal.reference.device import ReferenceDevice
from inarch.hal.reference.kv import ReferenceKVStore
from inarch.hal.reference.latent import ReferenceLatentAttention
from inarch.hal.support import Support, no


class MutantDevice(ReferenceDevice):
    """The CPU, with other parts."""

    def __init__(self, mutant: Mutant) -> None:
        super().__init__()
        self.info = dataclasses.replace(self.info, features=frozenset(mutant.features))
        self._mutant = mutant

    def dtypes(self, checkpoint: torch.dtype) -> Sequence[tuple[torch.dtype, str]]:
        return [(torch.float32, "tests are short")]

    def kv_dtypes(self, compute: torch.dtype) -> Sequence[tuple[torch.dtype, Support]]:
        return super().kv_dtypes(compute)[:1]

    def kernels(self) -> Sequence[Kernel]:
        return self._mutant.kernels

    def kv_store(self, spec: KVSpec, page_tokens: int) -> KVStore:
        return self._mutant.store(spec, page_tokens, self.torch_device)

    def upload(self, host: np.ndarray) -> Tensor:
        return self._mutant.upload(host)

    def download(self, tensor: Tensor) -> ReadyTransfer:
        return self._mutant.download(tensor)


@dataclass(frozen=True)
class Mutant(Backend):
    """facet: whose cases, of `level`, show it; told: what they say."""

    level: int
    facet: str
    told: str
    kernels: Sequence[Kernel] = ()
    store: Callable[..., KVStore] = ReferenceKVStore
    upload: Callable[[np.ndarray], Tensor] = ReferenceDevice().upload
    download: Callable[[Tensor], Any] = ReferenceDevice().download
    features: Collection[str] = ()
    name: str = "mutant"

    def probe(self) -> Probe:
        return Probe(1)

    def open(self, index: int) -> Device:
        if index:
            raise BackendError("there is one")
        return MutantDevice(self)


def attention(kind: Callable[..., Any], told: str, facet: str = "attention") -> Mutant:
    return Mutant(3, facet, told, [Kernel("attention", "wrong", kind)])


def op(name: str, implementation: Callable[..., Any], told: str) -> Mutant:
    return Mutant(3, name, told, [Kernel(name, "wrong", implementation)])


# ---- attention ----


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


# ---- pages ----


class CopiesBackwards(ReferenceKVStore):
    def copy_pages(self, kv: KVState, source: np.ndarray, target: np.ndarray) -> KVState:
        return super().copy_pages(kv, source, target[::-1])


class DropsThePartialPage(ReferenceKVStore):
    def import_pages(self, kv: KVState, pages: np.ndarray, data: CanonicalPages) -> KVState:
        size = self.layout.page_tokens
        super().import_pages(kv, pages, data)  # it refuses what must be refused
        whole = len(data[0][0]) // size * size
        if whole < len(data[0][0]):
            for k, v in kv:
                k[pages[-1]], v[pages[-1]] = 0, 0
        return kv


class TakesTheNullPage(ReferenceKVStore):
    def export_pages(self, kv: KVState, pages: np.ndarray) -> CanonicalPages:
        ids = self._ids(pages)
        return [self.read(kv, layer, ids) for layer in range(len(kv))]


class WritesTheNextSlot(ReferenceKVStore):
    def write(self, kv: KVState, layer: int, slots: Tensor, k: Tensor, v: Tensor) -> KVState:
        size = self.layout.page_tokens
        return super().write(kv, layer, torch.where(slots < size, slots, slots ^ 1), k, v)


# ---- ops ----


def sampling_of_its_own(
    logits: Tensor, temperature: Tensor, uniform: Tensor, *filters: Any
) -> Tensor:
    return OPS["sample"](logits, temperature, torch.rand_like(uniform), *filters)


def second_best(logits: Tensor) -> Tensor:
    return logits.topk(2).indices[:, 1]


def writes_past_its_output(x: Tensor) -> Tensor:
    gate, up = x.chunk(2, dim=-1)
    out = torch.empty_like(gate)
    out.copy_(torch.nn.functional.silu(gate) * up)
    out.as_strided((1,), (1,), out.storage_offset() + out.numel()).zero_()
    return out


def reads_past_its_input(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    more = x.as_strided((x.numel() + 1,), (1,), x.storage_offset())
    return OPS["rms_norm"](x, weight, eps) + more[-1:]


def relies_on_zeros(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    total = torch.empty((*x.shape[:-1], 1), dtype=torch.float32)
    total += x.float().square().sum(-1, keepdim=True)
    return (x.float() * torch.rsqrt(total / x.shape[-1] + eps)).to(x.dtype) * weight


def spoils_its_input(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    return x.copy_(OPS["rms_norm"](x, weight, eps))


def residual_not_updated(x: Tensor, residual: Tensor, weight: Tensor, eps: float) -> Any:
    return OPS["rms_norm"](x + residual, weight, eps), residual


def pairs_are_halves(q: Tensor, k: Tensor, positions: Tensor, cos_sin: Tensor, **_: Any) -> Any:
    return OPS["rope"](q, k, positions, cos_sin)


def reads_the_null_slot(
    x: Tensor, weight: Tensor, bias: Any, tails: Tensor, read: Tensor, write: Tensor
) -> Any:
    one = torch.where(read == 0, 1, read)  # some other's, instead of zeros
    return OPS["causal_conv"](x, weight, bias, tails, one, write)


# ---- answers ----


def raises(facts: Facts) -> Support:
    return no(f"only {facts['hidden_size']}")


def unexplained(facts: Facts) -> Support:
    return no(" ")


def answers_a_bool(facts: Facts) -> Support:
    return facts["hidden"] < 1000  # type: ignore[return-value]


def kernel(name: str, supports: Any = always, **changes: Any) -> Kernel:
    made = Kernel(name, "wrong", OPS["rms_norm"].reference, supports)
    return dataclasses.replace(made, **changes)


def with_three(x: Tensor, weight: Tensor) -> Tensor:
    raise AssertionError


def late_upload(host: np.ndarray) -> Tensor:
    """Keeps the host's array instead of copying it."""
    return torch.from_numpy(host)


def late_download(tensor: Tensor) -> ReadyTransfer:
    return ReadyTransfer(tensor.detach().numpy())


class Unsupported:
    """Said yes, and then cannot."""

    def __init__(self, spec: AttentionSpec, store: KVStore, device: Device) -> None:
        if spec.window:
            raise NotImplementedError("windows")
        self._right = ReferenceAttention(spec, store, device)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._right, name)


MUTANTS: dict[str, Mutant] = {
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
    "copies-backwards": Mutant(3, "pages", "after copying pages", store=CopiesBackwards),
    "drops-the-partial-page": Mutant(
        3, "pages", "pages that went there and back", store=DropsThePartialPage
    ),
    "takes-the-null-page": Mutant(3, "pages", "the null page was exported", store=TakesTheNullPage),
    "writes-the-next-slot": Mutant(3, "pages", "after writing tokens", store=WritesTheNextSlot),
    "its-own-randomness": op("sample", sampling_of_its_own, "the output is wrong at"),
    "past-its-output": op("silu_mul", writes_past_its_output, "past the end of a tensor"),
    "past-its-input": op("rms_norm", reads_past_its_input, "the output is NaN"),
    "relies-on-zeros": op("rms_norm", relies_on_zeros, "the output is NaN"),
    "spoils-its-input": op("rms_norm", spoils_its_input, "the argument 'x' was written to"),
    "residual-not-updated": op("add_rms_norm", residual_not_updated, "output 1 is off by"),
    "pairs-are-halves": op("rope", pairs_are_halves, "output 0 is off by"),
    "reads-the-null-slot": op("causal_conv", reads_the_null_slot, "output 0 is off by"),
    "upload-without-a-copy": Mutant(3, "transfers", "upload() still read", upload=late_upload),
    "download-without-a-copy": Mutant(3, "transfers", "gave", download=late_download),
    "another-token": Mutant(
        4, "engine", "times as likely", [Kernel("greedy", "wrong", second_best)]
    ),
    "predicate-raises": Mutant(1, "rms_norm", "KeyError", [kernel("rms_norm", raises)]),
    "no-reason": Mutant(1, "rms_norm", "without a reason", [kernel("rms_norm", unexplained)]),
    "predicate-gives-a-bool": Mutant(
        1, "rms_norm", "instead of a Support", [kernel("rms_norm", answers_a_bool)]
    ),
    "unknown-op": Mutant(1, "device", "neither op nor facet", [kernel("rms_norm_fast")]),
    "two-of-one-name": Mutant(
        1, "device", "share a name", [kernel("rms_norm"), kernel("rms_norm")]
    ),
    "other-signature": Mutant(
        1, "rms_norm", "cannot be called", [kernel("rms_norm", implementation=with_three)]
    ),
    "missing-module": Mutant(
        1, "rms_norm", "ModuleNotFoundError", [kernel("rms_norm", implementation="no_such:thing")]
    ),
}
