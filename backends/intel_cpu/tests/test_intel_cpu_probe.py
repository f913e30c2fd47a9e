"""What the probe says about processors, each built as a /proc/cpuinfo."""

from __future__ import annotations

import pytest

from inarch_intel_cpu.backend import NO_KERNELS, IntelCpuBackend

PROCESSOR = """processor\t: {number}
vendor_id\t: {vendor}
model name\t: {model}
physical id\t: {socket}
flags\t\t: fpu sse4_2 {flags}
"""
XEON = "Intel(R) Xeon(R) 6980P"


def probe(tmp_path, sockets=(0,), vendor="GenuineIntel", model=XEON, flags="avx2 avx512f amx_bf16"):
    (tmp_path / "proc").mkdir()
    blocks = [
        PROCESSOR.format(number=number, vendor=vendor, model=model, socket=socket, flags=flags)
        for number, socket in enumerate(sockets)
    ]
    (tmp_path / "proc/cpuinfo").write_text("\n".join(blocks) + "\n")
    return IntelCpuBackend(tmp_path).probe()


def test_each_socket_is_a_device_with_its_instructions_fastest_first(tmp_path):
    found = probe(tmp_path, sockets=(0, 0, 1, 1))
    assert found.devices == tuple(f"{XEON}, socket {n} (amx_bf16 avx512f avx2)" for n in (0, 1))
    assert (found.score, found.hardware_seen, found.reasons) == (0, True, (NO_KERNELS,))


@pytest.mark.parametrize(
    ("vendor", "model", "flags", "reason"),
    [
        ("AuthenticAMD", "AMD EPYC 9965", "avx2 avx512f", "AMD EPYC 9965 (AuthenticAMD)"),
        ("GenuineIntel", "Intel(R) Atom(TM)", "avx", "Intel(R) Atom(TM) has no AVX2"),
    ],
)
def test_a_processor_it_is_not_for_is_named(tmp_path, vendor, model, flags, reason):
    found = probe(tmp_path, vendor=vendor, model=model, flags=flags)
    assert not found.hardware_seen
    assert reason in found.reasons[0]


def test_a_system_without_cpuinfo_is_no_intel_cpu(tmp_path):
    assert not IntelCpuBackend(tmp_path).probe().hardware_seen
