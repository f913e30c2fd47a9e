"""Opens a model folder as Hugging Face lays it out: config.json, and weights in safetensors files.

Tensors are views of the memory-mapped files: nothing is read before it is used, and nothing is
unpickled.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from inarch.errors import ModelError

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
FLOATS = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
GIT_LFS_POINTER = b"version https://git-lfs"


@dataclass(frozen=True)
class Stored:
    """What a file's header says of a tensor."""

    file: Path
    shape: tuple[int, ...]
    dtype: str  # safetensors' name: "BF16"


class Checkpoint:
    """A model folder. config and generation_config are plain dicts; the second may be empty.

    Raises ModelError: at once for a missing folder or config.json, when weights are first asked for
    if there are none, a shard is missing or a file is damaged. One file is mapped at a time.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        if not self.folder.is_dir():
            raise ModelError(f"{self.folder} is no folder: give one that holds a config.json")
        if not (self.folder / "config.json").is_file():
            raise ModelError(
                f"{self.folder} holds no config.json: give a model folder in Hugging Face's format"
            )
        self.config = read_json(self.folder / "config.json")
        generation = self.folder / "generation_config.json"
        self.generation_config = read_json(generation) if generation.is_file() else {}
        self._mapped: tuple[Path, Any] | None = None

    def names(self) -> frozenset[str]:
        """All tensors of the weight files."""
        return frozenset(self._stored)

    def shape(self, name: str) -> tuple[int, ...]:
        return self._find(name).shape

    def dtype(self, name: str) -> torch.dtype:
        """The dtype of one tensor; ModelError if it is not a plain floating-point one."""
        stored = self._find(name).dtype
        if stored not in FLOATS:
            raise ModelError(
                f"tensor {name} in {self.folder} is stored as {stored}, which cannot be loaded: "
                "take the model's unquantized version (bfloat16, float16 or float32)"
            )
        return FLOATS[stored]

    def get(self, name: str) -> Tensor:
        """One tensor, on the host in the dtype of the file: a view of the memory-mapped file."""
        file = self._find(name).file
        if self._mapped is None or self._mapped[0] != file:
            self._mapped = (file, _open(file))
        found: Tensor = self._mapped[1].get_tensor(name)
        return found

    def close(self) -> None:
        """Unmap the file that was last read; a further `get` maps it again."""
        self._mapped = None

    @property
    def stored_dtype(self) -> torch.dtype:
        """What the config says, or else the first tensor's: where `--dtype auto` starts.

        A config alone that says nothing (for dummy weights) means float32, as in transformers.
        """
        stated = self.config.get("dtype") or self.config.get("torch_dtype")
        if stated is None:
            has_weights = any(self.folder.glob("*.safetensors"))
            return self.dtype(min(self.names())) if has_weights else torch.float32
        found = getattr(torch, str(stated).removeprefix("torch."), None)
        if not isinstance(found, torch.dtype) or found not in FLOATS.values():
            raise ModelError(
                f"config.json: dtype must be one of bfloat16, float16, float32, found {stated!r}"
            )
        return found

    def _find(self, name: str) -> Stored:
        if name not in self._stored:
            raise ModelError(f"{self.folder} holds no tensor {name}")
        return self._stored[name]

    @functools.cached_property
    def _stored(self) -> dict[str, Stored]:
        found: dict[str, Stored] = {}
        for path in (self.folder / file for file in self._files()):
            opened = _open(path)
            for name in opened.keys():  # noqa: SIM118 - not a dict
                header = opened.get_slice(name)
                found[name] = Stored(path, tuple(header.get_shape()), header.get_dtype())
        return found

    def _files(self) -> list[str]:
        """Names of the weight files; `consolidated.*` copies in other formats are left alone."""
        if (self.folder / INDEX).is_file():
            return self._shards()
        if (self.folder / SINGLE).is_file():
            return [SINGLE]
        found = sorted(path.name for path in self.folder.glob("*.safetensors"))
        if len(found) == 1:
            return found
        raise ModelError(_no_weights(self.folder, found))

    def _shards(self) -> list[str]:
        weight_map = read_json(self.folder / INDEX).get("weight_map")
        if not isinstance(weight_map, dict) or not weight_map:
            raise ModelError(f"{self.folder / INDEX} has no weight_map: download it again")
        files = sorted({str(file) for file in weight_map.values()})
        outside = [file for file in files if Path(file).name != file]
        if outside:
            raise ModelError(f"{self.folder / INDEX} names a file outside its folder: {outside[0]}")
        missing = [file for file in files if not (self.folder / file).is_file()]
        if missing:
            raise ModelError(
                f"{self.folder} lacks {len(missing)} of the {len(files)} weight files that {INDEX} "
                f"names: {listed(missing)}. Download the model again"
            )
        return files


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file; ModelError with the place if it is malformed."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{path} is not readable as JSON: {error}") from error
    if not isinstance(found, dict):
        raise ModelError(f"{path} must hold a JSON object, found {type(found).__name__}")
    return found


def _open(path: Path) -> Any:
    try:
        return safe_open(path, framework="pt", device="cpu")
    except (SafetensorError, OSError) as error:
        with path.open("rb") as file:
            pointer = file.read(len(GIT_LFS_POINTER)) == GIT_LFS_POINTER
        reason = (
            "is a Git LFS pointer, not the weights: run `git lfs pull` in its folder"
            if pointer
            else f"is truncated or damaged ({error}; it has {path.stat().st_size} bytes): "
            "download it again"
        )
        raise ModelError(f"{path} {reason}") from error


def _no_weights(folder: Path, safetensors: Sequence[str]) -> str:
    if safetensors:
        return (
            f"{folder} holds the weight files {listed(safetensors)} but no {INDEX} "
            "that says which belong to the model: download it too"
        )
    pickled = [path.name for kind in ("*.bin", "*.pt", "*.pth") for path in folder.glob(kind)]
    if pickled:
        return (
            f"{folder} holds its weights as {listed(sorted(pickled))} only. Such files can run "
            "code when opened, so only safetensors are read. If you trust them, convert them once: "
            "transformers.AutoModelForCausalLM.from_pretrained(old).save_pretrained(new)"
        )
    return (
        f"{folder} holds no weights (*.safetensors): download them, or run with random ones "
        "by --load-format dummy"
    )


def listed(names: Sequence[str], most: int = 3) -> str:
    """The first few names, for a message."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")
