"""One controller for all chips: arrays are laid out over a mesh, and XLA inserts what moves between.

The one axis of the mesh splits attention heads and the features of linear layers. What cannot be split
evenly is kept whole on every chip: slower, never wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

AXIS = "chips"


def make_mesh(chips: Sequence[Any]) -> Mesh:
    return Mesh(np.array(chips), (AXIS,))


def split(mesh: Mesh, shape: Sequence[int], axis: int | None) -> NamedSharding:
    """Along an axis, if it can be split evenly; None: whole on every chip."""
    parts: list[str | None] = [None] * len(shape)
    if axis is not None and shape[axis] % mesh.size == 0:
        parts[axis] = AXIS
    return NamedSharding(mesh, PartitionSpec(*parts))


def whole(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, PartitionSpec())


def constrained(x: Any, mesh: Mesh, axis: int | None) -> Any:
    """Tell XLA, within a program, how a value is to lie."""
    if mesh.size == 1:
        return x
    return jax.lax.with_sharding_constraint(x, split(mesh, x.shape, axis))
