"""Without an accelerator, Triton's interpreter plays the device."""

from __future__ import annotations

import os

import torch

if not torch.accelerator.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # read when a kernel is defined
