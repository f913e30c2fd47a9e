"""HCCL between two processes, each with a simulated NPU: run as a script, this file is one of them."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from inarch.errors import BackendError
from inarch.hal.device import Device
from inarch_ascend.simulation import unavailable

HERE = Path(__file__).parent


def values(rank: int) -> Tensor:
    return (torch.arange(12.0) + 100 * rank).view(4, 3)


def run_rank(rank: int, address: str) -> None:
    from simulated_machine.plugin import backend

    torch.set_num_threads(1)
    device = backend().open(0)
    comm = device.communicator(rank, 2, address)
    assert comm is not None

    def check(found: Tensor, expected: Tensor) -> None:
        assert found.device.type == "npu"
        assert torch.equal(found.cpu(), expected)

    def mine(x: Tensor) -> Tensor:
        return x.clone().to(device.torch_device)

    own, both = values(rank), (values(0), values(1))
    check(comm.all_reduce(mine(own)), both[0] + both[1])
    check(comm.all_gather(mine(own)), torch.cat(both, -1))
    check(comm.all_gather(mine(own), 0), torch.cat(both, 0))
    check(comm.all_gather(mine(own).t(), 1), torch.cat([b.t() for b in both], 1))
    check(comm.reduce_scatter(mine(own)), (both[0] + both[1]).chunk(2)[rank])
    wide = torch.cat([own, own], 1)
    check(comm.reduce_scatter(mine(wide), 1), both[0] + both[1])
    send, receive = ([1, 3], [1, 2]) if rank == 0 else ([2, 2], [3, 2])
    arrived = (both[0][:1], both[1][:2]) if rank == 0 else (both[0][1:], both[1][2:])
    check(comm.all_to_all(mine(own), send, receive), torch.cat(arrived))
    for source in (0, 1):
        check(comm.broadcast(mine(own), source), both[source])
    comm.barrier()
    comm.close()


def test_two_ranks_agree_on_every_collective() -> None:
    if reason := unavailable():
        pytest.skip(reason)
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
    path = os.pathsep.join([str(HERE), *filter(None, sys.path)])
    ranks = [
        subprocess.Popen(
            [sys.executable, __file__, str(rank), address],
            env=os.environ | {"PYTHONPATH": path},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in (0, 1)
    ]
    for process in ranks:
        _, errors = process.communicate(timeout=200)
        assert process.returncode == 0, errors


def test_a_malformed_address_is_a_clear_error(npu: Device) -> None:
    with pytest.raises(BackendError, match="rank 0 of 2 cannot meet the others at 'nowhere'"):
        npu.communicator(0, 2, "nowhere")


if __name__ == "__main__":
    run_rank(int(sys.argv[1]), sys.argv[2])
