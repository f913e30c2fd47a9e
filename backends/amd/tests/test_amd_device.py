"""Opening a GPU, as far as torch without one can play the part: what it is told of, what it refuses."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

pytest.importorskip("triton", reason="Triton comes with GPU builds of torch, not with this one")

from inarch.errors import BackendError
from inarch.hal.kv import KVHeads, KVSpec
from inarch_amd.device import AmdDevice
from inarch_triton.fnuz import FN, FNUZ
from inarch_triton.kv import FnuzKVStore, PagedKVStore

GIB = 1 << 30
SPEC = KVSpec((KVHeads(2, 16, 16),), FN)


@pytest.fixture
def rocm(monkeypatch: pytest.MonkeyPatch):
    """What torch for ROCm answers about GPUs of these architectures."""

    def install(*archs: str) -> None:
        found = [
            SimpleNamespace(name=f"GPU {arch}", gcnArchName=arch, total_memory=192 * GIB)
            for arch in archs
        ]
        monkeypatch.setattr(torch.version, "hip", "7.1.25424")
        answers = {
            "init": lambda: None,
            "device_count": lambda: len(found),
            "get_device_properties": lambda index: found[index],
            "get_device_name": lambda index: found[index].name,
            "set_device": lambda index: None,
            "mem_get_info": lambda device=None: (190 * GIB, 192 * GIB),
            "memory_reserved": lambda device=None: 0,
        }
        for name, answer in answers.items():
            monkeypatch.setattr(torch.cuda, name, answer)

    return install


def test_a_gpu_is_known_by_its_architecture_and_not_by_torchs_word_for_it(rocm):
    rocm("gfx90a:sramecc+:xnack-", "gfx942:sramecc+:xnack-")
    device = AmdDevice(1)
    assert (device.info.arch, device.info.memory_bytes) == ("gfx942:sramecc+:xnack-", 192 * GIB)
    assert device.info.libraries["HIP of torch"] == "7.1.25424"
    assert device.torch_device == torch.device("cuda", 1)
    assert "matrix cores" in device.dtypes(torch.bfloat16)[0][1]
    assert {kernel.op for kernel in device.kernels()} >= {"attention", "linear", "sample"}


@pytest.mark.parametrize(
    ("arch", "kept", "store"),
    [("gfx942", FNUZ, FnuzKVStore), ("gfx950", FN, PagedKVStore), ("gfx90a", None, PagedKVStore)],
)
def test_fp8_pages_are_of_the_kind_that_the_device_converts(rocm, arch, kept, store):
    rocm(f"{arch}:sramecc+:xnack-")
    device = AmdDevice(0)
    offered = dict(device.kv_dtypes(torch.bfloat16))
    assert bool(offered[FN]) == (kept is not None)
    assert type(device.kv_store(SPEC, 16)) is store


@pytest.mark.parametrize(
    ("archs", "index", "why"),
    [
        (["gfx942"], 1, "--device 1: this process has 1 GPUs, numbers 0..0"),
        (["gfx1151"], 0, "GPU gfx1151: gfx1151 is none of gfx90a"),
    ],
)
def test_what_cannot_be_used_is_refused_with_the_reason(rocm, archs, index, why):
    rocm(*archs)
    with pytest.raises(BackendError) as refused:
        AmdDevice(index)
    assert why in str(refused.value)


def test_a_torch_without_rocm_is_refused():
    with pytest.raises(BackendError, match="has no ROCm"):
        AmdDevice(0)


def test_pages_of_fnuz_are_exported_and_imported_as_what_they_mean():
    """Over pages of the other kind, the same bytes come out: the canonical layout knows one kind."""
    cpu = torch.device("cpu")
    stores = FnuzKVStore(SPEC, 16, cpu), PagedKVStore(SPEC, 16, cpu)
    draw = torch.Generator().manual_seed(0)
    data = [tuple((torch.randn(20, 2, 16, generator=draw) * 99).to(FN) for _ in range(2))]
    data[0][0][0, 0, :2] = torch.tensor([torch.nan, -0.0]).to(FN)
    pages = np.array([2, 1])
    found = [
        store.export_pages(store.import_pages(store.allocate(3), pages, data), pages)
        for store in stores
    ]
    for ours, theirs in zip(found[0][0], found[1][0], strict=True):
        same = {"rtol": 0, "atol": 0, "equal_nan": True}
        torch.testing.assert_close(ours[:20].float(), theirs[:20].float(), **same)
    assert stores[0].layout.fingerprint != stores[1].layout.fingerprint
    assert stores[0].layout.page_bytes == stores[1].layout.page_bytes
