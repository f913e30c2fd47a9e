"""Attention over the paged KV cache, split in plan and run.

`plan` happens once a step on the host, outside any captured graph: it turns lengths and page tables
into whatever the kernel needs, as arrays that go to the device in one copy with the rest of the
step. `run` happens once a layer, inside the graph.

Conventions: the window counts the token itself; the soft-cap comes before the mask; a sink is a
logit per head that is added to the denominator only; log-sum-exp, of that denominator, is natural
and float32; a fully masked row gives 0 and -inf. Where attention is not causal, a query sees the
tokens after it too, and with a window of w those less than w places before or after it. Letters in
shapes: T tokens, S sequences, H query heads, G KV heads, D head size.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from inarch.hal.device import Device
from inarch.hal.executor import StepShape
from inarch.hal.kv import KVState, KVStore
from inarch.hal.packing import upload

if TYPE_CHECKING:
    from inarch.hal.state import StateBatch


@dataclass(frozen=True)
class AttentionSpec:
    """Static facts of a layer's attention: what a kernel's predicate sees."""

    q_heads: int  # on this rank
    kv_heads: int
    key_dim: int
    value_dim: int
    scale: float
    dtype: torch.dtype  # to compute in; the pages' own is the store's
    window: int | None = None  # tokens a query sees, itself included; None = all
    chunk: int | None = None  # a query sees only its own of the chunks of so many tokens
    softcap: float | None = None
    sinks: bool = False
    causal: bool = True  # False: every sequence comes whole, without a cached prefix and no tree


@dataclass(frozen=True)
class SharedPrefixes:
    """Groups of sequences whose first tokens lie in the same pages, so that K and V are one.

    The members of group g are sequences[indptr[g]:indptr[g + 1]], two or more, and the first
    tokens[g] tokens of each of them, whole pages, are in the pages of any of them. A sequence is in
    one group at most, has one query token, and has at least one more token than those.
    """

    sequences: np.ndarray  # int32 [M]: indices to the batch
    indptr: np.ndarray  # int32 [groups + 1]
    tokens: np.ndarray  # int32 [groups]


@dataclass(frozen=True)
class AttentionBatch:
    """One ragged batch, in host arrays only.

    Sequence s has the query tokens q_indptr[s]:q_indptr[s+1], which are the last ones of its
    kv_lens[s] tokens; their K and V are written by `run` before any query reads. Its pages are
    page_table[rows[s], :ceil(kv_lens[s] / page_tokens)]. A decode is one query token, an extend
    several over a cached prefix, a prefill all of them; one batch may hold any mix.

    page_table is the core's own table of all running requests: a backend may keep a copy on the
    device and apply `page_updates` (rows, columns, pages written since the previous plan) to it.
    None: the table is not the one of the previous plan, and must be copied whole.

    tree_parent [T], for the verification of drafted tokens: the index of each query token's parent
    within its own sequence's query tokens, -1 for a child of the cached prefix. A query sees the
    prefix, its ancestors and itself. None: every sequence is a causal chain.

    shared is a hint, which says only what page_table shows too: a backend may read what a group
    shares once for all of them. Groups may be as small as not to be worth it.

    Padding sequences come last; they have no cached prefix and a row whose pages are all the null
    page. They have one query token each while there are any, the last of these what remains. What
    comes out for padding is anything, unless all sequences are padding.

    bucket: the captured shape that the batch was padded to; None: it runs as it comes.

    states: which tokens advance which recurrent state, of a model that has any; None: all padding.
    """

    q_indptr: np.ndarray  # int32 [S + 1]
    kv_lens: np.ndarray  # int32 [S], new tokens included
    rows: np.ndarray  # int32 [S]
    page_table: np.ndarray  # int32 [rows, pages a request may have]
    page_updates: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None
    tree_parent: np.ndarray | None = None  # int32 [T]
    shared: SharedPrefixes | None = None
    bucket: StepShape | None = None
    states: StateBatch | None = None


class AttentionResult(NamedTuple):
    """out [T, H, value_dim] in the spec's dtype; kv the state; lse [T, H] float32, natural log."""

    out: Tensor
    kv: KVState
    lse: Tensor | None


@dataclass(frozen=True)
class Rotation:
    """What is due to q [T, H, D] and k [T, G, D] before they are attended with: `rotation(q, k)`.

    An attention that does the same on its way reads the fields instead of calling. Both leave q and
    k dead. turn is what was chosen for the op `rope`, or for `qk_norm_rope` if there is a norm.
    """

    turn: Callable[..., tuple[Tensor, Tensor]]
    positions: Tensor  # int64 [T], of the step's inputs: they were there before q and k were
    cos_sin: Tensor  # float32 [max positions, R]
    interleaved: bool = False
    norm: tuple[Tensor, Tensor, float] | None = None  # weights of q and k [D], eps

    def __call__(self, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        norm = self.norm or ()
        return self.turn(q, k, *norm, self.positions, self.cos_sin, interleaved=self.interleaved)


AttentionPlan = Any


@dataclass(frozen=True)
class HostPlan:
    """One step's plan before it is on the device.

    arrays: what it needs there. Of a batch with a bucket, their names, shapes and dtypes depend on
    the bucket alone, since they are to lie where those of the last batch lay. passing: more of them,
    of any shape, which only `bind` itself may read. bind: makes the plan, on the device, of both.
    """

    arrays: Mapping[str, np.ndarray]
    passing: Mapping[str, np.ndarray]
    bind: Callable[[Mapping[str, Tensor]], AttentionPlan]

    def on(self, device: Device) -> AttentionPlan:
        """The plan, with its arrays brought over in a copy of their own."""
        return self.bind(upload(device, {**self.arrays, **self.passing}))


class AttentionPlanner(Protocol):
    """What every kind of attention over pages gives to a step, whatever its `run` takes.

    capturable: whether `run` may be recorded once for a bucket and replayed for another batch of
    it, whose arrays were brought to the same addresses and bound.
    """

    capturable: bool

    def plan(self, batch: AttentionBatch) -> HostPlan:
        """Prepare one step; must have copied what it keeps of the batch."""
        ...

    def kept_bytes(self, most: StepShape) -> int:
        """What it will keep of the device's memory for steps up to `most`, beyond what it has now."""
        ...


class Attention(AttentionPlanner, Protocol):
    """A running attention implementation, for all layers that share a spec."""

    def run(
        self,
        layer: int,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        kv: KVState,
        plan: AttentionPlan,
        *,
        rotation: Rotation | None = None,
        sinks: Tensor | None = None,
        lse: bool = False,
    ) -> AttentionResult:
        """Rotate q and k, write k, v [T, G, D] to the pages of the batch, attend with q [T, H, D]."""
        ...


class AttentionFactory(Protocol):
    """What a kernel of the facet "attention" is: bound with the fields of the spec as facts."""

    def __call__(self, spec: AttentionSpec, store: KVStore, device: Device) -> Attention: ...


def attention_facts(spec: AttentionSpec, store: KVStore) -> Mapping[str, Any]:
    """The static facts on which an attention kernel is chosen."""
    facts = {name: getattr(spec, name) for name in AttentionSpec.__dataclass_fields__}
    return facts | page_facts(store)


def page_facts(store: KVStore) -> dict[str, Any]:
    """What any attention kernel may ask of the pages that it is to read and write."""
    layout = store.layout
    pages = {"page_tokens": layout.page_tokens, "layout": layout.fingerprint}
    return pages | {"kv_dtype": store.spec.dtype}
