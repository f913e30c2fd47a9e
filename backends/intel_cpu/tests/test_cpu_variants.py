"""Which kernels a processor gets, and what is computed in by them."""

from __future__ import annotations

import pytest
import torch

from inarch_intel_cpu import native as loading
from inarch_intel_cpu.cpuinfo import VARIANTS, permitted, variants
from inarch_intel_cpu.dtypes import preferred

FLAGS = {name: frozenset(flags) for name, flags in VARIANTS.items()}
CASCADE_LAKE = FLAGS["avx2"] | FLAGS["avx512"]
ZEN_4 = CASCADE_LAKE | FLAGS["avx512_bf16"]
SAPPHIRE_RAPIDS = ZEN_4 | FLAGS["amx"]
INTEL = {"flags": " ".join(SAPPHIRE_RAPIDS), "vendor_id": "GenuineIntel"}


@pytest.mark.parametrize(
    ("flags", "found"),
    [
        (FLAGS["avx2"], ("avx2",)),
        (CASCADE_LAKE, ("avx512", "avx2")),
        (CASCADE_LAKE - {"avx512_vnni"}, ("avx2",)),
        (ZEN_4, ("avx512_bf16", "avx512", "avx2")),
        (SAPPHIRE_RAPIDS, ("amx", "avx512_bf16", "avx512", "avx2")),
        (SAPPHIRE_RAPIDS - {"amx_int8"}, ("avx512_bf16", "avx512", "avx2")),
        (SAPPHIRE_RAPIDS - {"avx2"}, ()),
    ],
)
def test_a_processor_gets_what_it_has_all_instructions_for(flags, found):
    assert variants(flags) == found


def test_an_intel_processor_multiplies_pairs_only_by_tiles():
    assert variants(ZEN_4, "GenuineIntel") == ("avx512", "avx512_bf16", "avx2")
    assert variants(SAPPHIRE_RAPIDS, "GenuineIntel")[:2] == ("amx", "avx512")


def test_tiles_are_used_only_where_the_system_permits_it(fastest, monkeypatch):
    monkeypatch.setattr(loading, "processors", lambda: [INTEL])
    for answer in (True, False):
        monkeypatch.setattr(
            loading, "permitted", lambda name, answer=answer: answer or name != "amx"
        )
        assert loading.runnable()[0] == ("amx" if answer else "avx512")


def test_the_system_is_asked_for_tiles(fastest):
    """It grants them where the processor has them, and nowhere else."""
    assert permitted("amx") == (fastest == "amx")
    assert permitted("avx512")


def test_what_was_not_compiled_is_not_chosen(fastest, monkeypatch, tmp_path):
    for name in ("call.abi3.so", "kernels_avx2.so"):
        (tmp_path / name).symlink_to(loading.objects() / name)
    monkeypatch.setenv(loading.OBJECTS, str(tmp_path))
    assert loading.runnable() == ("avx2",)
    monkeypatch.setenv(loading.FORCE, "avx512_bf16")
    assert "avx2 of those compiled" in (loading.trouble() or "")


@pytest.mark.parametrize("checkpoint", [torch.bfloat16, torch.float16, torch.float32], ids=str)
@pytest.mark.parametrize("variant", list(VARIANTS))
def test_only_bfloat16_by_kernels_that_multiply_it_is_computed_in_16_bits(variant, checkpoint):
    fast = variant in ("amx", "avx512_bf16") and checkpoint == torch.bfloat16
    dtype, why = preferred(checkpoint, variant)
    assert dtype == (torch.bfloat16 if fast else torch.float32)
    assert variant in why or checkpoint == torch.float32


def test_a_device_offers_what_is_preferred_first(fastest, monkeypatch):
    from inarch_intel_cpu.device import IntelCpuDevice

    for variant in ("avx2", fastest):
        monkeypatch.setenv(loading.FORCE, variant)
        offered = [dtype for dtype, _ in IntelCpuDevice().dtypes(torch.bfloat16)]
        assert offered[0] == preferred(torch.bfloat16, variant)[0]
        assert sorted(map(str, offered)) == ["torch.bfloat16", "torch.float16", "torch.float32"]
