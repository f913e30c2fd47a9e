"""Sockets as /sys describes them, and threads that stay on one."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from inarch_intel_cpu.placement import Socket, settle, sockets


def describe(
    system: Path, packages: dict[int, int], siblings: dict[int, str], nodes: dict[int, str]
):
    for cpu, package in packages.items():
        folder = system / f"cpu/cpu{cpu}/topology"
        folder.mkdir(parents=True)
        (folder / "physical_package_id").write_text(f"{package}\n")
        (folder / "thread_siblings_list").write_text(siblings.get(cpu, str(cpu)))
    for node, cpus in nodes.items():
        folder = system / f"node/node{node}"
        folder.mkdir(parents=True)
        (folder / "cpulist").write_text(f"{cpus}\n")


def test_a_socket_has_the_processors_that_may_be_used_and_their_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 4, 5, 6})
    packages = dict.fromkeys((0, 1, 4, 5), 0) | dict.fromkeys((2, 3, 6, 7), 1)
    pairs = {cpu: f"{cpu % 4},{cpu % 4 + 4}" for cpu in packages}
    describe(tmp_path, packages, pairs, {0: "0,4", 1: "1,5", 2: "2-3,6-7"})
    assert sockets(tmp_path) == [
        Socket(0, frozenset({0, 1, 4, 5}), 2, frozenset({0, 1})),
        Socket(1, frozenset({2, 6}), 1, frozenset({2})),
    ]


def test_a_system_that_says_nothing_has_no_sockets(tmp_path):
    assert sockets(tmp_path) == []


def test_threads_that_are_started_later_stay_on_the_socket():
    allowed = os.sched_getaffinity(0)
    one = min(allowed)
    found = []

    def settled() -> None:  # in a thread: the binding ends with it
        settle(Socket(0, frozenset({one}), 1, frozenset({0})))
        later = threading.Thread(target=lambda: found.append(os.sched_getaffinity(0)))
        later.start()
        later.join()

    thread = threading.Thread(target=settled)
    thread.start()
    thread.join()
    assert found == [{one}]
    assert os.sched_getaffinity(0) == allowed


@pytest.mark.parametrize("index", [-1, 99])
def test_a_socket_that_is_not_there_is_refused(index):
    from inarch.errors import BackendError
    from inarch_intel_cpu.backend import IntelCpuBackend

    if not IntelCpuBackend().probe().score:
        pytest.skip("the backend cannot run here")
    with pytest.raises(BackendError, match=f"no number {index}"):
        IntelCpuBackend().open(index)
