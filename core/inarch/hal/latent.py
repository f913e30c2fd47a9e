"""Latent attention: the keys and values of all heads follow from one short row per token.

Only that row is kept: a latent of R features and a rotated key of P features that all heads share, as
one KV head without values. Head h has the key [W_uk[h] latent, rotated key] and the value
W_uv[h] latent. There are two ways to attend, which give the same and write the same pages:

- expanded: make the keys and values of the rows, then attend with ordinary heads;
- absorbed: q . (W_uk latent) = (W_uk^T q) . latent, so queries are mapped to latents and attend over
  the rows themselves, as heads that share one KV head whose values are the first R features of its
  keys; what comes out is mapped by W_uv.

Letters in shapes: T tokens, H heads, R latent, N unrotated, P rotated and V value features.
Source: DeepSeek-AI, 2024, arXiv:2405.04434.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Protocol

import torch
from torch import Tensor

from inarch.hal.attention import AttentionPlan, AttentionPlanner, page_facts
from inarch.hal.device import Device
from inarch.hal.kv import KVHeads, KVState, KVStore


@dataclass(frozen=True)
class LatentSpec:
    """Static facts of a layer's latent attention: what a kernel's predicate sees."""

    q_heads: int  # H, on this rank
    kv_rank: int  # R
    nope_dim: int  # N
    rope_dim: int  # P
    value_dim: int  # V
    scale: float  # multiplies q . k
    dtype: torch.dtype  # to compute in; the pages' own is the store's

    @property
    def kv_heads(self) -> KVHeads:
        """What is kept of a token: its row, of R + P features."""
        return KVHeads(1, self.kv_rank + self.rope_dim, 0)

    def better_expanded(self, queries: int, keys: int) -> bool:
        """Whether `queries` tokens at the end of `keys` take fewer multiplications expanded.

        A head takes, expanded, R (N + V) for each key and N + P + V for each pair of query and key;
        absorbed, R (N + V) for each query and 2 R + P for each pair. A decode is always absorbed, a
        prompt without a cached prefix is expanded wherever 2 R > N + V.
        """
        features = self.nope_dim + self.value_dim
        saved = queries * keys * (2 * self.kv_rank - features)
        return saved > (keys - queries) * self.kv_rank * features


@dataclass(frozen=True, eq=False)
class UpProjection:
    """What makes keys and values of latents: key [H, N, R], value [H, V, R]. May be views."""

    key: Tensor
    value: Tensor

    def absorb(self, q: Tensor) -> Tensor:
        """Unrotated parts of queries [T, H, N] -> what attends over latents [T, H, R]."""
        return torch.einsum("thn,hnr->thr", q, self.key)

    def values(self, latents: Tensor) -> Tensor:
        """Sums of latents, weighted for each head [T, H, R] -> values [T, H, V]."""
        return torch.einsum("thr,hvr->thv", latents, self.value)

    def expand(self, latents: Tensor, heads: slice) -> tuple[Tensor, Tensor]:
        """Latents [T, R] -> unrotated keys [T, h, N] and values [T, h, V] of some heads."""
        keys = torch.einsum("tr,hnr->thn", latents, self.key[heads])
        return keys, torch.einsum("tr,hvr->thv", latents, self.value[heads])


class LatentAttention(AttentionPlanner, Protocol):
    """A running latent attention, for all layers that share a spec."""

    def run(
        self,
        layer: int,
        q_nope: Tensor,
        q_rope: Tensor,
        latent: Tensor,
        k_rope: Tensor,
        kv: KVState,
        plan: AttentionPlan,
        up: UpProjection,
    ) -> tuple[Tensor, KVState]:
        """Write latent [T, R] and k_rope [T, P] to the pages of the batch, attend: out [T, H, V].

        q_nope [T, H, N]; q_rope [T, H, P] and k_rope are rotated already. Which of the two ways is
        taken is the implementation's to choose.
        """
        ...


class LatentAttentionFactory(Protocol):
    """What a kernel of the facet "latent_attention" is: bound with the fields of the spec as facts."""

    def __call__(self, spec: LatentSpec, store: KVStore, device: Device) -> LatentAttention: ...


def latent_facts(spec: LatentSpec, store: KVStore) -> Mapping[str, Any]:
    """The static facts on which a latent attention kernel is chosen."""
    return {field.name: getattr(spec, field.name) for field in fields(spec)} | page_facts(store)
