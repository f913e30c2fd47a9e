"""What the real torch-npu wheel says of its operators, without loading its libraries.

- The schemas are strings inside libtorch_npu.so: they are defined for torch as `torch.ops.npu`, so that
  torch itself refuses a wrong name, keyword or type.
- The wheel's Meta registrations (shapes, dtypes, checks of arguments) are executed with a stub of
  torch_npu around them.
- The Python of its NPU graphs, which records and updates calls, is executed on a stub of its C part.

The wheel is unpacked, not installed: `pip install --no-deps --target FOLDER torch-npu==VERSION`, and
FOLDER is in the variable INARCH_TORCH_NPU.
"""

from __future__ import annotations

import ast
import functools
import importlib.util
import os
import re
import sys
import types
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.library import Library

VARIABLE = "INARCH_TORCH_NPU"
SCHEMA = re.compile(
    rb"npu_[a-z0-9_]+(?:\.[A-Za-z_0-9]+)?\(Tensor"
)  # within a string of the library


def wheel_folder() -> Path | None:
    """The package torch_npu of the unpacked wheel; None if there is none for this torch."""
    given = os.environ.get(VARIABLE)
    return Path(given) / "torch_npu" if given else None


def missing() -> str | None:
    """Why there can be no simulation; None if nothing is missing."""
    folder = wheel_folder()
    if folder is None:
        return f"{VARIABLE} does not name a folder with torch-npu's wheel"
    if not (folder / "lib/libtorch_npu.so").exists():
        return f"{folder} holds no torch-npu"
    ours, theirs = torch.__version__.split(".")[:2], wheel_version().split(".")[:2]
    if ours != theirs:
        return f"torch-npu {wheel_version()} is not made for torch {torch.__version__}"
    return None


@functools.cache
def wheel_version() -> str:
    folder = wheel_folder()
    assert folder is not None
    found = re.search(r"__version__ = ['\"]([^'\"]+)", (folder / "version.py").read_text())
    assert found is not None
    return found[1]


class Stub(types.ModuleType):
    """Stands for any part of torch_npu that is named but not needed."""

    __path__: Sequence[str] = ()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        found = Stub(f"{self.__name__}.{name}")
        setattr(self, name, found)
        return found

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return Stub(f"{self.__name__}()")


def define_schemas(folder: Path) -> Library:
    """Define every operator whose schema is in the library; what torch cannot parse is left out."""
    library = Library("npu", "DEF")
    for schema in sorted(schemas((folder / "lib/libtorch_npu.so").read_bytes())):
        try:
            library.define(schema)
        except RuntimeError:
            continue
    return library


def schemas(binary: bytes) -> Iterator[str]:
    """The C strings of a library that declare an operator."""
    for found in SCHEMA.finditer(binary):
        start = binary.rfind(b"\0", 0, found.start()) + 1
        text = binary[start : binary.find(b"\0", start)]
        if b") -> " in text:
            yield text.decode()


def register_metas(folder: Path) -> tuple[Library, dict[str, int]]:
    """Execute the wheel's Meta registrations for its own operators.

    Returns what must stay alive, and the numbers of the dtypes that torch does not have, by name.
    """
    library = Library("npu", "IMPL", "Meta")
    source = (folder / "op_plugin/meta/_meta_registrations.py").read_text()
    source = source.replace("from torch.library import Library, impl", "")

    def impl(target: str, name: str) -> Callable[..., Any]:
        def register(function: Callable[..., Any]) -> Callable[..., Any]:
            if target == "npu":
                try:
                    library.impl(name, function)
                except RuntimeError:  # of an operator whose schema is not in the library
                    return function
            return function

        return register

    scope: dict[str, Any] = {
        "Library": lambda name, *_: name,
        "impl": impl,
        "__name__": "torch_npu_meta",
    }
    exec(compile(source, "_meta_registrations.py", "exec"), scope)
    names: dict[int, str] = scope["TORCH_NPU_DTYPE_TO_STRING_MAP"]
    return library, {name.removeprefix("torch_npu."): number for number, name in names.items()}


def execute(folder: Path, name: str, **given: Any) -> types.ModuleType:
    """Execute one module of the wheel as it is, `given` in place of what it would import."""
    place = folder / (name.removeprefix("torch_npu.").replace(".", "/") + ".py")
    spec = importlib.util.spec_from_file_location(name, place)
    assert spec is not None
    assert spec.loader is not None
    sys.modules[name] = module = importlib.util.module_from_spec(spec)
    vars(module).update(given)
    spec.loader.exec_module(module)
    return module


@functools.cache
def public_names(place: str) -> frozenset[str]:
    """`__all__` of a module of the wheel."""
    folder = wheel_folder()
    assert folder is not None
    for statement in ast.parse((folder / place).read_text()).body:
        if isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == "__all__":
            return frozenset(ast.literal_eval(statement.value))
    raise LookupError(place)
