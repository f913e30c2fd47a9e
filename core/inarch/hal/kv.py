"""The paged KV cache: the core owns page ids on the host, the backend owns the bytes.

A page holds `page_tokens` tokens of every layer. Page 0 is the null page: padding reads and writes
it, and no request is ever given it. A slot is one token's place: page * page_tokens + offset.
Letters in shapes: T tokens, G KV heads, D head size.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

NULL_PAGE = 0
KVState = Any  # opaque to the core; functional backends return a new one, others the same object


@dataclass(frozen=True)
class KVHeads:
    """What one layer keeps of a token."""

    kv_heads: int  # on this rank
    key_dim: int
    value_dim: int  # 0: V follows from K, as in latent attention; nothing is stored for it


@dataclass(frozen=True)
class KVSpec:
    """What the model needs kept: per layer, in this dtype.

    float8_e4m3fn has no infinity: values beyond +-448 are kept as +-448, NaN as NaN.
    """

    layers: tuple[KVHeads, ...]
    dtype: torch.dtype  # of what is stored: an attention may compute in a wider one


@dataclass(frozen=True)
class KVLayout:
    """The backend's answer. The core reads page_tokens and page_bytes only.

    Stores with equal fingerprints may exchange raw pages.
    """

    page_tokens: int
    page_bytes: int  # all layers, with padding
    fingerprint: str


# Per layer, on the host: k, v [tokens, G, D] in the dtype in which they were stored.
CanonicalPages = list[tuple[Tensor, Tensor]]


class KVStore(ABC):
    """Pages of one device. Everything takes and returns the state: in-place stores return theirs."""

    spec: KVSpec
    layout: KVLayout

    @abstractmethod
    def allocate(self, pages: int) -> KVState:
        """Memory for `pages` pages, the null page included."""

    @abstractmethod
    def write(self, kv: KVState, layer: int, slots: Tensor, k: Tensor, v: Tensor) -> KVState:
        """Store k, v [T, G, D] at slots [T] int64; only slots of the null page may repeat.

        They may be of a wider dtype than the pages.
        """

    @abstractmethod
    def read(self, kv: KVState, layer: int, pages: Tensor) -> tuple[Tensor, Tensor]:
        """A copy of the tokens of pages [N] int64 in order: k, v [N * page_tokens, G, D].

        In the dtype of the pages.
        """

    @abstractmethod
    def copy_pages(self, kv: KVState, source: np.ndarray, target: np.ndarray) -> KVState:
        """Copy whole pages; the two lists must not overlap."""

    @abstractmethod
    def export_pages(self, kv: KVState, pages: np.ndarray) -> CanonicalPages:
        """Bring pages to the host in the canonical layout, for host tiers and other machines."""

    @abstractmethod
    def import_pages(self, kv: KVState, pages: np.ndarray, data: CanonicalPages) -> KVState:
        """The inverse of `export_pages`, from a store of any layout and page size, the same spec.

        The last page may be filled in part. Raises ValueError if the tokens need other than
        len(pages) pages, or are of another dtype (see `check_dtype`).
        """


def check_pages(pages: Sequence[int] | np.ndarray, total: int) -> None:
    """Raise ValueError for the null page, an id outside the pool, or a repetition."""
    ids = np.asarray(pages)
    if ids.size and (ids.min() <= NULL_PAGE or ids.max() >= total):
        raise ValueError(f"page ids must lie in 1..{total - 1}, got {ids.min()}..{ids.max()}")
    if np.unique(ids).size != ids.size:
        raise ValueError("a page occurs twice")


def check_dtype(spec: KVSpec, data: CanonicalPages) -> None:
    """Raise ValueError if pages come from a store of another dtype: they are never converted.

    Else an answer would depend on where its prompt was computed.
    """
    found = {part.dtype for layer in data for part in layer} - {spec.dtype}
    if found:
        names = " and ".join(sorted(str(dtype).removeprefix("torch.") for dtype in found))
        own = str(spec.dtype).removeprefix("torch.")
        raise ValueError(
            f"pages of {names} cannot go to a KV cache of {own}: give both ends the same --kv-dtype "
            "and --dtype"
        )
