"""Device memory: what the host cannot touch, what is poisoned, and how late results come."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from inarch_fake.device import LATENCY, FakeDevice
from inarch_fake.memory import DEVICE, FakeDeviceError, Recorder, Usage
from torch import Tensor


@pytest.fixture(autouse=True, params=[True, False], ids=["inference", "plain"])
def _mode(request: pytest.FixtureRequest) -> Iterator[None]:
    with torch.inference_mode(request.param):
        yield


@pytest.fixture
def device() -> FakeDevice:
    return FakeDevice()


def on_device(*values: float) -> Tensor:
    return FakeDevice().upload(np.array(values, np.float32))


def on_host(tensor: Tensor) -> Tensor:
    return torch.from_numpy(FakeDevice().download(tensor).wait())


@pytest.mark.parametrize(
    "reading",
    [
        lambda x: x.sum().item(),
        lambda x: int(x[0]),
        lambda x: bool((x > 0).all()),
        lambda x: x.cpu(),
        lambda x: x.to("cpu", torch.float64),
        lambda x: torch.empty(2).copy_(x),
        lambda x: x[x > 1],
        lambda x: x.nonzero(),
        lambda x: torch.equal(x, x),
        lambda x: x + torch.ones(2),
        lambda x: x.index_select(0, torch.tensor([0])),
    ],
)
def test_the_host_cannot_touch_device_memory(reading: Callable[[Tensor], Any]) -> None:
    with pytest.raises(FakeDeviceError):
        reading(on_device(1, 2))


@pytest.mark.parametrize("reading", [Tensor.numpy, Tensor.tolist, np.asarray])
def test_device_memory_is_no_array(reading: Callable[[Tensor], Any]) -> None:
    with pytest.raises(RuntimeError, match="not supported"):
        reading(on_device(1, 2))


def test_operations_compute_on_the_device() -> None:
    x = on_device(1, 2, 3, 4).view(2, 2)
    assert x.device == DEVICE == (x @ x.t()).device
    assert on_host(x @ x.t()).tolist() == [[5, 11], [11, 25]]
    x[0] = torch.arange(2, device=DEVICE).float()
    assert on_host(x.flatten()).tolist() == [0, 1, 3, 4]


def test_fresh_memory_is_poisoned() -> None:
    assert on_host(torch.empty(3, device=DEVICE)).isnan().all()
    assert on_host(on_device(1).new_empty(2, dtype=torch.int64)).tolist() == [-(2**63)] * 2


def test_memory_is_counted_and_given_back(device: FakeDevice) -> None:
    before = device.memory().used
    x = torch.zeros(1000, device=DEVICE)
    view = x[10:]
    assert device.memory().used - before == 4000
    del view, x
    assert device.memory().used == before
    assert device.memory().peak >= before + 4000
    device.reset_peak_memory()
    assert device.memory().peak == before


def test_more_memory_than_there_is_is_refused() -> None:
    FakeDevice(memory_bytes=Usage.used + 1000)
    try:
        torch.zeros(200, device=DEVICE)
        with pytest.raises(torch.OutOfMemoryError):
            torch.zeros(300, device=DEVICE)
    finally:
        FakeDevice()


def test_an_upload_is_a_copy(device: FakeDevice) -> None:
    host = np.arange(3)
    uploaded = device.upload(host)
    host += 1
    assert on_host(uploaded).tolist() == [0, 1, 2]


def test_a_download_arrives_late_and_holds_what_was_there_when_it_began(device: FakeDevice) -> None:
    x = on_device(1, 2)
    transfer = device.download(x)
    x.zero_()
    assert [transfer.ready() for _ in range(LATENCY + 1)] == [False] * LATENCY + [True]
    assert transfer.wait().tolist() == [1, 2]


def test_downloads_arrive_in_the_order_of_the_work(device: FakeDevice) -> None:
    first, second = (device.download(on_device(i)) for i in range(2))
    second.wait()
    assert first.ready()
    third = device.download(on_device(3))
    device.synchronize()
    assert third.ready()


def test_recorded_work_is_repeated_on_the_same_addresses_with_the_numbers_of_then() -> None:
    x, factor, recorder = on_device(1, 2), 10, Recorder()
    with recorder:
        scaled = x * factor
        total = scaled.view(2, 1).sum(0)
        total += x[0]
    assert on_host(total).tolist() == [31]
    factor = 99
    x.copy_(on_device(3, 4))
    recorder.replay()
    assert on_host(scaled).tolist() == [30, 40]
    assert on_host(total).tolist() == [73]


def test_host_memory_cannot_be_read_by_recorded_work() -> None:
    x = on_device(1, 2)
    with pytest.raises(FakeDeviceError, match="comes before a step"), Recorder():
        x.copy_(torch.zeros(2))


def test_memory_from_before_inference_mode_can_be_written_within_it() -> None:
    with torch.inference_mode(False):
        pool = torch.zeros(2, 3, device=DEVICE)
    pool.view(-1).index_copy_(0, torch.zeros(1, dtype=torch.int64, device=DEVICE), on_device(5))
    assert on_host(pool).tolist() == [[5, 0, 0], [0, 0, 0]]
