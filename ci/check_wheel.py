"""Build the wheel and compare what it holds with the source: every package, and nothing else.

python ci/check_wheel.py
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import tomllib
import zipfile
from pathlib import Path

ROOT = Path(__file__).parent.parent


def expected() -> set[str]:
    """Every file of the packages that pyproject.toml names, by its name in the wheel."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    packages = project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    tracked = subprocess.run(
        ["git", "ls-files", "-z", *packages], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.split("\0")
    names = set()
    for package in packages:
        parent = Path(package).parent
        names |= {str(Path(f).relative_to(parent)) for f in tracked if f.startswith(f"{package}/")}
    return names


def built() -> set[str]:
    """The files of a freshly built wheel, without its metadata."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "build", "--wheel", "--outdir", folder, str(ROOT)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        (wheel,) = Path(folder).glob("*.whl")
        names = zipfile.ZipFile(wheel).namelist()
    return {name for name in names if ".dist-info/" not in name}


def main() -> int:
    source, wheel = expected(), built()
    for name in sorted(source - wheel):
        print(f"missing from the wheel: {name}")
    for name in sorted(wheel - source):
        print(f"in the wheel, but not in the source: {name}")
    if source == wheel:
        print(f"the wheel holds exactly the {len(wheel)} files of its packages")
    return int(source != wheel)


if __name__ == "__main__":
    sys.exit(main())
