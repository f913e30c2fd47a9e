"""Backends whose ranks meet over sockets, all but one of them wrong in one thing.

A rank's process finds them by name, so each is a class that takes no arguments.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from inarch.errors import BackendError
from inarch.hal.backend import Backend, Probe
from inarch.hal.collectives import Communicator
from inarch.hal.device import Device
from inarch.hal.reference.collectives import GlooCommunicator
from inarch.hal.reference.device import ReferenceDevice


class Sockets(Backend):
    """Right: the reference's own collectives, of up to three ranks."""

    name = "sockets"
    communicator: type[GlooCommunicator] = GlooCommunicator

    def probe(self) -> Probe:
        return Probe(1, ("a CPU",))

    def open(self, index: int) -> Device:
        if index:
            raise BackendError("there is one")
        return SocketsDevice(self.communicator)


class SocketsDevice(ReferenceDevice):
    def __init__(self, communicator: type[GlooCommunicator]) -> None:
        super().__init__()
        self._communicator = communicator

    def dtypes(self, checkpoint: torch.dtype) -> Sequence[tuple[torch.dtype, str]]:
        return [(torch.float32, "tests are short")]

    def communicator(self, rank: int, size: int, address: str) -> Communicator:
        if size > 3:
            raise BackendError(f"{size} ranks are too many")
        return self._communicator(rank, size, address)


class MissingReduction(Sockets):
    class communicator(GlooCommunicator):
        def all_reduce(self, x: Tensor) -> Tensor:
            return x


class RanksBackwards(Sockets):
    class communicator(GlooCommunicator):
        def all_gather(self, x: Tensor, dim: int = -1) -> Tensor:
            parts = super().all_gather(x, dim).chunk(self.size, dim)
            return torch.cat(parts[::-1], dim)


class AlwaysRows(Sockets):
    class communicator(GlooCommunicator):
        def all_gather(self, x: Tensor, dim: int = -1) -> Tensor:
            return super().all_gather(x, 0)


class NextShare(Sockets):
    class communicator(GlooCommunicator):
        def reduce_scatter(self, x: Tensor, dim: int = 0) -> Tensor:
            shares = self.all_reduce(x).chunk(self.size, dim)
            return shares[(self.rank + 1) % self.size]


class SwappedRows(Sockets):
    class communicator(GlooCommunicator):
        def all_to_all(self, x: Tensor, send: list[int], receive: list[int]) -> Tensor:
            return super().all_to_all(x, send, receive).roll(1, 0)


class FromTheFirst(Sockets):
    class communicator(GlooCommunicator):
        def broadcast(self, x: Tensor, source: int) -> Tensor:
            return super().broadcast(x, 0)


class OneResult(Sockets):
    """Every sum is written to the same memory."""

    class communicator(GlooCommunicator):
        _kept: Tensor | None = None

        def all_reduce(self, x: Tensor) -> Tensor:
            summed = super().all_reduce(x)
            if self._kept is None or self._kept.shape != x.shape:
                self._kept = summed
            return self._kept.copy_(summed)


class FloatIds(Sockets):
    class communicator(GlooCommunicator):
        def broadcast(self, x: Tensor, source: int) -> Tensor:
            return super().broadcast(x.float(), source).to(x.dtype)


class ThinksItIsFirst(Sockets):
    class communicator(GlooCommunicator):
        def __init__(self, rank: int, size: int, address: str) -> None:
            super().__init__(rank, size, address)
            self.rank = 0


class Dies(Sockets):
    """Whether its end is seen first or what that does to the other rank, a matter of time."""

    class communicator(GlooCommunicator):
        def all_reduce(self, x: Tensor) -> Tensor:
            if self.rank == 1:
                raise SystemExit
            return super().all_reduce(x)


WRONG: dict[str, tuple[type[Sockets], str, str]] = {  # the case that shows it, what it says
    "missing-reduction": (MissingReduction, "all_reduce-2-*", "has of call 0 is off by"),
    "ranks-backwards": (RanksBackwards, "all_gather-2-*", "has of call 0 is off by"),
    "always-rows": (AlwaysRows, "all_gather-turned-2-*", "has of call 0 has shape"),
    "next-share": (NextShare, "reduce_scatter-2-*", "has of call 0 is off by"),
    "swapped-rows": (SwappedRows, "all_to_all-2-*", "has of call 0 is off by"),
    "from-the-first": (FromTheFirst, "broadcast-2-*", "has of call 1 is off by"),
    "one-result": (OneResult, "all_reduce-thrice-2-*", "has of call 0 is off by"),
    "float-ids": (FloatIds, "broadcast-2-int64", "has of call 0 is wrong at"),
    "thinks-it-is-first": (ThinksItIsFirst, "meet-2", "ranks and sizes are said to be"),
    "dies": (Dies, "all_reduce-2-*", "of 2"),
}
