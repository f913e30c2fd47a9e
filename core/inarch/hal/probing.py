"""What a probe may look at: files, the PCI bus, installed packages, the environment.

Each look costs milliseconds, never raises, and loads no library of the hardware, which may be broken.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import Distribution
from pathlib import Path

PCI_BUS = "sys/bus/pci/devices"


@dataclass(frozen=True)
class PciDevice:
    """device: its vendor's number for it ("0x2330"); kind: its class ("0x030200")."""

    device: str
    kind: str


@dataclass(frozen=True)
class Host:
    """This machine, or one that a test builds in a folder.

    root: places are below it. site: folders of installed packages; None: those of `sys.path`.
    access: as `os.access`.
    """

    root: Path = Path("/")
    site: Sequence[str] | None = None
    environment: Mapping[str, str] = field(default_factory=lambda: os.environ)
    access: Callable[[Path, int], bool] = os.access

    def read(self, place: str | Path) -> str:
        """The text of a file, without white space around it; "" if it cannot be read."""
        try:
            return (self.root / place).read_text(errors="replace").strip()
        except OSError:
            return ""

    def glob(self, pattern: str) -> list[Path]:
        return sorted(self.root.glob(pattern))

    def pci(self, vendor: str) -> list[PciDevice]:
        """What a vendor ("0x10de") has on the bus."""
        folders = [folder for folder in self.glob(f"{PCI_BUS}/*") if self._is_of(folder, vendor)]
        return [PciDevice(self.read(f / "device"), self.read(f / "class")) for f in folders]

    def _is_of(self, folder: Path, vendor: str) -> bool:
        return self.read(folder / "vendor") == vendor

    def installed(self, *names: str) -> Distribution | None:
        """The package that `import` would take, under the first name that there is."""
        site = list(sys.path if self.site is None else self.site)
        found = (each for name in names for each in Distribution.discover(name=name, path=site))
        return next(found, None)

    def torch_for(self, toolkit: str) -> dict[str, str]:
        """torch's version, and that of the vendor's toolkit which it was built with, or "none".

        toolkit: as torch's own version.py spells it, but for the case. Nothing is imported.
        """
        torch = self.installed("torch")
        if torch is None:
            return {}
        found = {"torch": torch.version}
        if build := torch.read_text("../torch/version.py"):
            version = re.search(rf"^{toolkit.lower()}\b.*=\s*'([\w.-]+)'", build, re.MULTILINE)
            found[f"{toolkit} of torch"] = version[1] if version else "none"
        return found

    def versions(self, name: str, *others: str) -> dict[str, str]:
        """Of one package, by its first name; nothing if it is not installed under any."""
        found = self.installed(name, *others)
        return {name: found.version} if found else {}
