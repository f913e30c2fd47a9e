"""Slots of recurrent states and the checkpoints among them."""

from __future__ import annotations

import numpy as np

from inarch.cache.radix import Node, RadixCache
from inarch.cache.states import StateSlots


def tree(slots: StateSlots, *lengths: int) -> tuple[RadixCache, list[Node]]:
    """A chain of nodes of so many pages of one token; the last one is locked."""
    cache = RadixCache(1, slots)
    node, nodes, at = cache.root, [], 0
    for length in lengths:
        tokens = np.arange(at, at + length, dtype=np.int32)
        node, _ = cache.extend(node, tokens, tokens + 1)
        nodes.append(node)
        at += length
    return cache, nodes


def test_a_match_ends_at_the_deepest_checkpoint_on_its_path() -> None:
    slots = StateSlots(5)
    cache, (upper, middle, lower) = tree(slots, 3, 2, 4)
    tokens = np.arange(9, dtype=np.int32)
    assert len(cache.resumable(cache.match(tokens)).pages) == 0
    slots.keep(upper, slots.take())
    assert cache.resumable(cache.match(tokens)).pages.tolist() == [1, 2, 3]
    slots.keep(lower, slots.take())
    assert len(cache.resumable(cache.match(tokens)).pages) == 9
    assert len(cache.resumable(cache.match(tokens[:8])).pages) == 3, "it is of the node's end"
    assert middle.state == 0


def test_a_split_keeps_the_checkpoint_at_the_end_and_an_eviction_gives_it_back() -> None:
    slots = StateSlots(4)
    cache, (node,) = tree(slots, 6)
    slots.keep(node, slots.take())
    half = np.array([0, 1, 2, 9], dtype=np.int32)
    upper = cache.lock(cache.match(half))
    assert upper.state == 0
    assert len(cache.resumable(cache.match(np.arange(6, dtype=np.int32))).pages) == 6
    cache.unlock(node)
    assert slots.checkpoints == 1
    cache.evict(1)
    assert (slots.checkpoints, slots.room) == (0, 3)


def test_the_checkpoint_used_least_recently_goes_first() -> None:
    slots = StateSlots(4)
    _, nodes = tree(slots, 1, 1, 1)
    for node in nodes:
        slots.keep(node, slots.take())
    assert slots.begin(nodes[0]) is not None  # takes the second one's for what it will write
    slots.settle()
    assert [node.state != 0 for node in nodes] == [True, False, True]
    slots.take()
    assert [node.state != 0 for node in nodes] == [True, False, False]


def test_a_second_checkpoint_of_a_node_is_given_back() -> None:
    slots = StateSlots(4)
    _, (node,) = tree(slots, 1)
    slots.keep(node, slots.take())
    first = node.state
    slots.keep(node, slots.take())
    assert (node.state, slots.room) == (first, 3)


def test_what_a_step_reads_is_not_given_away_until_it_is_launched() -> None:
    slots = StateSlots(4)
    _, (node,) = tree(slots, 1)
    slots.keep(node, slots.take())
    begun = [slots.begin(node), slots.begin(node)]
    assert [places[0] for places in begun if places] == [node.state] * 2
    assert len({node.state, *(places[1] for places in begun if places)}) == 3
    assert slots.room == 0
    slots.settle()
    assert (slots.room, slots.checkpoints) == (1, 1)


def test_the_last_slot_is_the_checkpoint_itself_and_is_given_to_one_request_alone() -> None:
    slots = StateSlots(3)
    _, (node,) = tree(slots, 1)
    slots.keep(node, slots.take())
    slot = node.state
    other = slots.take()
    assert slots.begin(node) == (slot, slot)
    assert node.state == 0
    assert slots.begin(node) is None, "there is no slot to write to"
    slots.give(other)
    assert slots.begin(node) == (0, other)


def test_a_checkpoint_that_is_read_in_this_step_is_not_taken_by_another_request() -> None:
    slots = StateSlots(3)
    _, (node,) = tree(slots, 1)
    slots.keep(node, slots.take())
    assert slots.begin(node) is not None
    assert slots.begin(node) is None
    slots.settle()
    slot = node.state
    assert slots.begin(node) == (slot, slot)
