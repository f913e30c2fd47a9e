"""Compiles the kernels into the wheel, and tags it for what they run on."""

from __future__ import annotations

import importlib.util
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

PACKAGE = "inarch_intel_cpu"


class KernelsHook(BuildHookInterface):
    """A standard wheel gets the objects from a temporary folder, an editable one beside its source."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
        if platform != "linux_x86_64":
            raise RuntimeError(f"inarch-intel-cpu runs on Linux on x86-64, not on {platform}")
        build_data["pure_python"] = False
        build_data["tag"] = f"cp311-abi3-{platform}"
        own = Path(self.root) / PACKAGE / "objects"
        if version == "editable":
            self._compile(own)
            return
        self._folder = tempfile.TemporaryDirectory()
        for built in self._compile(Path(self._folder.name)):
            build_data["force_include"][str(built)] = f"{PACKAGE}/objects/{built.name}"

    def _compile(self, folder: Path) -> list[Path]:
        place = Path(self.root) / "compile_kernels.py"
        spec = importlib.util.spec_from_file_location("compile_kernels", place)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        built: list[Path] = module.compile_kernels(folder)
        return built
