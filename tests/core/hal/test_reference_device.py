"""The CPU as a device: measured memory, honest copies, reasoned dtypes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from inarch.errors import BackendError
from inarch.hal.executor import StepInputs, StepShape
from inarch.hal.kv import KVState
from inarch.hal.linear import LinearSpec
from inarch.hal.reference import host
from inarch.hal.reference.backend import ReferenceBackend
from inarch.hal.reference.device import ReferenceDevice
from inarch.hal.reference.executor import EagerExecutor
from inarch.hal.reference.linear import ReferenceLinear

MIB = 1 << 20


def test_the_probe_finds_the_cpu_without_importing_torch() -> None:
    code = (
        "import sys; from inarch.hal.reference.backend import ReferenceBackend as B;"
        "p = B().probe(); assert p.score == 1 and p.devices[0] and p.libraries['torch'];"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_there_is_one_device() -> None:
    assert ReferenceBackend().open(0).info.name
    with pytest.raises(BackendError, match="no number 1"):
        ReferenceBackend().open(1)


def test_an_upload_is_a_copy() -> None:
    array = np.arange(6, dtype=np.int32)
    for view in (array, array[::2], array.reshape(2, 3).T):
        expected = torch.tensor(view.tolist(), dtype=torch.int32)
        tensor = ReferenceDevice().upload(view)
        view += 1
        assert torch.equal(tensor, expected)


def test_a_download_holds_what_was_there_when_it_began() -> None:
    tensor = torch.tensor([1, 2])
    transfer = ReferenceDevice().download(tensor)
    tensor.zero_()
    assert transfer.ready()
    assert transfer.wait().tolist() == [1, 2]
    assert transfer.wait() is transfer.wait()


def test_memory_is_measured() -> None:
    device = ReferenceDevice()
    before = device.memory()
    assert 0 < before.free <= before.total == device.info.memory_bytes
    held = torch.ones(512 * MIB // 4)
    after = device.memory()
    assert after.used - before.used > 384 * MIB  # the system may take back what idles
    assert after.peak >= after.used
    del held
    peak = device.memory().peak
    device.reset_peak_memory()
    assert device.memory().peak <= peak - 384 * MIB


def fake_system(root: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    monkeypatch.setattr(host, "PROC", root / "proc")
    monkeypatch.setattr(host, "CGROUP", root / "cgroup")


MEMINFO = "MemTotal:  8192 kB\nMemFree:  100 kB\nMemAvailable:  6144 kB\n"


def test_the_limit_of_a_container_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {
        "proc/meminfo": MEMINFO,
        "proc/self/cgroup": "0::/pod/box\n",
        "cgroup/pod/memory.max": f"{3 * MIB}\n",
        "cgroup/pod/memory.current": f"{2 * MIB}\n",
        "cgroup/pod/memory.stat": f"anon 5\ninactive_file {MIB // 2}\n",
        "cgroup/pod/box/memory.max": "max\n",
        "cgroup/pod/box/memory.current": f"{2 * MIB}\n",
    }
    fake_system(tmp_path, monkeypatch, files)
    assert host.host_memory() == host.HostMemory(3 * MIB, 3 * MIB // 2)


def test_the_limit_of_an_older_control_group_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Version 1, seen from within: the path is the host's, the limit stands at the root."""
    files = {
        "proc/meminfo": MEMINFO,
        "proc/self/cgroup": "5:cpu,cpuacct:/\n4:memory:/docker/abc\n",
        "cgroup/memory/memory.limit_in_bytes": f"{4 * MIB}\n",
        "cgroup/memory/memory.usage_in_bytes": f"{3 * MIB}\n",
        "cgroup/memory/memory.stat": f"total_inactive_file {MIB}\n",
    }
    fake_system(tmp_path, monkeypatch, files)
    assert host.host_memory() == host.HostMemory(4 * MIB, 2 * MIB)


def test_without_a_limit_the_machines_memory_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {
        "proc/meminfo": MEMINFO,
        "proc/self/cgroup": "4:memory:/\n",
        "cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
        "cgroup/memory/memory.usage_in_bytes": "1048576\n",
    }
    fake_system(tmp_path, monkeypatch, files)
    assert host.host_memory() == host.HostMemory(8 * MIB, 6 * MIB)


def test_a_system_that_tells_nothing_still_has_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_system(tmp_path, monkeypatch, {})
    memory = host.host_memory()
    assert 0 < memory.free < memory.total
    assert host.cpu_name()


@pytest.mark.parametrize(
    ("features", "checkpoint", "best"),
    [
        ({"avx2"}, torch.bfloat16, torch.float32),
        ({"avx2", "avx512_bf16"}, torch.bfloat16, torch.bfloat16),
        ({"amx_bf16"}, torch.bfloat16, torch.bfloat16),
        ({"avx512_bf16"}, torch.float16, torch.float32),
        ({"avx512_fp16"}, torch.float16, torch.float16),
        ({"avx2"}, torch.float32, torch.float32),
    ],
)
def test_16_bit_checkpoints_are_computed_in_16_bits_only_where_that_is_fast(
    features: set[str], checkpoint: torch.dtype, best: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host, "cpu_features", lambda: frozenset(features))
    choices = ReferenceDevice().dtypes(checkpoint)
    assert choices[0][0] == best
    assert {dtype for dtype, _ in choices} == {torch.float32, torch.bfloat16, torch.float16}
    assert len(choices) == 3
    assert all(reason for _, reason in choices)


def test_k_and_v_are_kept_in_the_dtype_computed_in_or_in_fp8() -> None:
    (first, why), *others = ReferenceDevice().kv_dtypes(torch.bfloat16)
    assert (first, why.why) == (torch.bfloat16, "the dtype computed in")
    assert [(dtype, bool(support)) for dtype, support in others] == [(torch.float8_e4m3fn, True)]


@pytest.mark.parametrize("bias", [False, True])
def test_linear_multiplies_by_the_transposed_weight(bias: bool) -> None:
    x, weight, offset = torch.randn(3, 4), torch.randn(5, 4), torch.randn(5)
    linear = ReferenceLinear()
    spec = LinearSpec(outputs=5, inputs=4, dtype=torch.float32, bias=bias)
    packed = linear.prepack(spec, weight, offset if bias else None)
    expected = x.double().numpy() @ weight.double().numpy().T + bias * offset.double().numpy()
    np.testing.assert_allclose(linear.apply(x, packed).numpy(), expected, rtol=1e-5, atol=1e-6)


def test_the_eager_executor_neither_pads_nor_keeps_anything() -> None:
    shape = StepShape(tokens=5, seqs=3, max_query=3)
    executor = EagerExecutor(ReferenceDevice())
    assert executor.bucket(shape) == shape
    inputs = StepInputs(torch.arange(5), torch.arange(5), torch.tensor([0, 1, 4]), ())

    def step(given: StepInputs, kv: KVState) -> tuple[torch.Tensor, KVState]:
        assert given is inputs
        return given.token_ids.float(), [*kv, 1]

    logits, kv = executor.run(step, shape, inputs, [0])
    assert torch.equal(logits, torch.arange(5).float())
    assert kv == [0, 1]
