"""Find out which CPU this is and which instructions it has, from /proc/cpuinfo alone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from inarch.errors import BackendError
from inarch.hal.backend import Backend, Probe
from inarch_intel_cpu.cpuinfo import flags_of, processors, variants
from inarch_intel_cpu.native import trouble
from inarch_intel_cpu.placement import sockets

if TYPE_CHECKING:
    from inarch.hal.device import Device

SCORE = {"GenuineIntel": 20}  # of others 10: a backend made for those may go first
OTHERS = 10
# What `inarch doctor` tells of the processor.
INSTRUCTIONS = (
    "amx_fp16",
    "amx_bf16",
    "amx_int8",
    "avx512_fp16",
    "avx512_bf16",
    "avx512_vnni",
    "avx512f",
    "avx_vnni",
    "avx2",
)


class IntelCpuBackend(Backend):
    """Looks below `root`."""

    name = "intel_cpu"

    def __init__(self, root: Path = Path("/")) -> None:
        self._root = root

    def probe(self) -> Probe:
        found = processors(self._root)
        first = found[0] if found else {}
        model, flags = first.get("model name", "an unknown CPU"), flags_of(first)
        if "flags" not in first:
            return Probe(0, reasons=("the CPU is no x86-64: /proc/cpuinfo lists no flags",))
        if not variants(flags):
            return Probe(0, reasons=(f"{model} has no AVX2 instructions with FMA and F16C",))
        instructions = " ".join(name for name in INSTRUCTIONS if name in flags)
        sockets = sorted({int(p.get("physical id", "0")) for p in found})
        devices = tuple(f"{model}, socket {socket} ({instructions})" for socket in sockets)
        if reason := trouble():
            return Probe(0, devices, (reason,), hardware_seen=True)
        return Probe(SCORE.get(first.get("vendor_id", ""), OTHERS), devices, hardware_seen=True)

    def environment(self) -> Mapping[str, str]:
        # Torch's threads, idle between our kernels, would otherwise keep the cores from ours.
        return {"OMP_WAIT_POLICY": "PASSIVE"}

    def open(self, index: int) -> Device:
        probe = self.probe()
        if not probe.score:
            raise BackendError("; ".join(probe.reasons))
        found = sockets()
        if not 0 <= index < max(1, len(found)):
            raise BackendError(
                f"intel_cpu has a device for each socket that this process may use, 0 to "
                f"{max(0, len(found) - 1)}: there is no number {index}"
            )
        from inarch_intel_cpu.device import IntelCpuDevice  # imports torch

        return IntelCpuDevice(found[index] if len(found) > 1 else None)
