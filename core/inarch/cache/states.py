"""The slots of recurrent states: those that running requests hold, and checkpoints in the prefix tree.

A checkpoint is the state at the end of a node: a prompt that begins alike goes on from there. What no
request holds stays as a checkpoint until slots are short; then the one goes that was used least
recently. It goes as well with the pages that it stands behind.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from inarch.cache.pages import PageAllocator
from inarch.hal.state import NULL_SLOT

if TYPE_CHECKING:
    from inarch.cache.radix import Node


class StateSlots:
    """Hands out slots 1 .. total - 1. A node's `state` is its checkpoint's slot, or the null slot."""

    def __init__(self, total: int) -> None:
        self._free = PageAllocator(total)
        self._checkpoints: dict[Node, None] = {}  # the one used least recently first
        self._read: list[Node] = []  # whose checkpoints the step reads that is being planned

    @property
    def total(self) -> int:
        return self._free.total

    @property
    def checkpoints(self) -> int:
        return len(self._checkpoints)

    @property
    def used(self) -> int:
        """Slots that requests hold."""
        return self.total - self.room

    @property
    def room(self) -> int:
        """Slots that are free or could be made so."""
        return self._free.free + len(self._checkpoints)

    def take(self) -> int:
        """A slot; the caller has checked `room`."""
        if not self._free.free:
            self.drop(next(iter(self._checkpoints)))
        return int(self._free.take(1)[0])

    def give(self, slot: int) -> None:
        self._free.give(np.array([slot], dtype=np.int32))

    def begin(self, node: Node) -> tuple[int, int] | None:
        """Where a request that goes on from a node reads its state, and where it writes it.

        It reads the node's checkpoint, which stays until `settle`, or the null slot. If there is no
        other slot to write to it takes the checkpoint's for itself. None: that is read by another
        request of the same step.
        """
        if node.state == NULL_SLOT:
            return (NULL_SLOT, self.take()) if self.room else None
        if self.room > (node in self._checkpoints):
            self._checkpoints.pop(node, None)
            self._read.append(node)
            return node.state, self.take()
        if node not in self._checkpoints:
            return None
        del self._checkpoints[node]
        slot, node.state = node.state, NULL_SLOT
        return slot, slot

    def settle(self) -> None:
        """The step was launched: later ones may write to what it reads."""
        for node in self._read:
            self._checkpoints.pop(node, None)
            self._checkpoints[node] = None
        self._read.clear()

    def keep(self, node: Node, slot: int) -> None:
        """Make a slot the checkpoint of a node; it is given back if the node has one already."""
        if node.state != NULL_SLOT:
            self.give(slot)
            return
        node.state = slot
        self._checkpoints[node] = None

    def drop(self, node: Node) -> None:
        """Give up a node's checkpoint."""
        del self._checkpoints[node]
        self.give(node.state)
        node.state = NULL_SLOT
