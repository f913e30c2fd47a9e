"""What can be said of a model before any of its weights is read, in words for a person."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from inarch.models.description import Description, Layer, Rotary

T = TypeVar("T")
# Sizes of a part that a reader looks for, in the names that descriptions give them.
TELLING = {
    "q_heads": "{} heads",
    "kv_heads": "{} KV heads",
    "kv_rank": "latents of {} features",
    "experts": "{} experts",
    "window": "window {}",
    "softcap": "soft cap {:g}",
}


@dataclass(frozen=True)
class Survey:
    implementation: str  # whose code runs it
    parameters: int  # elements of all weights
    weight_bytes: int
    stored: str  # how far the weight files were compared with it
    layers: tuple[str, ...]  # what each is made of
    positions: tuple[str, ...]  # how they are known to it


def layer_in_words(layer: Layer) -> str:
    halves = (layer.mixer, layer.feed_forward)
    return "; ".join(part_in_words(half) for half in halves if half is not None)


def part_in_words(part: Any) -> str:
    """A part of a description by the name of its class and the sizes that tell it from others."""
    told = [
        text.format(getattr(part, name))
        for name, text in TELLING.items()
        if getattr(part, name, None) not in (None, False)
    ]
    return ", ".join([spaced(type(part).__name__), *told])


def positions_in_words(description: Description) -> tuple[str, ...]:
    """The table that is added to embeddings, and every way in which layers rotate; or "none"."""
    learned = description.positions
    table = (f"learned, {learned.count:,} of them",) if learned is not None else ()
    rotations = dict.fromkeys(found_in(description.layers, Rotary))
    return (*table, *map(_rotary_in_words, rotations)) or ("none",)


def _rotary_in_words(rotary: Rotary) -> str:
    told = f"rotary of {rotary.dim} features, theta {rotary.theta:g}"
    if rotary.scaling is None:
        return told
    kind = type(rotary.scaling).__name__.removesuffix("Scaling").lower()
    factor = getattr(rotary.scaling, "factor", None)
    by = f" by {factor:g}" if isinstance(factor, (int, float)) else ""
    return f"{told}, {kind} scaling{by}"


def found_in(value: Any, kind: type[T]) -> Iterator[T]:
    """Every object of a kind within frozen dataclasses and tuples, in order."""
    if isinstance(value, kind):
        yield value
    inner: Iterable[Any] = ()
    if isinstance(value, tuple):
        inner = value
    elif dataclasses.is_dataclass(value):
        inner = [getattr(value, field.name) for field in dataclasses.fields(value)]
    for item in inner:
        yield from found_in(item, kind)


def spaced(name: str) -> str:
    """The name of a class in words: GroupedQueryAttention -> grouped query attention, MLP -> MLP."""
    words = re.findall(r"[A-Z]+(?![a-z])|[A-Z][a-z0-9]*", name)
    return " ".join(word if word.isupper() else word.lower() for word in words)
