"""Load the compiled kernels that suit this processor, and call them.

Objects lie in the package (`objects/`, where the wheel's build puts them) or in the folder that
INARCH_INTEL_CPU_OBJECTS names (a source checkout's tests).
"""

from __future__ import annotations

import ctypes
import functools
import importlib.machinery
import importlib.util
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from inarch.errors import BackendError
from inarch_intel_cpu.cpuinfo import FORCE, flags_of, permitted, processors, variants

OBJECTS = "INARCH_INTEL_CPU_OBJECTS"
NativeKernel = Callable[..., None]


def objects() -> Path:
    return Path(os.environ.get(OBJECTS) or Path(__file__).parent / "objects")


def trouble() -> str | None:
    """Why the kernels cannot be called here; None if they can."""
    if not (objects() / "call.abi3.so").is_file():
        return f"no compiled kernels in {objects()}: pip install ./backends/intel_cpu compiles them"
    possible = runnable()
    forced = os.environ.get(FORCE)
    if forced and forced not in possible:
        return f"{FORCE}={forced}: this processor runs {', '.join(possible) or 'none'} of those compiled"
    return None


def runnable() -> tuple[str, ...]:
    """The variants that this processor runs and that are compiled, fastest first."""
    processor = (processors() or [{}])[0]
    possible = variants(flags_of(processor), processor.get("vendor_id", ""))
    compiled = [name for name in possible if (objects() / f"kernels_{name}.so").is_file()]
    return tuple(name for name in compiled if permitted(name))


class Native:
    """The kernels of one variant: see cpuinfo.VARIANTS.

    panel: outputs of a linear layer that are packed together. bf16_inputs: a packed bfloat16 weight
    has a multiple of them.
    """

    def __init__(self, variant: str) -> None:
        self.variant = variant
        self._library = ctypes.CDLL(str(objects() / f"kernels_{variant}.so"))
        self._bind = _caller().bind
        self.panel: int = self._library.inarch_panel_outputs()
        self.bf16_inputs: int = self._library.inarch_bf16_inputs()
        self._bound: dict[str, NativeKernel] = {}

    def kernel(self, name: str) -> NativeKernel:
        """The kernel exported as INARCH_EXPORT(name, ...): takes tensors, ints and floats.

        A tensor is passed by its address alone: dtype, layout and sizes are the caller's to check.
        """
        if name not in self._bound:
            self._bound[name] = self._find(name)
        return self._bound[name]

    def _find(self, name: str) -> NativeKernel:
        signature = getattr(self._library, f"inarch_{name}_signature")
        signature.restype = ctypes.c_char_p
        entry = ctypes.cast(getattr(self._library, f"inarch_{name}"), ctypes.c_void_p).value
        found: NativeKernel = self._bind(entry, signature().decode())
        return found

    def set_threads(self, count: int) -> None:
        self.kernel("set_threads")(count)


@functools.cache
def load(variant: str) -> Native:
    return Native(variant)


def native() -> Native:
    """The kernels of the fastest variant that this processor runs, or of the one that is forced."""
    if reason := trouble():
        raise BackendError(reason)
    return load(os.environ.get(FORCE) or runnable()[0])


@functools.cache
def _caller() -> Any:
    place = str(objects() / "call.abi3.so")
    loader = importlib.machinery.ExtensionFileLoader("call", place)
    spec = importlib.util.spec_from_loader("call", loader)
    assert spec is not None
    return importlib.util.module_from_spec(spec)
