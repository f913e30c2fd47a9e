"""Compile the kernels: csrc/*.cpp once for each instruction set, and the way in from Python.

    python backends/intel_cpu/compile_kernels.py FOLDER

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
from typing import NamedTuple

SOURCES = Path(__file__).parent / "csrc"
CXX = os.environ.get("CXX", "g++")
CC = os.environ.get("CC", "gcc")


class Variant(NamedTuple):
    """An instruction set to compile for.

    own: the sources that come out different from `base`'s; the rest is linked from there. Without a
    base: all.
    """

    flags: tuple[str, ...]
    base: str | None = None
    own: tuple[str, ...] = ()


LEAST = "avx2"  # without it there is nothing to install
AVX2 = ("-mavx2", "-mfma", "-mf16c", "-mbmi2")
AVX512 = (
    *(*AVX2, "-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mavx512vnni"),
    *("-mprefer-vector-width=512", "-mtune=icelake-server", "-DINARCH_AVX512", "-DINARCH_VNNI"),
)
BF16 = (*AVX512, "-mavx512bf16", "-DINARCH_BF16")
AMX = ("-mamx-tile", "-mamx-int8", "-mamx-bf16", "-DINARCH_AMX")
VARIANTS = {
    "avx2": Variant((*AVX2, "-mtune=haswell")),
    "avx512": Variant(AVX512),
    "avx512_bf16": Variant(BF16, base="avx512", own=("attention", "linear")),
    # Attention is avx512's: Intel's processors multiply float32 faster than bfloat16 without tiles.
    "amx": Variant((*BF16, *AMX), base="avx512", own=("linear", "quantized")),
}
# For tests, on any processor: the kernels of those above, with the instructions that AVX2 lacks in plain
# C++, as their manual has them. See csrc/pairs.h, csrc/amx.h and csrc/quantized_vnni.h.
EMULATED = {
    "bf16_emulated": Variant(
        (*AVX2, "-O1", "-DINARCH_VNNI", "-DINARCH_BF16"),
        "avx2",
        ("attention", "linear", "quantized"),
    ),
    "amx_emulated": Variant(
        (*AVX2, "-O1", "-DINARCH_VNNI", "-DINARCH_BF16", "-DINARCH_AMX"),
        "bf16_emulated",
        ("linear", "quantized"),
    ),
}
COMMON = ("-O3", "-fPIC", "-fvisibility=hidden", "-fno-math-errno", "-pthread", "-Wall")


def compile_kernels(folder: Path, variants: Mapping[str, Variant] = VARIANTS) -> list[Path]:
    """Write call.abi3.so and one kernels_NAME.so for each instruction set into the folder.

    What the compiler does not know beyond LEAST is left out, and told of. Raises RuntimeError with what
    to do where there is no compiler, or with what it said.
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
        known = {
            name: variant
            for name, variant in variants.items()
            if name == LEAST or _known(name, variant)
        }
        objects: dict[str, dict[str, tuple[Path, concurrent.futures.Future[None]]]] = {}
        for name, variant in known.items():
            objects[name] = dict(objects[variant.base]) if variant.base else {}
            for source in sorted(SOURCES.glob("*.cpp")):
                if variant.base and source.stem not in variant.own:
                    continue
                out = Path(scratch) / f"{name}_{source.stem}.o"
                command = [
                    CXX,
                    "-std=c++20",
                    *COMMON,
                    *variant.flags,
                    "-c",
                    str(source),
                    "-o",
                    str(out),
                ]
                objects[name][source.stem] = (out, pool.submit(_run, command))
        built = [_compile_call(folder)]
        for name, parts in objects.items():
            for _, done in parts.values():
                done.result()
            target = folder / f"kernels_{name}.so"
            parts_of = [str(out) for out, _ in parts.values()]
            _run([CXX, "-shared", "-pthread", "-s", "-o", str(target), *parts_of])
            built.append(target)
    return built


def _known(name: str, variant: Variant) -> bool:
    """Whether the compiler has the instructions; if not, says so."""
    command = [CXX, *variant.flags, "-x", "c++", "-fsyntax-only", os.devnull]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        print(
            f"{CXX} cannot compile for {name}, which is left out: {done.stderr.strip()}",
            file=sys.stderr,
        )
    return not done.returncode


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
                compile_kernels(made, VARIANTS | EMULATED)
                made.rename(place)
    if place.lstat().st_uid != os.getuid():
        raise RuntimeError(f"{place} belongs to another user: remove it, or set TMPDIR")
    return place


if __name__ == "__main__":
    for built in compile_kernels(Path(sys.argv[1])):
        print(built)
