"""The kernel table of an NVIDIA GPU: Triton's kernels, cuBLAS, and torch's own where that is fast."""

from __future__ import annotations

from collections.abc import Sequence

from inarch.hal.op import Kernel
from inarch_triton.gpu.torch_kernels import torch_kernels
from inarch_triton.kernels import kernels as triton_kernels


def kernels(arch: str) -> Sequence[Kernel]:
    """arch: "sm_90" and the like."""
    return [*triton_kernels(arch), *torch_kernels("cublas")]
