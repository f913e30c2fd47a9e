"""What the probe says about processors, each built as a /proc/cpuinfo."""

from __future__ import annotations

import pytest

from inarch.errors import BackendError
from inarch_intel_cpu.backend import IntelCpuBackend

PROCESSOR = """processor\t: {number}
vendor_id\t: {vendor}
model name\t: {model}
physical id\t: {socket}
flags\t\t: fpu sse4_2 {flags}
"""
XEON = "Intel(R) Xeon(R) 6980P"
AVX2 = "avx2 fma f16c bmi2"


def backend(tmp_path, sockets=(0,), vendor="GenuineIntel", model=XEON, flags=AVX2):
    (tmp_path / "proc").mkdir()
    blocks = [
        PROCESSOR.format(number=number, vendor=vendor, model=model, socket=socket, flags=flags)
        for number, socket in enumerate(sockets)
    ]
    (tmp_path / "proc/cpuinfo").write_text("\n".join(blocks) + "\n")
    return IntelCpuBackend(tmp_path)


def test_each_socket_is_named_with_its_instructions_fastest_first(tmp_path):
    flags = f"{AVX2} avx512f amx_bf16"
    found = backend(tmp_path, sockets=(0, 0, 1, 1), flags=flags).probe()
    assert found.devices == tuple(f"{XEON}, socket {n} (amx_bf16 avx512f avx2)" for n in (0, 1))


def test_it_is_chosen_before_the_reference_and_an_intel_cpu_before_another(tmp_path, native):
    (tmp_path / "a").mkdir(), (tmp_path / "b").mkdir()
    intel = backend(tmp_path / "a").probe().score
    other = backend(tmp_path / "b", vendor="AuthenticAMD", model="AMD EPYC 7763").probe().score
    assert 1 < other < intel < 100


def test_without_compiled_kernels_it_says_how_to_get_them(tmp_path, monkeypatch):
    monkeypatch.setenv("INARCH_INTEL_CPU_OBJECTS", str(tmp_path))
    found = backend(tmp_path).probe()
    assert (found.score, found.hardware_seen) == (0, True)
    with pytest.raises(BackendError, match=r"pip install \./backends/intel_cpu"):
        IntelCpuBackend(tmp_path).open(0)


def test_a_processor_without_the_needed_instructions_is_named(tmp_path):
    found = backend(tmp_path, model="Intel(R) Atom(TM)", flags="avx").probe()
    assert not found.hardware_seen
    assert "Intel(R) Atom(TM) has no AVX2" in found.reasons[0]


def test_a_system_without_cpuinfo_is_no_x86(tmp_path):
    assert not IntelCpuBackend(tmp_path).probe().hardware_seen


def test_a_forced_variant_that_cannot_run_is_refused(runs_here, tmp_path, monkeypatch):
    monkeypatch.setenv("INARCH_INTEL_CPU_ISA", "sse9")
    assert "INARCH_INTEL_CPU_ISA=sse9" in backend(tmp_path).probe().reasons[0]
