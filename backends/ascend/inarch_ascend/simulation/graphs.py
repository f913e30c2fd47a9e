"""Streams, events and graphs of the NPU: the C part of what torch-npu has of them.

Graphs keep their order: a task group waits for its event, and its tasks may only change when the
replay before is known to be done.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from inarch_ascend.simulation.memory import (
    NPUError,
    NPUTensor,
    machine,
    poison,
    run,
    tensors_and_devices,
)


class Stream:
    """Work runs when it is given; a stream only tells which is which."""

    current: Stream

    def __init__(self, device: object = None, priority: int = 0) -> None:
        pass

    def synchronize(self) -> None:
        machine.wait(machine.given)

    def wait_event(self, event: Event) -> None:
        machine.wait(event.number)

    def wait_stream(self, other: Stream) -> None:
        machine.wait(machine.given)


Stream.current = Stream()


@contextlib.contextmanager
def on_stream(stream: Stream) -> Iterator[None]:
    before, Stream.current = Stream.current, stream
    yield
    Stream.current = before


class Event:
    def __init__(self, enable_timing: bool = False) -> None:
        self.number, self._asked = 0, 0

    def record(self, stream: Stream | None = None) -> None:
        self.number = machine.given

    def wait(self, stream: Stream | None = None) -> None:
        (stream or Stream.current).wait_event(self)

    def query(self) -> bool:
        """Done, but not when it is first asked."""
        self._asked += 1
        if self._asked > 1:
            machine.wait(self.number)
        return machine.done >= self.number

    def synchronize(self) -> None:
        machine.wait(self.number)


class ExternalEvent:
    """What a captured task waits for, and an update sets."""

    def __init__(self) -> None:
        self.is_set = False

    def wait(self, stream: Stream) -> None:
        capturing().items.append(("wait", self))

    def reset(self, stream: Stream) -> None:
        capturing().items.append(("reset", self))

    def record(self, stream: Stream) -> None:
        self.is_set = True
        if isinstance(machine.waiting, CapturedGraph):
            machine.waiting.go_on()


@dataclass(eq=False)
class Call:
    """A captured call, and where its results lie."""

    op: Any
    args: Any
    kwargs: Any
    out: list[Tensor]
    graph: CapturedGraph

    def again(self) -> None:
        found = tensors_and_devices((run(self.op, self.args, self.kwargs),))
        for place, result in zip(self.out, found, strict=True):
            if place.data_ptr() != result.data_ptr():  # neither a view nor in place
                place.copy_(result)


_capturing: list[CapturedGraph] = []


def any_capture() -> bool:
    return bool(_capturing)


def capturing() -> CapturedGraph:
    if not _capturing:
        raise NPUError("no graph is captured now")
    return _capturing[0]


@dataclass(eq=False)
class CapturedGraph:
    """The C part of NPUGraph."""

    items: list[tuple[str, Any]] = field(default_factory=list)
    group: list[Call] | None = None
    number: int = 0  # of the last work of its last replay
    running: Iterator[None] | None = None

    def __new__(cls) -> CapturedGraph:
        return object.__new__(cls)

    def capture_begin(self, pool: object, capture_error_mode: str, report_shape: bool) -> None:
        if _capturing:
            raise NPUError("a graph is captured already")
        _capturing.append(self)
        machine.recording = self._record

    def capture_end(self) -> None:
        _capturing.remove(self)
        machine.recording = None
        poison_outputs(self.items)

    def _record(self, op: Any, args: Any, kwargs: Any, out: Any) -> None:
        call = Call(op, args, kwargs, list(tensors_and_devices((out,))), self)
        self.items.append(("call", call))
        if self.group is not None:
            self.group.append(call)

    def replay(self) -> None:
        if machine.waiting is not None:
            raise NPUError("a graph is replayed behind one that waits for an update")
        self.running = self._work()
        self.go_on()

    def go_on(self) -> None:
        """Run up to the next event that is not set."""
        assert self.running is not None
        machine.waiting = None
        with torch.inference_mode(False):
            for _ in self.running:
                machine.waiting = self
                return
        self.running = None

    def _work(self) -> Iterator[None]:
        for kind, what in self.items:
            while kind == "wait" and not what.is_set:
                yield
            if kind == "reset":
                what.is_set = False
            if kind == "call":
                machine.given += 1
                what.again()
        self.number = machine.given

    def reset(self) -> None:
        self.items.clear()

    def pool(self) -> object:
        return ()


def poison_outputs(items: list[tuple[str, Any]]) -> None:
    """Work that is captured is not done: nothing may be read of it before the first replay."""
    for kind, call in items:
        if kind == "call" and call.op.namespace == "npu":
            for place in call.out:
                if place.dtype.is_floating_point and not _is_argument(place, call):
                    poison(place)


def _is_argument(place: Tensor, call: Call) -> bool:
    given = tensors_and_devices((call.args, {k: v for k, v in call.kwargs.items() if k != "out"}))
    return any(
        isinstance(x, Tensor)
        and x.untyped_storage().data_ptr() == place.untyped_storage().data_ptr()
        for x in given
    )


# ---- task groups ----


def group_begin(stream: Stream) -> None:
    capturing().group = []


def group_end(stream: Stream) -> list[Call]:
    graph = capturing()
    handle, graph.group = graph.group, None
    assert handle is not None
    return handle


def update_begin(stream: Stream, handle: list[Call]) -> None:
    (call,) = handle
    if call.graph.number > machine.done:
        raise NPUError("a graph is updated while its last replay may still run")

    def replace(op: Any, args: Any, kwargs: Any) -> Any:
        if op is not call.op:
            raise NPUError(f"an update of {call.op} by {op}")
        call.args, call.kwargs = args, kwargs
        return tuple(NPUTensor(x) for x in kwargs["out"])

    machine.intercept = replace


def update_end(stream: Stream) -> None:
    machine.intercept = None
