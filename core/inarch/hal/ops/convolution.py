"""Short causal convolutions along a sequence, which keep their last inputs in a state slot."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from inarch.hal.op import Residency, op
from inarch.hal.ops.chunks import read_slots


@op(residency=Residency.STATE)
def causal_conv(
    x: Tensor, weight: Tensor, bias: Tensor | None, tails: Tensor, read: Tensor, write: Tensor
) -> tuple[Tensor, Tensor]:
    """silu of each channel's own convolution with its last W inputs: (out [n, L, C], tails).

    n runs of L tokens in C channels: x [n, L, C], weight [C, W], whose last column is for the token
    itself, bias [C]. tails [slots, W - 1, C]: the inputs before a run are read from slots read [n]
    (zeros from slot 0), its last inputs are written to slots write [n]; returned as it is then.
    """
    width = weight.shape[1]
    inputs = torch.cat((read_slots(tails, read), x), dim=1)
    tails = tails.index_copy_(0, write, inputs[:, inputs.shape[1] - width + 1 :])
    out = F.conv1d(inputs.transpose(1, 2), weight.unsqueeze(1), bias, groups=len(weight))
    return F.silu(out).transpose(1, 2), tails
