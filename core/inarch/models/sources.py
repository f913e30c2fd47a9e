"""Which tensors of a checkpoint make up a canonical one, and which part of each.

Checkpoints of one architecture differ: fused or split projections, transposed weights, heads that
interleave q, k and v, experts stacked or apart. A family says so as data. Each part is a view of the
memory-mapped file, so that the one copy of it is made where it belongs.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace

from torch import Tensor

from inarch.models.mxfp4 import dequantize_mxfp4


@dataclass(frozen=True)
class Transposed:
    """A matrix that is stored [inputs, outputs], as GPT-2's, or a stack of such."""

    def __call__(self, stored: Tensor) -> Tensor:
        return stored.transpose(-1, -2)


@dataclass(frozen=True)
class Expert:
    """One of the matrices that are stacked along the first dimension."""

    index: int

    def __call__(self, stored: Tensor) -> Tensor:
        return stored[self.index]


@dataclass(frozen=True)
class Rows:
    """Rows start to stop of each of `groups` equal blocks: of all rows if there is one block.

    What keeps q, k and v of one head side by side has as many groups as (KV) heads.
    """

    start: int
    stop: int
    groups: int = 1

    def __call__(self, stored: Tensor) -> Tensor:
        blocks = stored.view(self.groups, -1, *stored.shape[1:])
        return blocks[:, self.start : self.stop]


@dataclass(frozen=True)
class Alternating:
    """Every other row, then the rows between: the ups behind the gates where the two alternate.

    columns: how many dimensions there are behind the rows: one, or none for a bias.
    """

    columns: int = 1

    def __call__(self, stored: Tensor) -> Tensor:
        rows = stored.dim() - 1 - self.columns
        shape = stored.shape
        return stored.view(*shape[:rows], -1, 2, *shape[rows + 1 :]).transpose(rows, rows + 1)


View = Callable[[Tensor], Tensor]  # of a stored tensor; any shape whose elements are in order


@dataclass(frozen=True)
class Source:
    """A tensor of the checkpoint, seen through `views`, the first one first."""

    name: str
    views: tuple[View, ...] = ()

    @property
    def tensors(self) -> tuple[str, ...]:
        """What of the checkpoint it is made of."""
        return (self.name,)

    @property
    def dtype(self) -> str | None:
        """What the tensors must be stored in; None: any floating-point one."""
        return None

    def of(self, stored: Tensor) -> Tensor:
        for view in self.views:
            stored = view(stored)
        return stored

    def pieces(self, *stored: Tensor) -> Iterator[Tensor]:
        """What the tensors hold, a piece after the other, each of any shape."""
        yield from map(self.of, stored)


@dataclass(frozen=True)
class Mxfp4(Source):
    """A stack of matrices in 4 bits, as NAME_blocks and NAME_scales: see `dequantize_mxfp4`.

    Unpacked matrix by matrix, each seen through the views.
    """

    @property
    def tensors(self) -> tuple[str, ...]:
        return f"{self.name}_blocks", f"{self.name}_scales"

    @property
    def dtype(self) -> str | None:
        return "uint8"

    def pieces(self, *stored: Tensor) -> Iterator[Tensor]:
        for blocks, scales in zip(*stored, strict=True):
            yield self.of(dequantize_mxfp4(blocks, scales))


Sources = tuple[str | Source, ...]  # concatenated along dim 0; a string is a tensor as it is


@dataclass(frozen=True, init=False)
class FirstOf:
    """Sources of which a checkpoint holds one kind: the first whose tensors are all there."""

    alternatives: tuple[Sources, ...]

    def __init__(self, *alternatives: Sources) -> None:
        object.__setattr__(self, "alternatives", alternatives)


# Canonical parameter -> the checkpoint's tensors that make it up; further entries are ignored.
Names = Mapping[str, Sources | FirstOf]


def choose_sources(names: Names, present: Collection[str]) -> dict[str, tuple[Source, ...]]:
    """Decide between alternatives and spellings by what a checkpoint holds.

    What it holds in no spelling keeps the family's first one.
    """
    rename = _spelling(names, present)
    chosen: dict[str, tuple[Source, ...]] = {}
    for parameter, sources in names.items():
        kinds = sources.alternatives if isinstance(sources, FirstOf) else (sources,)
        spelled = [tuple(_renamed(source, rename) for source in kind) for kind in kinds]
        complete = [kind for kind in spelled if all(_complete(source, present) for source in kind)]
        chosen[parameter] = (complete or spelled)[0]
    return chosen


def _complete(source: Source, present: Collection[str]) -> bool:
    return all(name in present for name in source.tensors)


def _renamed(source: str | Source, rename: Callable[[str], str]) -> Source:
    source = Source(source) if isinstance(source, str) else source
    return replace(source, name=rename(source.name))


def _spelling(names: Names, present: Collection[str]) -> Callable[[str], str]:
    """How a checkpoint spells the family's names, which its embedding shows.

    The name of the backbone ("model.") is absent where the backbone alone was saved, as
    sentence-transformers does, and stands beside "language_model." in multimodal models.
    """
    sources = names.get("embedding.weight", ())
    first = (sources.alternatives[0] if isinstance(sources, FirstOf) else sources)[:1]
    embedding = "".join(_renamed(source, str).name for source in first)
    backbone = embedding.partition(".")[0] + "."
    inner = embedding.removeprefix(backbone)
    spellings = (backbone, "", f"language_model.{backbone}", f"{backbone}language_model.")
    found = next((s for s in spellings if s + inner in present), backbone)

    def rename(name: str) -> str:
        if name.startswith(backbone):
            return found + name.removeprefix(backbone)
        wrapped = f"language_model.{name}"
        return wrapped if wrapped in present else name

    return rename
