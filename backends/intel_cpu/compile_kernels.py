"""Compile the kernels: csrc/*.cpp once for each instruction set, and the way in from Python.

    python backends/intel_cpu/compile_kernels.py FOLDER [avx2 ...]

The wheel's build (hatch_build.py) runs this, and so do the tests of a source checkout. Needs g++
(or what CXX names) of 2022 or later and Python's headers; nothing of torch.
"""

from __future__ import annotations

import concurrent.futures
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

SOURCES = Path(__file__).parent / "csrc"
CXX = os.environ.get("CXX", "g++")
CC = os.environ.get("CC", "gcc")
AVX2 = ("-mavx2", "-mfma", "-mf16c", "-mbmi2", "-mtune=haswell")
AVX512 = (
    *AVX2[:-1],
    *("-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mavx512vnni", "-mavx512bf16"),
    *("-mprefer-vector-width=512", "-mtune=icelake-server"),
)
# Of each, the macro INARCH_name is defined.
VARIANTS = {"avx2": (*AVX2, "-DINARCH_AVX2"), "avx512": (*AVX512, "-DINARCH_AVX512")}
COMMON = ("-O3", "-fPIC", "-fvisibility=hidden", "-fno-math-errno", "-pthread", "-Wall")


def compile_kernels(folder: Path, variants: Mapping[str, Sequence[str]] = VARIANTS) -> list[Path]:
    """Write call.abi3.so and one kernels_NAME.so for each instruction set into the folder.

    Raises RuntimeError with what to do where there is no compiler, or with what it said.
    """
    if not shutil.which(CXX) or not shutil.which(CC):
        raise RuntimeError(
            f"inarch-intel-cpu is compiled where it is installed, and {CXX} is not here: install a "
            "C++20 compiler (apt install g++) or name one in CXX and CC"
        )
    folder.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory() as scratch,
        concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool,
    ):
        objects = {name: [] for name in variants}
        for name, flags in variants.items():
            for source in sorted(SOURCES.glob("*.cpp")):
                out = Path(scratch) / f"{name}_{source.stem}.o"
                command = [CXX, "-std=c++20", *COMMON, *flags, "-c", str(source), "-o", str(out)]
                objects[name].append((out, pool.submit(_run, command)))
        built = [_compile_call(folder)]
        for name, parts in objects.items():
            for _, done in parts:
                done.result()
            target = folder / f"kernels_{name}.so"
            _run([CXX, "-shared", "-pthread", "-s", "-o", str(target), *(str(o) for o, _ in parts)])
            built.append(target)
    return built


def _compile_call(folder: Path) -> Path:
    include = sysconfig.get_paths()["include"]
    if not (Path(include) / "Python.h").is_file():
        raise RuntimeError(
            f"inarch-intel-cpu needs Python's headers, and {include}/Python.h is not here: install "
            "them (apt install python3-dev)"
        )
    target = folder / "call.abi3.so"
    source = str(SOURCES / "call.c")
    _run([CC, *COMMON, "-shared", f"-I{include}", source, "-o", str(target)])
    return target


def _run(command: Sequence[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr}")


def source_hash() -> str:
    """Changes whenever what is compiled, or how, changes."""
    digest = hashlib.sha256(CXX.encode())
    for path in sorted([*SOURCES.iterdir(), Path(__file__)]):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def compiled_for_tests() -> Path:
    """A folder with everything compiled from these sources, made at the first call on a machine.

    Raises RuntimeError as `compile_kernels`, or if the folder is somebody else's: it would be loaded.
    """
    place = Path(tempfile.gettempdir()) / f"inarch_intel_cpu-{os.getuid()}-{source_hash()}"
    with open(f"{place}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # of several test processes one compiles, the others wait
        if not place.exists():
            with tempfile.TemporaryDirectory(prefix=f"{place.name}-") as folder:
                made = Path(folder) / "objects"
                compile_kernels(made)
                made.rename(place)
    if place.lstat().st_uid != os.getuid():
        raise RuntimeError(f"{place} belongs to another user: remove it, or set TMPDIR")
    return place


if __name__ == "__main__":
    wanted = {name: VARIANTS[name] for name in sys.argv[2:] or VARIANTS}
    for built in compile_kernels(Path(sys.argv[1]), wanted):
        print(built)
