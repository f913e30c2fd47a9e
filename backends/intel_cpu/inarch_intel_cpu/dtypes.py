"""How kernels are told of a dtype: the numbers of `Format` in csrc/numbers.h."""

from __future__ import annotations

import torch

TYPES = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}
