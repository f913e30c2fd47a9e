"""Where the decoder's tensors come from: a checkpoint, or random numbers.

One canonical tensor at a time is allocated on the device in the dtype of the computation and filled
straight from the memory-mapped file, part by part: nothing is held twice.
"""

from __future__ import annotations

import logging
import math
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from inarch.errors import ModelError
from inarch.models.checkpoint import Checkpoint, listed
from inarch.models.parameters import Parameter, Parameters
from inarch.models.sources import Source

log = logging.getLogger(__name__)

Fill = Callable[[str, Parameter, Tensor], None]  # writes a canonical tensor into the last argument

# Tables and masks that older versions of transformers stored.
HARMLESS = ("rotary_emb.inv_freq", ".attn.bias", "attention.bias", ".masked_bias", "position_ids")
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
        dtype = getattr(torch, parameter.dtype) if parameter.dtype else self.dtype
        tensor = torch.empty(parameter.shape, dtype=dtype, device=self.device)
        self.fill(name, parameter, tensor)
        self.loaded(tensor.nbytes)
        return tensor


# What `choose_sources` decided: canonical parameter -> the tensors that make it up.
Chosen = Mapping[str, tuple[Source, ...]]


def from_checkpoint(checkpoint: Checkpoint, chosen: Chosen) -> Fill:
    """Fill from a checkpoint that `check_tensors` has found complete."""
    present = checkpoint.names()

    def fill(name: str, parameter: Parameter, target: Tensor) -> None:
        flat, start = target.view(-1), 0
        for source, shape in _parts(name, parameter, chosen):
            part = flat[start : start + math.prod(shape)]
            start += len(part)
            if present.issuperset(source.tensors):
                _copy(source, checkpoint, part)
            else:
                part.fill_(parameter.default or 0.0)
        if parameter.offset:
            target += parameter.offset

    return fill


def _copy(source: Source, checkpoint: Checkpoint, flat: Tensor) -> None:
    stored = (checkpoint.get(name) for name in source.tensors)
    if source.dtype is not None:  # to be unpacked where there is more than one core for it
        stored = (tensor.to(flat.device) for tensor in stored)
    start = 0
    for piece in source.pieces(*stored):
        flat[start : start + piece.numel()].view(piece.shape).copy_(piece)
        start += piece.numel()


def random_weights(seed: int = 0) -> Fill:
    """Fill with small normal numbers, norms with ones: the same on every device."""
    generator = torch.Generator().manual_seed(seed)
    pool = torch.randn(RANDOM_POOL, generator=generator) * RANDOM_DEVIATION

    def fill(name: str, parameter: Parameter, target: Tensor) -> None:
        nonlocal pool
        if parameter.scale:
            target.fill_(1.0)
            return
        pool = pool.to(target.device)  # once: from then on the copies stay there
        flat, start = target.view(-1), 0
        offset = zlib.crc32(name.encode()) % RANDOM_POOL
        while start < len(flat):
            part = pool[offset : offset + len(flat) - start]
            flat[start : start + len(part)].copy_(part)
            start, offset = start + len(part), 0

    return fill


def check_tensors(checkpoint: Checkpoint, chosen: Chosen, parameters: Parameters) -> None:
    """Compare names, shapes and dtypes with the headers of the files, before anything is read.

    Raises ModelError for a tensor that is missing, misshapen or quantized. Warns of unused ones, and
    of those that are absent where a default does no harm.
    """
    present = checkpoint.names()
    missing: list[str] = []
    defaulted: list[str] = []
    for name, parameter in parameters.items():
        for source, shape in _parts(name, parameter, chosen):
            lacking = [tensor for tensor in source.tensors if tensor not in present]
            if not lacking:
                _check_tensor(checkpoint, source, shape)
            else:
                (missing if parameter.default is None else defaulted).extend(lacking)
    if missing:
        raise ModelError(
            f"{checkpoint.folder} lacks {len(missing)} of the tensors that config.json implies: "
            f"{listed(missing)}. The download is incomplete, or the config is of another model"
        )
    if defaulted:
        log.warning(
            "%d tensors that config.json implies are not in %s and do nothing there: %s",
            len(defaulted),
            checkpoint.folder,
            listed(defaulted),
        )
    _warn_of_unused(checkpoint, chosen)


def _parts(name: str, parameter: Parameter, chosen: Chosen) -> list[tuple[Source, tuple[int, ...]]]:
    """The tensors that make up a parameter, with the shapes that they must have."""
    sources = chosen.get(name, ())
    rows = parameter.rows if len(sources) == len(parameter.rows) else (sum(parameter.rows),)
    if len(sources) != len(rows):
        raise ModelError(
            f"the model family names {len(sources)} tensors for {name}, which has "
            f"{len(parameter.rows)} parts: a fault of the family"
        )
    return [(source, parameter.shape_of(r)) for source, r in zip(sources, rows, strict=True)]


def _check_tensor(checkpoint: Checkpoint, source: Source, expected: tuple[int, ...]) -> None:
    for name in source.tensors:
        checkpoint.dtype(name, source.dtype)  # raises if it is no plain one
    shapes = [checkpoint.shape(name) for name in source.tensors]
    if not _fits(source, shapes, expected):
        found = ", ".join(str(list(shape)) for shape in shapes)
        seen = f", as {' of '.join(map(repr, reversed(source.views)))}" if source.views else ""
        raise ModelError(
            f"tensor {', '.join(source.tensors)} in {checkpoint.folder} has the shape {found}, but "
            f"config.json implies {list(expected)}{seen}: config and weights do not belong together"
        )


def _fits(source: Source, stored: Sequence[tuple[int, ...]], expected: tuple[int, ...]) -> bool:
    """Whether what is seen of stored tensors has as many rows, of as many columns."""
    dtype = getattr(torch, source.dtype or "float32")
    empty = (torch.empty(shape, dtype=dtype, device="meta") for shape in stored)
    columns = expected[-1:] if len(expected) > 1 else ()
    try:
        shapes = [piece.shape for piece in source.pieces(*empty)]
    except (RuntimeError, IndexError, ValueError):
        return False
    right = all(shape[len(shape) - len(columns) :] == columns for shape in shapes)
    return right and sum(map(math.prod, shapes)) == math.prod(expected)


def _warn_of_unused(checkpoint: Checkpoint, chosen: Chosen) -> None:
    used = {name for sources in chosen.values() for source in sources for name in source.tensors}
    unused = sorted(n for n in checkpoint.names() - used if not n.endswith(HARMLESS))
    if unused:
        log.warning(
            "%d tensors in %s are not used: %s", len(unused), checkpoint.folder, listed(unused)
        )
