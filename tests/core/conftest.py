"""Builds installed packages in a folder of their own: real ones, metadata and all."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterator
from importlib import metadata
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

PLUGIN = """
from inarch.hookspecs import hookimpl

INARCH_API = (1, 0)
"""

BACKEND = """
from inarch.hal.backend import Backend, Probe

class Chip(Backend):
    name = {name!r}

    def probe(self):
        {probe}

    def open(self, index):
        raise AssertionError("no test opens it")

@hookimpl
def inarch_backends():
    return [Chip()]
"""


class Packages:
    """A site-packages folder that a test fills with distributions."""

    def __init__(self, site: Path) -> None:
        self.site = site

    def add(
        self,
        name: str,
        source: str,
        *,
        distribution: str = "",
        version: str = "1.0",
        plain: bool = False,
    ) -> str:
        """Install a plugin called `name`, whose module is `source`; returns the module's name.

        plain: the source is all there is; else the usual beginning of a plugin comes before it.
        """
        distribution = distribution or f"acme-{name}"
        module = f"{distribution.replace('-', '_')}_{name}_plugin"
        start = "" if plain else PLUGIN
        (self.site / f"{module}.py").write_text(start + textwrap.dedent(source))
        info = self.add_metadata(distribution, version, requires=())
        with (info / "entry_points.txt").open("a") as file:
            file.write(f"[inarch]\n{name} = {module}\n")
        return module

    def add_backend(
        self, name: str, probe: str, *, plugin: str = "", distribution: str = ""
    ) -> str:
        """Install a backend called `name`; `probe` is the body of its probe()."""
        source = BACKEND.format(name=name, probe=probe)
        return self.add(plugin or name, source, distribution=distribution)

    def add_metadata(self, distribution: str, version: str, requires: tuple[str, ...]) -> Path:
        info = self.site / f"{distribution.replace('-', '_')}-{version}.dist-info"
        info.mkdir(exist_ok=True)
        lines = ["Metadata-Version: 2.1", f"Name: {distribution}", f"Version: {version}"]
        lines += [f"Requires-Dist: {requirement}" for requirement in requires]
        (info / "METADATA").write_text("\n".join(lines) + "\n")
        return info

    def entries(self) -> list[EntryPoint]:
        """The entry points of this folder, without those that happen to be installed elsewhere."""
        distributions = metadata.distributions(path=[str(self.site)])
        return [entry for d in distributions for entry in d.entry_points.select(group="inarch")]


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Packages]:
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.delenv("INARCH_DISABLE_PLUGINS", raising=False)
    before = set(sys.modules)
    yield Packages(site)
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(site)):
            del sys.modules[name]
