"""Collectives between two processes that really run, and of one rank alone."""

from __future__ import annotations

import socket
import subprocess
import sys

import pytest
import torch
from torch import Tensor

from inarch.errors import BackendError
from inarch.hal.collectives import Communicator
from inarch.hal.reference.collectives import GlooCommunicator, LocalCommunicator


def free_address() -> str:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"127.0.0.1:{server.getsockname()[1]}"


def values(rank: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return (torch.arange(12, dtype=dtype) + 100 * rank).view(4, 3)


def check_everything(comm: Communicator) -> None:
    """Runs on each of two ranks."""
    mine, both = values(comm.rank), (values(0), values(1))
    assert torch.equal(comm.all_reduce(mine.clone()), both[0] + both[1])
    assert torch.equal(comm.all_gather(mine), torch.cat(both, -1))
    assert torch.equal(comm.all_gather(mine, 0), torch.cat(both, 0))
    assert torch.equal(comm.all_gather(mine.t(), 1), torch.cat([b.t() for b in both], 1))
    share = (both[0] + both[1])[2 * comm.rank : 2 * comm.rank + 2]
    assert torch.equal(comm.reduce_scatter(mine.clone()), share)
    columns = torch.cat([both[0] + both[1]] * 2, 1)
    wide = torch.cat([mine, mine], 1)
    expected = columns[:, 3 * comm.rank : 3 * comm.rank + 3]
    assert torch.equal(comm.reduce_scatter(wide, 1), expected)
    # Rank 0 keeps one row and sends three; rank 1 sends two and keeps two.
    send, receive = ([1, 3], [1, 2]) if comm.rank == 0 else ([2, 2], [3, 2])
    arrived = (both[0][:1], both[1][:2]) if comm.rank == 0 else (both[0][1:], both[1][2:])
    assert torch.equal(comm.all_to_all(mine, send, receive), torch.cat(arrived))
    for source in (0, 1):
        assert torch.equal(comm.broadcast(mine.clone(), source), both[source])
    half = values(comm.rank, torch.bfloat16)
    assert torch.equal(comm.all_reduce(half.clone()), values(0).bfloat16() + values(1).bfloat16())
    comm.barrier()


def two_groups_at_once(comm: Communicator, address: str) -> None:
    other = GlooCommunicator(1 - comm.rank, 2, address)  # the ranks swapped
    assert torch.equal(comm.all_gather(torch.tensor([comm.rank])), torch.tensor([0, 1]))
    assert torch.equal(other.all_gather(torch.tensor([comm.rank])), torch.tensor([1, 0]))
    other.close()


def run_rank(rank: int, address: str, second: str) -> None:
    torch.set_num_threads(1)
    comm = GlooCommunicator(rank, 2, address)
    assert (comm.rank, comm.size) == (rank, 2)
    check_everything(comm)
    two_groups_at_once(comm, second)
    assert not torch.distributed.is_initialized()
    comm.close()


def test_two_ranks_agree_on_every_collective_in_each_of_their_groups() -> None:
    command = [sys.executable, __file__, free_address(), free_address()]
    ranks = [
        subprocess.Popen([*command, str(rank)], stderr=subprocess.PIPE, text=True)
        for rank in (0, 1)
    ]
    for process in ranks:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors


def test_one_rank_alone_gets_back_what_it_gave() -> None:
    comm = LocalCommunicator()
    x = values(0)
    results = [
        comm.all_reduce(x),
        comm.all_gather(x),
        comm.reduce_scatter(x),
        comm.all_to_all(x, [4], [4]),
        comm.broadcast(x, 0),
    ]
    assert all(torch.equal(result, x) for result in results)
    comm.barrier()
    comm.close()


def test_a_malformed_address_is_a_clear_error() -> None:
    with pytest.raises(BackendError, match="rank 0 of 2 cannot meet the others at 'nowhere'"):
        GlooCommunicator(0, 2, "nowhere")


if __name__ == "__main__":
    address, second, rank = sys.argv[1:]
    run_rank(int(rank), address, second)
