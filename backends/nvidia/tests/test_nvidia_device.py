"""On a GPU: the device's promises. These measure, so nothing else may use the GPU meanwhile."""

from __future__ import annotations

import gc

import numpy as np
import pytest
import torch

from inarch.errors import BackendError

pytestmark = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="needs an NVIDIA GPU: ci/gpu runs this file on one"
)
LONG_SLEEP = 1 << 30  # cycles: half a second or more


@pytest.fixture
def device():
    from inarch_nvidia.device import NvidiaDevice

    return NvidiaDevice(0)


def test_what_was_uploaded_may_change_at_once(device):
    host = np.arange(4_000_000, dtype=np.int64)
    torch.cuda._sleep(LONG_SLEEP)  # the copy cannot begin yet
    there = [device.upload(host + i) for i in range(3)]
    there.append(device.upload(host))
    host[:] = -1
    assert [int(tensor[-1]) for tensor in there] == [3_999_999 + i for i in (0, 1, 2, 0)]


@pytest.mark.parametrize("dtype", [np.int32, np.int64, np.float32, np.bool_, np.uint8])
def test_copies_keep_shape_and_dtype(device, dtype):
    host = np.arange(24).reshape(2, 3, 4).astype(dtype)
    back = device.download(device.upload(host[:, ::2])).wait()
    assert back.dtype == host.dtype
    assert np.array_equal(back, host[:, ::2])


def test_a_download_is_not_ready_before_the_work_that_it_follows(device):
    tensor = device.upload(np.arange(1000))
    # Pinned memory and the kernel are there: asking for more, or loading it, may synchronise.
    device.download(tensor.neg_().neg_()).wait()
    torch.cuda._sleep(LONG_SLEEP)
    transfer = device.download(tensor.neg_())
    assert not transfer.ready()
    tensor.zero_()  # later work does not change what is under way
    first = transfer.wait()
    assert transfer.ready()
    assert np.array_equal(first, -np.arange(1000))
    assert transfer.wait() is first


def test_memory_is_measured(device):
    gc.collect()
    device.reset_peak_memory()
    before = device.memory()
    size = 1 << 28
    held = torch.empty(size, dtype=torch.uint8, device=device.torch_device)
    passing = torch.empty(size, dtype=torch.uint8, device=device.torch_device)
    del passing
    after = device.memory()
    assert after.used - before.used == size
    assert after.peak - before.used == 2 * size
    assert before.free - after.free >= size
    del held
    assert device.memory().used == before.used
    assert after.total == before.total > after.free


def test_a_gpu_that_is_not_there_is_refused(device):
    with pytest.raises(BackendError, match="numbers 0"):
        type(device)(torch.cuda.device_count())
