"""The kernel table of an AMD GPU: AITER's where it is installed, Triton's, torch's own."""

from __future__ import annotations

from collections.abc import Sequence

from inarch.hal.op import Kernel
from inarch_amd.aiter_kernels import aiter_kernels
from inarch_amd.architectures import ARCHITECTURES, family
from inarch_triton.gpu.torch_kernels import torch_kernels
from inarch_triton.kernels import kernels as triton_kernels


def kernels(arch: str) -> Sequence[Kernel]:
    """arch: as torch names it, "gfx942:sramecc+:xnack-" and the like."""
    library = ARCHITECTURES[family(arch)].blas
    return [*aiter_kernels(arch), *triton_kernels(arch), *torch_kernels(library)]
