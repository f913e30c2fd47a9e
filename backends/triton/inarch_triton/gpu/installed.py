"""Which torch and which Triton are installed, and what torch was built for, without importing them."""

from __future__ import annotations

import re
from collections.abc import Sequence

from inarch.hal.probing import Host


def torch_and_triton(host: Host, toolkit: str, triton: Sequence[str]) -> dict[str, str]:
    """Versions. toolkit: "CUDA" or "HIP"; triton: the names that packages of it have."""
    found = {}
    if torch := host.installed("torch"):
        found["torch"] = torch.version
        if build := torch.read_text("../torch/version.py"):  # what `torch.version` would say
            version = re.search(rf"^{toolkit.lower()}\b.*=\s*'([\w.-]+)'", build, re.MULTILINE)
            found[f"{toolkit} of torch"] = version[1] if version else "none"
    if installed := host.installed(*triton):
        found["triton"] = installed.version
    return found
