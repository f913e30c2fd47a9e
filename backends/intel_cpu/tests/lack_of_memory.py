"""Kernels that get no memory, in a process of their own: in another one there may be some to spare.

A program: its argument is the variant. Fails with an AssertionError.
"""

from __future__ import annotations

import contextlib
import resource
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from inarch.hal.linear import LinearSpec
from inarch_intel_cpu.attending import attending_kernels
from inarch_intel_cpu.linear import NativeLinear
from inarch_intel_cpu.native import Native, load


@contextlib.contextmanager
def memory(more: int) -> Iterator[None]:
    """Only so many bytes more than the process has."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (held + more, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def raises(call: Callable[[], object]) -> str:
    try:
        call()
    except MemoryError as error:
        return str(error)
    raise AssertionError("there was memory")


def a_product_without_room_for_its_rows_raises(native: Native) -> None:
    layer, x = NativeLinear(native), torch.ones(1 << 15, 1024).half()
    packed = layer.prepack(LinearSpec(1, 1024, torch.float16), torch.ones(1, 1024).half(), None)
    with memory(32 << 20):
        assert "a CPU kernel got no memory" in raises(lambda: layer.apply(x, packed))
        assert layer.apply(x[:3], packed).eq(1024).all()
    assert layer.apply(x, packed).eq(1024).all()


def threads_that_get_none_tell_who_called(native: Native) -> None:
    sample = next(k for k in attending_kernels(native) if k.op == "sample").load()
    logits = torch.zeros(2, 1 << 22)  # all alike: each is a candidate, to be sorted
    two = torch.ones(2)
    asked = (two, two / 2, two.int() * 7, two)
    for _ in range(3):
        with memory(16 << 20):
            raises(lambda: sample(logits, *asked))
    assert sample(logits, *asked).tolist() == [3, 3]


if __name__ == "__main__":
    kernels = load(sys.argv[1])
    kernels.set_threads(2)
    threads_that_get_none_tell_who_called(kernels)
    a_product_without_room_for_its_rows_raises(kernels)
