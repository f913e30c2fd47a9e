"""One file of weights: safetensors, or what torch.save wrote.

Tensors are views of the memory-mapped file. Of a torch file nothing but tensors is unpickled: what
asks for anything else is refused before it runs. Files of torch before 1.6 cannot be mapped and are
read whole.
"""

from __future__ import annotations

import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from inarch.errors import ModelError

GIT_LFS_POINTER = b"version https://git-lfs"
ASKS_FOR = re.compile(r"(?:\bGLOBAL |(?=TorchScript))(\S+)")  # in torch's refusal to unpickle
TORCH_NAMES = {  # of safetensors' dtypes; others are only named, never loaded
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U8": "uint8",
    "BOOL": "bool",
}


@dataclass(frozen=True)
class Stored:
    """What a file says of a tensor."""

    file: Path
    shape: tuple[int, ...]
    dtype: str  # torch's name: "bfloat16"


class WeightFile(Protocol):
    """An opened file. Whoever holds a tensor of it keeps it mapped."""

    mapped: bool  # else its tensors are read as a whole

    def stored(self) -> dict[str, Stored]:
        """All tensors by name, without reading them."""

    def get(self, name: str) -> Tensor: ...


def open_weights(path: Path) -> WeightFile:
    """Raises ModelError for a file that is damaged, or that holds more than tensors."""
    return SafetensorsFile(path) if path.suffix == ".safetensors" else TorchFile(path)


class SafetensorsFile:
    mapped = True

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._file: Any = safe_open(path, framework="pt", device="cpu")
        except (SafetensorError, OSError) as error:
            raise _damaged(path, error) from error

    def stored(self) -> dict[str, Stored]:
        found = {}
        for name in self._file.keys():  # noqa: SIM118 - not a dict
            header = self._file.get_slice(name)
            dtype = header.get_dtype()
            shape = tuple(header.get_shape())
            found[name] = Stored(self._path, shape, TORCH_NAMES.get(dtype, dtype))
        return found

    def get(self, name: str) -> Tensor:
        tensor: Tensor = self._file.get_tensor(name)
        return tensor


class TorchFile:
    """pytorch_model.bin: a dict of tensors that torch.save wrote."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.mapped = zipfile.is_zipfile(path)
        self._tensors: dict[str, Tensor] | None = None

    def stored(self) -> dict[str, Stored]:
        return {
            name: Stored(self._path, tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."))
            for name, tensor in _load(self._path, "meta", mapped=False).items()
        }

    def get(self, name: str) -> Tensor:
        if self._tensors is None:
            self._tensors = _load(self._path, "cpu", mapped=self.mapped)
        return self._tensors[name]


def _load(path: Path, device: str, *, mapped: bool) -> dict[str, Tensor]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of old pickle protocols
            found = torch.load(path, map_location=device, weights_only=True, mmap=mapped)
    except Exception as error:  # whatever a damaged zip or pickle makes torch stumble over
        asked = ASKS_FOR.search(str(error))
        raise _refused(path, asked[1]) if asked else _damaged(path, error) from error
    if not isinstance(found, Mapping):
        raise ModelError(f"{path} holds a {type(found).__name__}, no tensors by name")
    return {
        str(name): tensor
        for name, tensor in found.items()
        if isinstance(tensor, Tensor) and tensor.layout is torch.strided
    }


def _refused(path: Path, asked: str) -> ModelError:
    return ModelError(
        f"{path} asks for {asked} when opened, which could run code, so it was not opened: only "
        "tensors are unpickled. Take the model's safetensors, or a file of its tensors alone"
    )


def _damaged(path: Path, error: Exception) -> ModelError:
    with path.open("rb") as file:
        pointer = file.read(len(GIT_LFS_POINTER)) == GIT_LFS_POINTER
    if pointer:
        return ModelError(
            f"{path} is a Git LFS pointer, not the weights: run `git lfs pull` in its folder"
        )
    reason = str(error).partition("\n")[0]
    if isinstance(error, pickle.UnpicklingError) or not reason:
        reason = "no pickle of tensors"  # torch's own words advise to trust the file
    return ModelError(
        f"{path} is truncated or damaged ({reason}; it has {path.stat().st_size} bytes): "
        "download it again"
    )
