"""Find out which Intel CPU this is and which instructions it has, from /proc/cpuinfo alone."""

from __future__ import annotations

from pathlib import Path
from typing import NoReturn

from inarch.errors import BackendError
from inarch.hal.backend import Backend, Probe

NO_KERNELS = (
    "this version of inarch-intel-cpu can find the hardware but has no kernels yet: "
    "run on the plain reference with --backend reference"
)
VENDOR = "GenuineIntel"
NEEDED = "avx2"
# What kernels would be chosen by, fastest first.
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
        processors = self._processors()
        first = processors[0] if processors else {}
        vendor, model = first.get("vendor_id", "of an unknown vendor"), first.get("model name", "")
        if vendor != VENDOR:
            return Probe(0, reasons=(f"the CPU is no Intel one: {model} ({vendor})",))
        flags = first.get("flags", "").split()
        if NEEDED not in flags:
            return Probe(0, reasons=(f"{model} has no {NEEDED.upper()} instructions",))
        found = " ".join(name for name in INSTRUCTIONS if name in flags)
        sockets = sorted({int(p.get("physical id", "0")) for p in processors})
        devices = tuple(f"{model}, socket {socket} ({found})" for socket in sockets)
        return Probe(0, devices, (NO_KERNELS,), hardware_seen=True)

    def open(self, index: int) -> NoReturn:
        raise BackendError("; ".join(self.probe().reasons))

    def _processors(self) -> list[dict[str, str]]:
        """The fields of each logical processor; empty where there is no such file."""
        try:
            text = (self._root / "proc/cpuinfo").read_text(errors="replace")
        except OSError:
            return []
        blocks = (block.splitlines() for block in text.strip().split("\n\n"))
        pairs = ([line.partition(":") for line in block] for block in blocks)
        return [{key.strip(): value.strip() for key, _, value in block} for block in pairs]
