"""What every launch tells Triton's compiler, and which kernels may start early.

Where the device can (programmatic dependent launch), a kernel with a constant PDL is launched while
the one ahead of it still runs, which hides what a launch costs. Three rules keep this right:

- Every program calls `gdc_wait`, before it returns, and before it writes anything or reads what the
  step has computed. So the end of a kernel is the end of all before it.
- `gdc_launch_dependents` comes right after. So when a kernel starts, all but the one ahead has ended.
- Before `gdc_wait` a kernel may read weights, its plan and the step's inputs: the one ahead has not
  written these.
"""

from __future__ import annotations

import functools
import re
from typing import Any

import torch
import triton
import triton.language as tl

LOG2_E = tl.constexpr(1.4426950408889634)  # exponentials are computed as powers of two

# Multiply and add in one instruction: said here because the default differs between versions.
FUSED = {"enable_fp_fusion": True}


def pdl(arch: str) -> bool:
    """Whether a kernel may start before the one ahead of it has ended (programmatic dependent launch)."""
    found = re.match(r"sm_(\d+)", arch)
    return found is not None and int(found[1]) >= 90


def options_for(arch: str) -> dict[str, Any]:
    """For a kernel with a constant PDL, on devices of `arch`."""
    early = pdl(arch) and not triton.knobs.runtime.interpret
    return {**FUSED, "PDL": early} | ({"launch_pdl": True} if early else {})


@functools.cache
def launch_options(device: torch.device) -> dict[str, Any]:
    """For a kernel with a constant PDL, on this device."""
    if device.type != "cuda" or torch.version.hip:
        return options_for(device.type)
    major, minor = torch.cuda.get_device_capability(device)
    return options_for(f"sm_{major}{minor}")


def processors(device: torch.device) -> int:
    """Multiprocessors, or compute units; some where Triton's interpreter plays the device."""
    if device.type == "cpu":
        return 8
    count: int = torch.cuda.get_device_properties(device).multi_processor_count
    return count
