"""An opened AMD GPU. torch calls it "cuda" and HIP's graphs CUDA graphs; the backend's name is `amd`."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from inarch.errors import BackendError
from inarch.hal.kv import KVSpec, KVStore
from inarch.hal.op import Kernel
from inarch.hal.support import Support
from inarch_amd.aiter_kernels import version as aiter_version
from inarch_amd.architectures import ARCHITECTURES, family, known
from inarch_amd.kernels import kernels
from inarch_triton.gpu.device import GpuDevice, check_index, dtypes_of
from inarch_triton.kernels import NARROW, keeps_fp8
from inarch_triton.kv import paged_store


class AmdDevice(GpuDevice):
    """GPU number `index` of those that this process was given. Raises BackendError."""

    def __init__(self, index: int) -> None:
        if torch.version.hip is None:
            raise BackendError(f"torch {torch.__version__} has no ROCm: install a ROCm build of it")
        check_index(index)
        libraries = {"HIP of torch": torch.version.hip, **aiter_version()}
        super().__init__(index, _arch(index), libraries)

    def dtypes(self, checkpoint: torch.dtype) -> Sequence[tuple[torch.dtype, str]]:
        facts = ARCHITECTURES[family(self.info.arch)]
        return dtypes_of(checkpoint, facts.units, facts.exact)

    def kv_dtypes(self, compute: torch.dtype) -> Sequence[tuple[torch.dtype, Support]]:
        return [*super().kv_dtypes(compute), (NARROW, keeps_fp8(self.info.arch))]

    def kernels(self) -> Sequence[Kernel]:
        return kernels(self.info.arch)

    def kv_store(self, spec: KVSpec, page_tokens: int) -> KVStore:
        return paged_store(self.info.arch, spec, page_tokens, self.torch_device)


def _arch(index: int) -> str:
    """ "gfx942:sramecc+:xnack-" and the like. Raises BackendError if no kernels are for it."""
    arch: str = torch.cuda.get_device_properties(index).gcnArchName
    supported = known(arch)
    if not supported:
        raise BackendError(
            f"{torch.cuda.get_device_name(index)}: {supported.why}: run on the CPU with "
            "--backend reference"
        )
    return arch
