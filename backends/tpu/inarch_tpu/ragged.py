"""JAX's own Pallas kernel for ragged batches over pages, on the chips of a TPU.

`jax.experimental.pallas.ops.tpu.ragged_paged_attention`: prefills, extends and decodes in one call, K and
V streamed page by page. It has no reference mode that runs on a CPU; CI lowers it for TPUs.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import torch
from jax.sharding import Mesh, PartitionSpec

from inarch.hal.attention import AttentionBatch, AttentionSpec
from inarch.hal.kv import NULL_PAGE
from inarch.hal.support import Support, no, yes
from inarch_tpu.mesh import AXIS

LANES = 128  # features of a vector register's row: what a head's size is rounded up to
OLDEST = 4  # generation of chips that the kernel was written for
TABLE_BYTES = (
    512 << 10
)  # of page tables: they lie in a chip's scalar memory, of which v5e has 1 MiB
TILED = (1, 2, 4, 8)  # rows of 32 bits, or a multiple of the last, that XLA tiles without gaps


class Lengths(NamedTuple):
    """int32 arrays, as the kernel wants them."""

    kv_lens: Any  # [S]
    page_indices: Any  # [S, pages]
    cu_q_lens: Any  # [S + 1]
    num_seqs: Any  # [1]


def supports(spec: AttentionSpec, chips: int = 1) -> Support:
    """Whether the kernel can express an attention; if not, the plain JAX one serves."""
    reasons = []
    if not spec.causal:
        reasons.append("causal attention only")
    if spec.key_dim != spec.value_dim:
        reasons.append(f"keys of {spec.key_dim} and values of {spec.value_dim} features")
    if spec.sinks:
        reasons.append("no sinks")
    if spec.chunk is not None:
        reasons.append("no chunks")
    if spec.dtype not in (torch.bfloat16, torch.float32):
        reasons.append(f"no {str(spec.dtype).removeprefix('torch.')}")
    if spec.kv_heads % chips:
        reasons.append(f"{spec.kv_heads} KV heads on {chips} chips")
    packed = 2 * spec.kv_heads // chips * spec.dtype.itemsize / 4
    if packed not in TILED and packed % TILED[-1]:
        reasons.append(f"{spec.kv_heads // chips} KV heads on a chip cannot be tiled")
    return no(*reasons) if reasons else yes()


def generation(kind: str) -> int:
    """Of a chip, by what JAX calls it: "TPU v5 lite", "TPU7x"; 0 if it is no TPU."""
    found = re.match(r"TPU ?v?(\d+)", kind)
    return int(found[1]) if found else 0


def lengths_of(batch: AttentionBatch, table: np.ndarray) -> Lengths:
    """Padding sequences, which lie in the null page and come last, are left out."""
    real = int(np.count_nonzero(table[:, 0] != NULL_PAGE))
    return Lengths(
        batch.kv_lens.astype(np.int32),
        table,
        batch.q_indptr.astype(np.int32),
        np.array([real], np.int32),
    )


def attend(spec: AttentionSpec, q: Any, pages: Any, lengths: Lengths, mesh: Mesh) -> Any:
    """out [T, H, D]; q [T, H, D], pages [pages, page_tokens, 2 G, D']."""
    from jax.experimental.pallas.ops.tpu.ragged_paged_attention import ragged_paged_attention

    def on_chip(q: Any, pages: Any, *lengths: Any) -> Any:
        return ragged_paged_attention(
            q,
            pages,
            *lengths,
            sm_scale=spec.scale,
            sliding_window=spec.window,
            soft_cap=spec.softcap,
        )

    padded = jnp.pad(q, ((0, 0), (0, 0), (0, pages.shape[-1] - q.shape[-1])))
    if mesh.size > 1:
        heads, rest = PartitionSpec(None, AXIS), PartitionSpec()
        specs = (heads, PartitionSpec(None, None, AXIS), rest, rest, rest, rest)
        on_chip = jax.shard_map(
            on_chip, mesh=mesh, in_specs=specs, out_specs=heads, check_vma=False
        )
    return on_chip(padded, pages, *lengths)[..., : q.shape[-1]]
