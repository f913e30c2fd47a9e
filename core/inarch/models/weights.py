"""Where the decoder's tensors come from: a checkpoint, or random numbers.

One canonical tensor at a time is allocated on the device in the dtype of the computation and filled
straight from the memory-mapped file, part by part: nothing is held twice.
"""

from __future__ import annotations

import logging
import math
import zlib
from collections.abc import Callable, Mapping
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
            if source.name not in present:
                part.fill_(parameter.default or 0.0)
                continue
            stored = source.of(checkpoint.get(source.name))
            part.view(stored.shape).copy_(stored)
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
            if source.name in present:
                _check_tensor(checkpoint, source, shape)
            else:
                (missing if parameter.default is None else defaulted).append(source.name)
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
    checkpoint.dtype(source.name)  # raises if it is no plain one
    stored = checkpoint.shape(source.name)
    if not _fits(source, stored, expected):
        seen = f", as {' of '.join(map(repr, reversed(source.views)))}" if source.views else ""
        raise ModelError(
            f"tensor {source.name} in {checkpoint.folder} has the shape {list(stored)}, but "
            f"config.json implies {list(expected)}{seen}: config and weights do not belong together"
        )


def _fits(source: Source, stored: tuple[int, ...], expected: tuple[int, ...]) -> bool:
    """Whether what is seen of a stored tensor has as many rows, of as many columns."""
    try:
        seen = source.of(torch.empty(stored, device="meta"))
    except (RuntimeError, IndexError):
        return False
    columns = expected[-1:] if len(expected) > 1 else ()
    return (
        seen.numel() == math.prod(expected)
        and seen.shape[len(seen.shape) - len(columns) :] == columns
    )


def _warn_of_unused(checkpoint: Checkpoint, chosen: Chosen) -> None:
    used = {source.name for sources in chosen.values() for source in sources}
    unused = sorted(n for n in checkpoint.names() - used if not n.endswith(HARMLESS))
    if unused:
        log.warning(
            "%d tensors in %s are not used: %s", len(unused), checkpoint.folder, listed(unused)
        )
