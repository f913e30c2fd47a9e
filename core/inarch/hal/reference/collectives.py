"""Collectives without any vendor: over sockets for several ranks, or of one rank with itself."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import TCPStore  # type: ignore[attr-defined]

from inarch.errors import BackendError

TIMEOUT = timedelta(minutes=5)  # to connect, and for any one collective


class LocalCommunicator:
    """The only rank: everything is what it was."""

    rank = 0
    size = 1

    def all_reduce(self, x: Tensor) -> Tensor:
        return x

    def all_gather(self, x: Tensor, dim: int = -1) -> Tensor:
        return x

    def reduce_scatter(self, x: Tensor, dim: int = 0) -> Tensor:
        return x

    def all_to_all(self, x: Tensor, send: list[int], receive: list[int]) -> Tensor:
        return x

    def broadcast(self, x: Tensor, source: int) -> Tensor:
        return x

    def barrier(self) -> None:
        return None

    def close(self) -> None:
        return None


class GlooCommunicator:
    """Ranks 0..size-1 that meet at `address` ("host:port"), where rank 0 listens.

    It has a process group of its own, so that several can live in one process. Tensors of another
    device than the CPU go over the host.
    """

    def __init__(self, rank: int, size: int, address: str) -> None:
        self.rank, self.size = rank, size
        self._group: Any
        host, _, port = address.rpartition(":")
        try:
            store = TCPStore(host, int(port), size, is_master=rank == 0, timeout=TIMEOUT)
            self._group = dist.ProcessGroupGloo(store, rank, size, TIMEOUT)
        except (ValueError, RuntimeError) as error:
            raise BackendError(
                f"rank {rank} of {size} cannot meet the others at {address!r}: {error}"
            ) from error

    def all_reduce(self, x: Tensor) -> Tensor:
        summed = x.cpu().contiguous()
        self._group.allreduce([summed]).wait()
        return summed.to(x.device)

    def all_gather(self, x: Tensor, dim: int = -1) -> Tensor:
        mine = x.cpu().contiguous()
        parts = [torch.empty_like(mine) for _ in range(self.size)]
        self._group.allgather([parts], [mine]).wait()
        return torch.cat(parts, dim).to(x.device)

    def reduce_scatter(self, x: Tensor, dim: int = 0) -> Tensor:
        shares = [share.contiguous() for share in x.cpu().tensor_split(self.size, dim)]
        mine = torch.empty_like(shares[self.rank])
        self._group.reduce_scatter([mine], [shares]).wait()
        return mine.to(x.device)

    def all_to_all(self, x: Tensor, send: list[int], receive: list[int]) -> Tensor:
        received = x.new_empty((sum(receive), *x.shape[1:]), device="cpu")
        self._group.alltoall_base(received, x.cpu().contiguous(), receive, send).wait()
        return received.to(x.device)

    def broadcast(self, x: Tensor, source: int) -> Tensor:
        sent = x.cpu().contiguous()
        self._group.broadcast(sent, source).wait()
        return sent.to(x.device)

    def barrier(self) -> None:
        self._group.barrier().wait()

    def close(self) -> None:
        self._group.shutdown()
