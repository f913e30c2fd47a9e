"""A kernel that gets no memory raises, on whichever thread it was; the process and its threads go on."""

from __future__ import annotations

import contextlib
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from inarch.hal.linear import LinearSpec
from inarch_intel_cpu.attending import attending_kernels
from inarch_intel_cpu.linear import NativeLinear


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


def test_a_product_without_room_for_its_rows_raises(native):
    layer, x = NativeLinear(native), torch.ones(1 << 15, 1024).half()
    packed = layer.prepack(LinearSpec(1, 1024, torch.float16), torch.ones(1, 1024).half(), None)
    with memory(32 << 20):
        with pytest.raises(MemoryError, match="a CPU kernel got no memory"):
            layer.apply(x, packed)
        assert layer.apply(x[:3], packed).eq(1024).all()
    assert layer.apply(x, packed).eq(1024).all()


def test_threads_that_get_none_tell_who_called(native):
    sample = next(k for k in attending_kernels(native) if k.op == "sample").load()
    logits = torch.zeros(2, 1 << 22)  # all alike: each is a candidate, to be sorted
    two = torch.ones(2)
    asked = (two, two / 2, two.int() * 7, two)
    for _ in range(3):
        with memory(16 << 20), pytest.raises(MemoryError):
            sample(logits, *asked)
    assert sample(logits, *asked).tolist() == [3, 3]
