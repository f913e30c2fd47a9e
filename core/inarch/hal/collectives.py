"""Communication between the ranks of a model that is split over devices.

Only tensors travel here; plans and other host objects have sockets of their own.
"""

from __future__ import annotations

from typing import Protocol

from torch import Tensor


class Communicator(Protocol):
    """Out of place by type; an implementation may reuse its input's memory."""

    rank: int
    size: int

    def all_reduce(self, x: Tensor) -> Tensor:
        """The sum over ranks, on every rank."""
        ...

    def all_gather(self, x: Tensor, dim: int = -1) -> Tensor:
        """The ranks' tensors concatenated along `dim`, in rank order."""
        ...

    def reduce_scatter(self, x: Tensor, dim: int = 0) -> Tensor:
        """This rank's equal share, along `dim`, of the sum over ranks."""
        ...

    def all_to_all(self, x: Tensor, send: list[int], receive: list[int]) -> Tensor:
        """Send send[r] rows of x to rank r, in order; return receive[r] rows from each rank r."""
        ...

    def broadcast(self, x: Tensor, source: int) -> Tensor: ...

    def barrier(self) -> None: ...

    def close(self) -> None: ...
