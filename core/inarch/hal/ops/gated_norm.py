"""A norm beside a gate, as linear attentions and state spaces end. N features."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from inarch.hal.op import op


@op()
def gated_rms_norm(
    x: Tensor,
    gate: Tensor,
    weight: Tensor,
    eps: float,
    *,
    group: int,
    gate_first: bool = False,
    sigmoid: bool = False,
) -> Tensor:
    """rms_norm(x) * weight * silu(gate), or rms_norm(x * silu(gate)) * weight if gate_first.

    sigmoid: in the place of silu.

    x, gate [..., N], weight [N]; the mean of squares is taken over each `group` of features. Computed
    in float32, returned in x's dtype.
    """
    wide, opened = x.float(), (torch.sigmoid if sigmoid else F.silu)(gate.float())
    if gate_first:
        wide = wide * opened
    grouped = wide.view(*wide.shape[:-1], -1, group)
    scale = torch.rsqrt(grouped.square().mean(-1, keepdim=True) + eps)
    out = (grouped * scale).flatten(-2) * weight.float()
    return (out if gate_first else out * opened).to(x.dtype)
