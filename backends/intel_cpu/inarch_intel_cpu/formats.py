"""How the kernels are told the dtype of a tensor: by the numbers of `Format` in csrc/vector.h."""

from __future__ import annotations

import torch

FORMATS = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2, torch.float8_e4m3fn: 3}
COMPUTED = (torch.float32, torch.bfloat16, torch.float16)  # what ops take and give
