"""Collectives through shared memory, between processes that really run, and when one of them dies."""

from __future__ import annotations

import multiprocessing
import os
import uuid
from pathlib import Path

import pytest

from inarch.errors import BackendError
from inarch_intel_cpu import communicator
from inarch_intel_cpu.communicator import SharedMemoryCommunicator

CHECK = """
import torch
from inarch.errors import BackendError
from inarch_intel_cpu.communicator import PART, SharedMemoryCommunicator
from inarch_intel_cpu.native import load

torch.set_num_threads(1)
comm = SharedMemoryCommunicator(rank, size, address, load("avx2"), seconds=60)
make = lambda r, *shape, dtype=torch.float32: (torch.arange(12.0) + 100 * r).view(4, 3).to(dtype)
said = "done"
exec(script)
comm.close()
pipe.send(said)
"""

EVERYTHING = """
mine, given = make(rank), [make(r) for r in range(size)]
total = torch.stack(given).sum(0)
for _ in range(3):
    assert torch.equal(comm.all_reduce(mine), total)
    assert torch.equal(comm.all_gather(mine), torch.cat(given, -1))
    assert torch.equal(comm.all_gather(mine.t(), 1), torch.cat([g.t() for g in given], 1))
    wide = torch.cat([mine] * size, 1)
    assert torch.equal(comm.reduce_scatter(wide, 1), total)
    assert torch.equal(comm.reduce_scatter(torch.cat([mine] * size)), total)
    # Rank r sends r + s rows to rank s.
    rows = [rank + s for s in range(size)]
    x = torch.full((sum(rows), 2), float(rank))
    x[:, 1] = torch.repeat_interleave(torch.arange(size), torch.tensor(rows)).float()
    arrived = comm.all_to_all(x, rows, rows)
    expected = torch.repeat_interleave(torch.arange(size), torch.tensor(rows)).float()
    assert torch.equal(arrived[:, 0], expected) and bool((arrived[:, 1] == rank).all())
    for source in range(size):
        assert torch.equal(comm.broadcast(mine, source), given[source])
    half = [g.bfloat16() for g in given]
    assert torch.equal(comm.all_reduce(half[rank]), torch.stack(half).float().sum(0).bfloat16())
    whole = torch.tensor([rank, 5], dtype=torch.int64)
    assert comm.all_reduce(whole).tolist() == [sum(range(size)), 5 * size]
    assert comm.all_reduce(mine[:0]).shape == (0, 3)
    comm.barrier()
# More than fits in a part.
large = torch.full((PART // 4 * 2 + 77,), 1.0) * (rank + 1)
assert bool((comm.all_reduce(large) == sum(range(1, size + 1))).all())
assert torch.equal(comm.all_gather(large).view(size, -1)[:, -1], torch.arange(1.0, size + 1))
assert bool((comm.reduce_scatter(large[: PART // 4 // size * size * 2]) == sum(range(1, size + 1))).all())
"""

WAITS = """
pipe.send("here")
if rank == 1:
    pipe.recv()
try:
    comm.all_reduce(make(rank))
except BackendError as error:
    said = str(error)
"""

LEAVES = """
if rank == 0:
    try:
        comm.barrier()
    except BackendError as error:
        said = str(error)
"""


@pytest.fixture(scope="module")
def context():
    found = multiprocessing.get_context("forkserver")
    found.set_forkserver_preload(["torch", "inarch_intel_cpu.communicator"])  # once for all
    return found


@pytest.fixture
def start(runs_here, context):
    processes = []
    address = f"127.0.0.1:{uuid.uuid4()}"

    def run(rank: int, size: int, script: str):
        mine, its = context.Pipe()
        known = {"rank": rank, "size": size, "address": address, "script": script, "pipe": its}
        process = context.Process(target=exec, args=(CHECK, known), daemon=True)
        process.start()
        its.close()
        processes.append(process)
        return process, mine

    yield run
    for process in processes:
        process.kill()
        process.join()


def finish(started) -> str:
    """What the process says in the end."""
    process, pipe = started
    said = pipe.recv() if pipe.poll(120) else "nothing"
    process.join(60)
    assert process.exitcode == 0, said
    return said


def names() -> set[str]:
    """Of memory that a rank 0 offers; one with a dot is not offered yet."""
    return {path.name for path in Path("/dev/shm").glob("inarch-*") if not path.suffix}


def test_ranks_agree_on_every_collective_and_leave_nothing_behind(start):
    before = names()
    for started in [start(rank, 3, EVERYTHING) for rank in range(3)]:
        assert finish(started) == "done"
    assert names() <= before


def test_a_rank_that_dies_is_an_error_of_the_others_not_a_wait(start):
    ranks = [start(rank, 2, WAITS) for rank in (0, 1)]
    for _, pipe in ranks:
        assert pipe.recv() == "here"
    ranks[1][0].kill()
    assert finish(ranks[0]) == "rank 1 of 2 has ended: start all ranks again"


def test_a_rank_that_has_left_is_not_waited_for(start):
    ranks = [start(rank, 2, LEAVES) for rank in (0, 1)]
    assert "rank 1 of 2 has ended" in finish(ranks[0])
    finish(ranks[1])


def test_memory_that_a_dead_run_has_left_is_not_joined(start):
    before = names()
    alone, _ = start(0, 2, "")  # waits for a rank 1 that never comes
    while names() <= before:
        assert alone.is_alive()
    alone.kill()
    alone.join()
    for started in [start(rank, 2, EVERYTHING) for rank in (1, 0)]:
        assert finish(started) == "done"


def test_a_rank_that_waits_in_vain_leaves_nothing_behind(native):
    before = names()
    with pytest.raises(BackendError, match="waited 0 s for rank 1"):
        SharedMemoryCommunicator(0, 2, str(uuid.uuid4()), native, seconds=0)
    assert names() <= before


def test_memory_that_is_not_there_is_an_error_and_kills_nobody(native, monkeypatch):
    before = set(Path("/dev/shm").iterdir())
    monkeypatch.setattr(communicator, "PART", 1 << 50)
    with pytest.raises(BackendError, match=r"cannot be had: .*--shm-size"):
        SharedMemoryCommunicator(0, 2, str(uuid.uuid4()), native, seconds=0)
    assert {
        path for path in Path("/dev/shm").iterdir() if path.suffix == f".{os.getpid()}"
    } <= before
