"""Collectives between NPUs by HCCL, in a process group of their own: several can live in one process.

They run on the device, in order with its work; the host does not wait for them.
"""

from __future__ import annotations

from datetime import timedelta
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.distributed import TCPStore

from inarch.errors import BackendError

TIMEOUT = timedelta(minutes=5)  # to connect, and for any one collective


class HcclCommunicator:
    """Ranks 0..size-1 that meet at `address` ("host:port"), where rank 0 listens."""

    def __init__(self, rank: int, size: int, address: str, torch_npu: ModuleType) -> None:
        self.rank, self.size = rank, size
        group = torch_npu._C._distributed_c10d.ProcessGroupHCCL
        host, _, port = address.rpartition(":")
        try:
            store = TCPStore(host, int(port), size, is_master=rank == 0, timeout=TIMEOUT)
            options = group.Options()
            options._timeout = TIMEOUT
            options.is_high_priority_stream = False
            options.global_ranks_in_group = list(range(size))
            options.group_id = address
            self._group: Any = group(store, rank, size, options)
        except (ValueError, RuntimeError) as error:
            raise BackendError(
                f"rank {rank} of {size} cannot meet the others at {address!r}: {error}"
            ) from error

    def all_reduce(self, x: Tensor) -> Tensor:
        x = x.contiguous()
        self._group.allreduce([x]).wait()
        return x

    def all_gather(self, x: Tensor, dim: int = -1) -> Tensor:
        parts = x.new_empty((self.size * len(x), *x.shape[1:]))
        self._group._allgather_base(parts, x.contiguous()).wait()
        return torch.cat(parts.chunk(self.size), dim)

    def reduce_scatter(self, x: Tensor, dim: int = 0) -> Tensor:
        shares = x.chunk(self.size, dim)
        mine = torch.empty_like(shares[0], memory_format=torch.contiguous_format)
        self._group._reduce_scatter_base(mine, torch.cat(shares)).wait()
        return mine

    def all_to_all(self, x: Tensor, send: list[int], receive: list[int]) -> Tensor:
        received = x.new_empty((sum(receive), *x.shape[1:]))
        self._group.alltoall_base(received, x.contiguous(), receive, send).wait()
        return received

    def broadcast(self, x: Tensor, source: int) -> Tensor:
        x = x.contiguous()
        self._group.broadcast(x, source).wait()
        return x

    def barrier(self) -> None:
        self._group.barrier().wait()

    def close(self) -> None:
        self._group.shutdown()
