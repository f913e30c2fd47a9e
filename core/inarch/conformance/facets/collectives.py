"""Collectives between ranks in processes of their own, in every size of world up to four.

Two ranks or more may share a device where the backend lets them. Token ids travel too, as int64.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from inarch.conformance.calls import normal
from inarch.conformance.case import Case, Refused, generator, require
from inarch.conformance.compare import check_close, check_dtype, check_equal, worst
from inarch.conformance.memory import Arguments, poisoned
from inarch.conformance.ranks import Place, Rank, World, numbers
from inarch.conformance.subject import Subject, dtype_name
from inarch.hal.collectives import Communicator
from inarch.hal.device import Device
from inarch.hal.op import DEFAULT_TOLERANCE

SIZES = (1, 2, 3, 4)  # of worlds; and as many as there are devices
LARGE = (1 << 20) + 77  # elements: more than a buffer of a few MiB holds
Given = Sequence[Tensor]  # by each rank


@dataclass(frozen=True)
class Operation:
    """What ranks do together.

    shape: of what each of so many ranks gives. call: one result for each call that it makes.
    expected: those of a rank. sums: whether they add, which rounds. ids: whether it is for ids too.
    """

    shape: Callable[[int], tuple[int, ...]]
    call: Callable[[Communicator, Tensor], Sequence[Tensor]]
    expected: Callable[[Given, int], Sequence[Tensor]]
    sums: bool = False
    ids: bool = False


def _reduced(*shape: int) -> Operation:
    return Operation(
        lambda size: shape,
        lambda comm, x: [comm.all_reduce(x)],
        lambda given, rank: [_total(given)],
        sums=True,
    )


def counts(rank: int, size: int) -> list[int]:
    """Rows that a rank sends to each: none to some."""
    return [(rank + 2 * to) % 3 for to in range(size)]


def _all_to_all(comm: Communicator, x: Tensor) -> Sequence[Tensor]:
    send, receive = counts(comm.rank, comm.size), received(comm.rank, comm.size)
    return [comm.all_to_all(x[: sum(send)], send, receive)]


def received(rank: int, size: int) -> list[int]:
    return [counts(source, size)[rank] for source in range(size)]


def _arrived(given: Given, rank: int) -> Sequence[Tensor]:
    parts = [x[: sum(counts(r, len(given)))] for r, x in enumerate(given)]
    sent = [torch.split(x, counts(r, len(given))) for r, x in enumerate(parts)]
    return [torch.cat([pieces[rank] for pieces in sent])]


def _total(given: Given) -> Tensor:
    return torch.stack(tuple(given)).sum(0)


def _shares(dim: int) -> Callable[[Given, int], Sequence[Tensor]]:
    return lambda given, rank: [_total(given).chunk(len(given), dim)[rank]]


def _three_sums(comm: Communicator, x: Tensor) -> Sequence[Tensor]:
    """What came of the first is still there after the last."""
    return [comm.all_reduce(x * factor) for factor in (1, 2, 3)]


OPERATIONS: dict[str, Operation] = {
    "all_reduce": _reduced(5, 7),
    "all_reduce-large": _reduced(LARGE),
    "all_reduce-thrice": Operation(
        lambda size: (64,),
        _three_sums,
        lambda given, rank: [_total(given) * factor for factor in (1, 2, 3)],
        sums=True,
    ),
    "all_gather": Operation(
        lambda size: (4, 3),
        lambda comm, x: [comm.all_gather(x)],
        lambda given, rank: [torch.cat(tuple(given), -1)],
        ids=True,
    ),
    "all_gather-rows": Operation(
        lambda size: (4, 3),
        lambda comm, x: [comm.all_gather(x, 0)],
        lambda given, rank: [torch.cat(tuple(given), 0)],
    ),
    "all_gather-turned": Operation(
        lambda size: (4, 3),
        lambda comm, x: [comm.all_gather(x.t(), 1)],
        lambda given, rank: [torch.cat([x.t() for x in given], 1)],
    ),
    "reduce_scatter": Operation(
        lambda size: (2 * size, 3),
        lambda comm, x: [comm.reduce_scatter(x)],
        _shares(0),
        sums=True,
    ),
    "reduce_scatter-columns": Operation(
        lambda size: (3, 2 * size),
        lambda comm, x: [comm.reduce_scatter(x, 1)],
        _shares(1),
        sums=True,
    ),
    "all_to_all": Operation(lambda size: (3 * size, 5), _all_to_all, _arrived),
    "broadcast": Operation(
        lambda size: (4, 3),
        lambda comm, x: [comm.broadcast(x.clone(), source) for source in range(comm.size)],
        lambda given, rank: given,
        ids=True,
    ),
}


def cases(subject: Subject) -> Iterator[Case]:
    place = Place.of(subject)
    for size in sorted({*SIZES, place.devices}):
        world = functools.partial(_world, subject, place, size)
        yield _case(subject, f"meet-{size}", functools.partial(_meet, world, size))
        yield _case(subject, f"barrier-{size}", functools.partial(_barrier, world, size))
        for name, operation in OPERATIONS.items():
            for dtype in (*subject.dtypes(), *((torch.int64,) if operation.ids else ())):
                full = f"{name}-{size}-{dtype_name(dtype)}"
                run = functools.partial(_check, world, size, name, dtype)
                yield _case(subject, full, run, dtype_name(dtype))


def _case(subject: Subject, name: str, check: Callable[[], str], column: str = "") -> Case:
    counted = column if column in DEFAULT_TOLERANCE else ""
    return Case(subject.level, "collectives", name, check, dtype=counted)


def facts(subject: Subject) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """A communicator is asked for, not chosen among kernels."""
    return iter(())


_worlds: dict[tuple[Place, int], World | Refused] = {}


def _world(subject: Subject, place: Place, size: int) -> World:
    """One for all cases, until a rank fails. Raises Refused."""
    if type(subject.device).communicator is Device.communicator:
        raise Refused("it brings no communicator: sockets serve")
    found = _worlds.get((place, size))
    if found is None or (isinstance(found, World) and found.ended):
        try:
            found = World(place, size)
        except Refused as refusal:
            found = refusal
        _worlds[place, size] = found
    if isinstance(found, Refused):
        raise found
    return found


# ---- what must hold ----


def _meet(world: Callable[[], World], size: int) -> str:
    """Ranks are told who they are, and can part and meet again."""
    met = world()
    for _ in range(2):
        said = met.run(numbers)
        right = [(rank, size) for rank in range(size)]
        require(said == right, f"ranks and sizes are said to be {said}, not {right}")
        met.meet()
    return ""


def _barrier(world: Callable[[], World], size: int) -> str:
    """Nobody goes on before everybody has come."""
    for seen in world().barrier():
        require(seen == size, f"a rank went on when {seen} of {size} had come")
    return ""


def _check(world: Callable[[], World], size: int, name: str, dtype: torch.dtype) -> str:
    operation, errors = OPERATIONS[name], []
    given = [_given(name, size, rank, dtype) for rank in range(size)]
    wide = [x.double() if dtype.is_floating_point else x for x in given]
    tolerance = DEFAULT_TOLERANCE[dtype_name(dtype)] if operation.sums else 0.0
    for rank, arrays in enumerate(world().run(perform, name, dtype)):
        found, expected = map(torch.from_numpy, arrays), operation.expected(wide, rank)
        for number, (got, right) in enumerate(zip(found, expected, strict=True)):
            what = f"what rank {rank} of {size} has of call {number}"
            if dtype.is_floating_point:
                errors.append(check_close(what, got, right, tolerance))
            else:
                check_equal(what, got, right)
    return worst(errors)


def _given(name: str, size: int, rank: int, dtype: torch.dtype) -> Tensor:
    rng, shape = generator("collectives", name, size, rank), OPERATIONS[name].shape(size)
    if dtype.is_floating_point:
        return normal(rng, shape, dtype)
    return torch.from_numpy(rng.integers(0, 1 << 40, shape))


@torch.inference_mode()
def perform(own: Rank, name: str, dtype: torch.dtype) -> list[np.ndarray]:
    """In the process of a rank: its results. Its own tensor may be spoiled, nothing else."""
    assert own.communicator is not None
    arguments = Arguments(own.subject, {"x": _given(name, own.size, own.rank, dtype)})
    with poisoned(own.subject):
        found = OPERATIONS[name].call(own.communicator, arguments.values["x"])
    for result in found:
        check_dtype("a result", result, dtype)
    arrays = [own.subject.download(result).numpy() for result in found]
    arguments.check(("x",))
    return arrays
