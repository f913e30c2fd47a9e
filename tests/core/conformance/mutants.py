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
from inarch.hal.backend import Backend, Probe
from inarch.hal.device import Device, ReadyTransfer
from inarch.hal.executor import Executor
from inarch.hal.kv import CanonicalPages, KVSpec, KVState, KVStore
from inarch.hal.op import Facts, Kernel, always
from inarch.hal.ops import OPS
from inarch.hal.reference.device import ReferenceDevice
from inarch.hal.reference.kv import ReferenceKVStore
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

    def executor(self) -> Executor | None:
        return None if self._mutant.executor is None else self._mutant.executor(self)

    def upload(self, host: np.ndarray) -> Tensor:
        return self._mutant.upload(host)

    def download(self, tensor: Tensor) -> ReadyTransfer:
        return self._mutant.download(tensor)


@dataclass(frozen=True)
class Mutant(Backend):
    """facet: whose cases, of `level`, show it; told: what they say. cases: those of them, or all."""

    level: int
    facet: str
    told: str
    kernels: Sequence[Kernel] = ()
    store: Callable[..., KVStore] = ReferenceKVStore
    upload: Callable[[np.ndarray], Tensor] = ReferenceDevice().upload
    download: Callable[[Tensor], Any] = ReferenceDevice().download
    executor: Callable[[Device], Executor] | None = None
    features: Collection[str] = ()
    cases: Collection[str] = ()
    name: str = "mutant"

    def probe(self) -> Probe:
        return Probe(1)

    def open(self, index: int) -> Device:
        if index:
            raise BackendError("there is one")
        return MutantDevice(self)


def op(name: str, implementation: Callable[..., Any], told: str) -> Mutant:
    return Mutant(3, name, told, [Kernel(name, "wrong", implementation)])


def model(case: str, op: str, implementation: Callable[..., Any], told: str) -> Mutant:
    """What shows in whole models."""
    return Mutant(4, "engine", told, [Kernel(op, "wrong", implementation)], cases=(case,))


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


def writes_past_an_argument(logits: Tensor, *rest: Tensor) -> Tensor:
    behind = logits.storage_offset() + logits.numel()
    logits.as_strided((1,), (1,), behind).zero_()
    return OPS["penalize"](logits, *rest)


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


MUTANTS: dict[str, Mutant] = {
    "copies-backwards": Mutant(3, "pages", "after copying pages", store=CopiesBackwards),
    "drops-the-partial-page": Mutant(
        3, "pages", "pages that went there and back", store=DropsThePartialPage
    ),
    "takes-the-null-page": Mutant(3, "pages", "the null page was exported", store=TakesTheNullPage),
    "writes-the-next-slot": Mutant(3, "pages", "after writing tokens", store=WritesTheNextSlot),
    "its-own-randomness": op("sample", sampling_of_its_own, "the output is wrong at"),
    "past-its-output": op("silu_mul", writes_past_its_output, "past the end of a tensor"),
    "past-an-argument": op("penalize", writes_past_an_argument, "memory outside the argument"),
    "past-its-input": op("rms_norm", reads_past_its_input, "the output is NaN"),
    "relies-on-zeros": op("rms_norm", relies_on_zeros, "the output is NaN"),
    "spoils-its-input": op("rms_norm", spoils_its_input, "the argument 'x' was written to"),
    "residual-not-updated": op("add_rms_norm", residual_not_updated, "output 1 is off by"),
    "pairs-are-halves": op("rope", pairs_are_halves, "output 0 is off by"),
    "reads-the-null-slot": op("causal_conv", reads_the_null_slot, "output 0 is off by"),
    "upload-without-a-copy": Mutant(3, "transfers", "upload() still read", upload=late_upload),
    "download-without-a-copy": Mutant(3, "transfers", "gave", download=late_download),
    "another-token": model("*dense-batch-float32", "greedy", second_best, "times as likely"),
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
