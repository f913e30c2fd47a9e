"""Latent attention: queries are mapped to latents and attend over the rows of the pages (absorbed).

Every query head attends over one KV head, whose values are the first features of its keys.
"""

from __future__ import annotations

import torch
from torch import Tensor

from inarch.hal.attention import AttentionBatch, AttentionSpec, HostPlan
from inarch.hal.device import Device
from inarch.hal.executor import StepShape
from inarch.hal.kv import KVState
from inarch.hal.latent import LatentSpec, UpProjection
from inarch_tpu.attention import Plan, XlaAttention
from inarch_tpu.kv import XlaKVStore, written
from inarch_tpu.paged import Blocks, attend
from inarch_tpu.tensor import JaxTensor, value


class XlaLatentAttention:
    """Serves every spec. Prompts are attended absorbed too, which takes more products than expanded."""

    capturable = True

    def __init__(self, spec: LatentSpec, store: XlaKVStore, device: Device) -> None:
        self._store, width = store, spec.kv_rank + spec.rope_dim
        self._spec = AttentionSpec(spec.q_heads, 1, width, spec.kv_rank, spec.scale, spec.dtype)
        self._rows = XlaAttention(self._spec, store, device)

    def kept_bytes(self, most: StepShape) -> int:
        return 0

    def plan(self, batch: AttentionBatch) -> HostPlan:
        return self._rows.plan(batch)

    def run(
        self,
        layer: int,
        q_nope: Tensor,
        q_rope: Tensor,
        latent: Tensor,
        k_rope: Tensor,
        kv: KVState,
        plan: Plan,
        up: UpProjection,
    ) -> tuple[Tensor, KVState]:
        row = value(torch.cat((latent, k_rope), -1).unsqueeze(1))
        slots = value(plan.slots)
        pages = written(kv.layers[layer], slots, row, row[..., :0], self._store.mesh)
        q = value(torch.cat((up.absorb(q_nope), q_rope), -1))
        assert plan.blocks is not None
        blocks = Blocks(*(None if x is None else value(x) for x in plan.blocks))
        heads = self._store.spec.layers[layer]
        out, _ = attend(self._spec, heads, q, pages, blocks, None)
        return up.values(JaxTensor(out)), kv.with_layer(layer, pages)
