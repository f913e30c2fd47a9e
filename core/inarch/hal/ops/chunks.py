"""What the chunked forms of recurrences share: cutting into chunks, and decays within one.

Letters in shapes: n runs of L tokens, H heads, c chunks of C tokens, F features.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from inarch.hal.state import NULL_SLOT


def read_slots(states: Tensor, read: Tensor) -> Tensor:
    """Copies [n, ...] of the states in slots `read` [n]; zeros for the null slot."""
    begun = (read != NULL_SLOT).view(-1, *[1] * (states.dim() - 1))
    return torch.where(begun, states[read], 0)


def chunked(x: Tensor, size: int) -> Tensor:
    """[n, L, H, F] -> float32 [n, H, c, C, F]; the last chunk is filled up with zeros."""
    x = F.pad(x.float().transpose(1, 2), (0, 0, 0, -x.shape[1] % size))
    return x.reshape(*x.shape[:2], -1, size, x.shape[-1])


def unchunked(x: Tensor, length: int) -> Tensor:
    """[n, H, c, C, F] -> [n, length, H, F]"""
    return x.flatten(2, 3)[:, :, :length].transpose(1, 2)


def pairwise_decay(decay: Tensor) -> Tensor:
    """What is left of token j at token i: [..., C, F] -> [..., C, C, F], i first, 0 where i < j.

    decay: natural logarithms of what each token leaves of those before it. Each sum is of its own
    tokens alone: a difference of two sums from the beginning would be of large numbers.
    """
    size = decay.shape[-2]
    earlier = torch.ones(size, size, dtype=torch.bool, device=decay.device).tril(-1).unsqueeze(-1)
    steps = torch.where(earlier, decay.unsqueeze(-2), 0)
    itself = torch.eye(size, dtype=torch.bool, device=decay.device).unsqueeze(-1)
    return torch.where(earlier | itself, steps.cumsum(-3).exp(), 0)
