"""Opens a model folder as Hugging Face lays it out: config.json, and weights in one file or shards.

Safetensors are preferred; torch's own files are read if there is nothing else.
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from inarch.errors import ModelError
from inarch.models.weight_file import Stored, WeightFile, open_weights

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
TORCH_INDEX = "pytorch_model.bin.index.json"
TORCH_SINGLE = "pytorch_model.bin"
MODULES = "*_Dense/model.safetensors"
# What was read of a mapped file stays resident until it is unmapped: after so many bytes it is.
MOST_MAPPED = 1 << 28
FLOATS = ("float64", "float32", "float16", "bfloat16")


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
        self._mapped: tuple[Path, WeightFile] | None = None
        self._read, self._last = 0, ""  # bytes since it was mapped, and the last tensor

    def names(self) -> frozenset[str]:
        """All tensors of the weight files. One of a module of sentence-transformers, which has a folder
        of its own, goes by FOLDER/NAME."""
        return frozenset(self._stored)

    def shape(self, name: str) -> tuple[int, ...]:
        return self._find(name).shape

    def dtype(self, name: str, wanted: str | None = None) -> torch.dtype:
        """The dtype of one tensor; ModelError if it is not the wanted one.

        wanted: torch's name of it; None: any plain floating-point one.
        """
        stored = self._find(name).dtype
        if stored != wanted if wanted else stored not in FLOATS:
            raise ModelError(
                f"tensor {name} in {self.folder} is stored as {stored}, which cannot be loaded: "
                "take the model's unquantized version (bfloat16, float16 or float32)"
            )
        found: torch.dtype = getattr(torch, stored)
        return found

    def get(self, name: str) -> Tensor:
        """One tensor, on the host in the dtype of the file: a view of the memory-mapped file."""
        file = self._find(name).file
        if self._mapped is None or self._mapped[0] != file or self._read > MOST_MAPPED:
            self._mapped, self._read = (file, open_weights(file)), 0
        tensor = self._mapped[1].get(name.rpartition("/")[2])
        if self._mapped[1].mapped and name != self._last:
            self._read += tensor.nbytes
        self._last = name
        return tensor

    def close(self) -> None:
        """Unmap the file that was last read; a further `get` maps it again."""
        self._mapped = None

    @property
    def stored_dtype(self) -> torch.dtype:
        """What the config says, or else the largest tensor's: where `--dtype auto` starts.

        A config alone that says nothing (for dummy weights) means float32, as in transformers.
        """
        stated = self.config.get("dtype") or self.config.get("torch_dtype")
        if stated is None:
            kinds = ("*.safetensors", TORCH_SINGLE, TORCH_INDEX)
            has_weights = any(path for kind in kinds for path in self.folder.glob(kind))
            return self._largest_dtype() if has_weights else torch.float32
        name = str(stated).removeprefix("torch.")
        if name not in FLOATS:
            raise ModelError(
                f"config.json: dtype must be one of bfloat16, float16, float32, found {stated!r}"
            )
        found: torch.dtype = getattr(torch, name)
        return found

    def _largest_dtype(self) -> torch.dtype:
        floats = [name for name in sorted(self.names()) if self._find(name).dtype in FLOATS]
        sizes = {name: math.prod(self.shape(name)) for name in floats}
        return self.dtype(max(floats, key=sizes.__getitem__)) if floats else torch.float32

    def _find(self, name: str) -> Stored:
        if name not in self._stored:
            raise ModelError(f"{self.folder} holds no tensor {name}")
        return self._stored[name]

    @functools.cached_property
    def _stored(self) -> dict[str, Stored]:
        found: dict[str, Stored] = {}
        for file in self._files():
            found |= open_weights(self.folder / file).stored()
        for path in sorted(self.folder.glob(MODULES)):
            inner = open_weights(path).stored().items()
            found |= {f"{path.parent.name}/{name}": stored for name, stored in inner}
        return found

    def _files(self) -> list[str]:
        """Names of the weight files; `consolidated.*` copies in other formats are left alone."""
        loose = sorted(path.name for path in self.folder.glob("*.safetensors"))
        if (self.folder / INDEX).is_file():
            return self._shards(INDEX)
        if (self.folder / SINGLE).is_file():
            return [SINGLE]
        if len(loose) == 1:
            return loose
        if not loose and (self.folder / TORCH_INDEX).is_file():
            return self._shards(TORCH_INDEX)
        if not loose and (self.folder / TORCH_SINGLE).is_file():
            return [TORCH_SINGLE]
        raise ModelError(_no_weights(self.folder, loose))

    def _shards(self, index: str) -> list[str]:
        weight_map = read_json(self.folder / index).get("weight_map")
        if not isinstance(weight_map, dict) or not weight_map:
            raise ModelError(f"{self.folder / index} has no weight_map: download it again")
        files = sorted({str(file) for file in weight_map.values()})
        outside = [file for file in files if Path(file).name != file]
        if outside:
            raise ModelError(f"{self.folder / index} names a file outside its folder: {outside[0]}")
        missing = [file for file in files if not (self.folder / file).is_file()]
        if missing:
            raise ModelError(
                f"{self.folder} lacks {len(missing)} of the {len(files)} weight files that {index} "
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


def _no_weights(folder: Path, safetensors: Sequence[str]) -> str:
    if safetensors:
        return (
            f"{folder} holds the weight files {listed(safetensors)} but no {INDEX} "
            "that says which belong to the model: download it too"
        )
    pickled = [path.name for kind in ("*.bin", "*.pt", "*.pth") for path in folder.glob(kind)]
    if pickled:
        return (
            f"{folder} holds {listed(sorted(pickled))}, but neither safetensors nor {TORCH_SINGLE} "
            f"nor {TORCH_INDEX}, which are what is read: download those"
        )
    return (
        f"{folder} holds no weights (*.safetensors): download them, or run with random ones "
        "by --load-format dummy"
    )


def listed(names: Sequence[str], most: int = 3) -> str:
    """The first few names, for a message."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")
