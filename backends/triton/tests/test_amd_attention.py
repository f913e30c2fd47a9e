"""Attention with the tiles and the pages of AMD's architectures, which Triton's interpreter plays."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import pytest
import torch

pytest.importorskip("triton", reason="Triton comes with GPU builds of torch, not with this one")

from inarch_triton.fnuz import FN, FNUZ

from .test_triton_attention import GPU, build, chain, check, over, spec

SEQUENCES = [(40, chain(1)), (30, chain(20))]  # one of few query tokens, one of many
pytestmark = pytest.mark.skipif(GPU, reason="a device has the tiles of its own architecture")


def device_of(arch: str, device):
    """The device that plays, with another architecture's name."""
    info = dataclasses.replace(device.info, arch=arch)
    return SimpleNamespace(info=info, torch_device=device.torch_device, upload=device.upload)


@pytest.mark.parametrize("arch", ["gfx90a", "gfx942:sramecc+:xnack-", "gfx950", "gfx1100"])
def test_attention_equals_the_reference_with_the_tiles_of(arch: str, device) -> None:
    case = build(spec(window=25, sinks=True), SEQUENCES, 16, tree=False)
    check(case, device_of(arch, device), lse=True)


@pytest.mark.parametrize(
    ("arch", "kept", "dtype", "softcap"),
    [
        ("gfx942", FNUZ, torch.float32, None),
        ("gfx942", FNUZ, torch.float16, 2.0),
        ("gfx950", FN, torch.float16, None),
    ],
)
def test_fp8_pages_mean_the_same_whichever_kind_keeps_them(
    arch: str, kept: torch.dtype, dtype: torch.dtype, softcap: float | None, device
) -> None:
    what = spec(softcap=softcap, sinks=True, dtype=dtype)
    case = over(FN, build(what, SEQUENCES, 32, tree=False))
    amd = device_of(arch, device)
    assert case.attention(amd)[1][0][0].dtype == kept
    check(case, amd, lse=True)


def test_long_decodes_are_merged_by_a_launch_of_their_own(device) -> None:
    """On AMD nothing says that another program's chunks have arrived."""
    case = build(spec(q_heads=2, kv_heads=1), [(300, chain(1))], 64, tree=False)
    amd = device_of("gfx942", device)
    (launch,) = case.attention(amd)[0].plan(case.batch).on(amd).launches
    assert launch.merged_rows == 0
    assert (launch.jobs[:, 3] > 1).any(), "its keys are cut"
    check(case, amd, lse=True)
