"""Where the decoder's tensors come from: a checkpoint, or random numbers.

One canonical tensor at a time is allocated on the device in the dtype of the computation and filled
straight from the memory-mapped file, part by part: nothing is held twice.
"""

from __future__ import annotations

import logging
import zlib
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from inarch.errors import ModelError
from inarch.models.checkpoint import Checkpoint, listed
from inarch.models.family import Names
from inarch.models.parameters import Parameter, Parameters

log = logging.getLogger(__name__)

Fill = Callable[[str, Parameter, Tensor], None]  # writes a canonical tensor into the last argument

HARMLESS = ("rotary_emb.inv_freq",)  # tables that old versions of transformers stored
RANDOM_POOL = 4_194_301  # a prime, so that no two rows of a matrix are the same stretch of the pool
RANDOM_DEVIATION = 0.02


@dataclass(frozen=True)
class Weights:
    """Canonical tensors by name. `loaded` is told the bytes of each one that was handed out."""

    parameters: Parameters
    fill: Fill
    device: torch.device
    dtype: torch.dtype
    loaded: Callable[[int], None]

    def __contains__(self, name: str) -> bool:
        return name in self.parameters

    def take(self, name: str) -> Tensor:
        """A new tensor that the caller owns; no reference to it is kept here."""
        parameter = self.parameters[name]
        dtype = torch.float32 if parameter.offset else self.dtype
        tensor = torch.empty(parameter.shape, dtype=dtype, device=self.device)
        self.fill(name, parameter, tensor)
        self.loaded(tensor.nbytes)
        return tensor


def from_checkpoint(checkpoint: Checkpoint, names: Names) -> Fill:
    """Fill from a checkpoint that `check_tensors` has found complete."""

    def fill(name: str, parameter: Parameter, target: Tensor) -> None:
        start = 0
        for source in names[name]:
            part = checkpoint.get(source)
            target[start : start + len(part)].copy_(part)
            start += len(part)
        if parameter.offset:
            target += parameter.offset

    return fill


def random_weights(seed: int = 0) -> Fill:
    """Fill with small normal numbers, norms with ones: the same on every device."""
    generator = torch.Generator().manual_seed(seed)
    pool = torch.randn(RANDOM_POOL, generator=generator) * RANDOM_DEVIATION

    def fill(name: str, parameter: Parameter, target: Tensor) -> None:
        nonlocal pool
        if parameter.scale:
            target.fill_(1.0)
            return
        pool = pool.to(target)  # once: from then on the copies stay on the device
        flat, start = target.view(-1), 0
        offset = zlib.crc32(name.encode()) % RANDOM_POOL
        while start < len(flat):
            part = pool[offset : offset + len(flat) - start]
            flat[start : start + len(part)].copy_(part)
            start, offset = start + len(part), 0

    return fill


def check_tensors(checkpoint: Checkpoint, names: Names, parameters: Parameters) -> None:
    """Compare names, shapes and dtypes with the headers of the files, before anything is read.

    Raises ModelError for a tensor that is missing, misshapen or quantized; warns of unused ones.
    """
    needed = {name: _expected(name, parameters[name], names) for name in parameters}
    present = checkpoint.names()
    missing = [source for shapes in needed.values() for source in shapes if source not in present]
    if missing:
        raise ModelError(
            f"{checkpoint.folder} lacks {len(missing)} of the tensors that config.json implies: "
            f"{listed(missing)}. The download is incomplete, or the config is of another model"
        )
    for shapes in needed.values():
        for source, shape in shapes.items():
            _check_tensor(checkpoint, source, shape)
    _warn_of_unused(checkpoint, names)


def _expected(name: str, parameter: Parameter, names: Names) -> dict[str, tuple[int, ...]]:
    """The tensors that make up a parameter, with their shapes."""
    sources = names.get(name, ())
    rows = parameter.rows if len(sources) == len(parameter.rows) else (sum(parameter.rows),)
    if len(sources) != len(rows):
        raise ModelError(
            f"the model family names {len(sources)} tensors for {name}, which has "
            f"{len(parameter.rows)} parts: a fault of the family"
        )
    return {source: parameter.shape_of(r) for source, r in zip(sources, rows, strict=True)}


def _check_tensor(checkpoint: Checkpoint, name: str, expected: tuple[int, ...]) -> None:
    found = checkpoint.shape(name)
    if found != expected:
        raise ModelError(
            f"tensor {name} in {checkpoint.folder} has the shape {list(found)}, but config.json "
            f"implies {list(expected)}: config and weights do not belong together"
        )
    checkpoint.dtype(name)


def _warn_of_unused(checkpoint: Checkpoint, names: Names) -> None:
    used = {source for sources in names.values() for source in sources}
    unused = sorted(n for n in checkpoint.names() - used if not n.endswith(HARMLESS))
    if unused:
        log.warning(
            "%d tensors in %s are not used: %s", len(unused), checkpoint.folder, listed(unused)
        )
