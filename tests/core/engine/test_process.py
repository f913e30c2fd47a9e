"""The loop of the engine process: what it does with a moment in which there is no request."""

from __future__ import annotations

import gc
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import zmq

from inarch.config import EngineConfig
from inarch.engine import process
from inarch.engine.messages import NewRequest, TokenOutput, decode_from_engine, encode
from inarch.engine.resolve import resolve
from inarch.hal.device import Transfer
from inarch.plugins import load_plugins
from inarch.sampling import SamplingParams

from ..models.oracle import Saved

STEP_S = 0.2
FAKE = Path(__file__).parents[2] / "fake_accelerator"
REQUEST = NewRequest(
    handle=1, prompt=np.arange(1, 30, dtype=np.int32).tobytes(), max_tokens=6, stop_ids=[], seed=0,
    params=SamplingParams(temperature=0, ignore_eos=True),
)  # fmt: skip


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The shapes that the fake accelerator ran, and "asked" where it was asked for one to prepare."""
    monkeypatch.syspath_prepend(FAKE)
    monkeypatch.syspath_prepend(FAKE / "installed")
    from inarch_fake.device import FakeDevice
    from inarch_fake.executor import FakeExecutor

    events: list[Any] = []

    class Logged(FakeExecutor):
        def unprepared(self, most: Any) -> Any:
            shape = super().unprepared(most)
            events.append("asked" if shape else "done")
            return shape

        def run(self, step: Any, shape: Any, inputs: Any, kv: Any) -> Any:
            events.append((shape, shape in self.captured))
            return super().run(step, shape, inputs, kv)

    monkeypatch.setattr(FakeDevice, "executor", lambda self: Logged())
    return events


@pytest.fixture
def serve(
    served: Callable[[str], Saved],
    log: list[Any],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> Iterator[Callable[[bool], zmq.Socket[bytes]]]:
    """Builds an engine, and runs its loop when asked: with a request that is there already, or none.

    No more is prepared before than must be.
    """
    monkeypatch.setattr(process, "PREPARE_S", 0.0)
    plugins = load_plugins()
    config = EngineConfig(
        model=str(served("llama").folder), backend="fake", kv_tokens=4096, max_running_requests=8
    )
    context = zmq.Context.instance()
    router, dealer = context.socket(zmq.ROUTER), context.socket(zmq.DEALER)
    address = f"inproc://{tmp_path}"  # that of the last test may not be free yet
    router.bind(address)
    dealer.connect(address)
    journal = tmp_path / "journal"
    service = process.Service(resolve(config, plugins)[0], router, os.getppid(), journal)
    loop = threading.Thread(target=service.run)

    def start(with_request: bool) -> zmq.Socket[bytes]:
        if with_request:
            dealer.send(encode(REQUEST))
            assert router.poll(5000)
        loop.start()
        return dealer

    yield start
    monkeypatch.setattr(os, "getppid", lambda: -1)  # the loop ends when its parent has gone
    loop.join()
    router.close()
    dealer.close()
    del service
    gc.collect()  # it holds two gigabytes, in a cycle


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def answer(dealer: zmq.Socket[bytes]) -> list[int]:
    tokens: list[int] = []
    while len(tokens) < REQUEST.max_tokens:
        assert dealer.poll(30_000)
        output = decode_from_engine(dealer.recv())
        assert isinstance(output, TokenOutput)
        tokens += output.tokens
    return tokens


class Late:
    """A transfer that takes STEP_S longer than the one before it: of a device that is slow."""

    free_at = 0.0

    def __init__(self, transfer: Transfer) -> None:
        self._transfer = transfer
        self._done_at = Late.free_at = max(Late.free_at, time.monotonic()) + STEP_S

    def ready(self) -> bool:
        return time.monotonic() >= self._done_at

    def wait(self) -> np.ndarray:
        time.sleep(max(self._done_at - time.monotonic(), 0))
        return self._transfer.wait()


def test_a_request_that_comes_while_a_step_runs_is_in_the_next_one(
    serve: Callable[[bool], Any], log: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from inarch_fake.device import FakeDevice

    dealer = serve(False)
    until(lambda: log[-1] == "done")
    download = FakeDevice.download
    monkeypatch.setattr(FakeDevice, "download", lambda self, tensor: Late(download(self, tensor)))
    dealer.send(encode(REQUEST))
    for _ in range(4):  # from the second decode on it is known how long a step takes
        assert dealer.poll(30_000)
        dealer.recv()
    launched = len(log)
    time.sleep(STEP_S / 4)
    dealer.send(encode(msgspec.structs.replace(REQUEST, handle=2)))
    until(lambda: len(log) > launched)
    (shape, _), *_ = log[launched:]
    assert shape.max_query > 1, "the next step has the new prompt in it"


def test_before_anyone_is_answered_a_decode_and_a_prompt_are_prepared(
    serve: Callable[[bool], Any], log: list[Any]
) -> None:
    (_, (decode, _), _, (prompt, _)) = log
    assert (decode.tokens, decode.max_query) == (1, 1)
    assert prompt.max_query > 1
    serve(False)


def test_an_idle_engine_prepares_every_shape_once_and_then_sleeps(
    serve: Callable[[bool], Any], log: list[Any]
) -> None:
    dealer = serve(False)
    until(lambda: log[-1] == "done")
    prepared = log[1:-1:2]
    assert len(prepared) == 8
    assert not any(replayed for _, replayed in prepared)
    del log[:]
    dealer.send(encode(REQUEST))
    answer(dealer)
    assert log, "the request ran"
    assert all(replayed for _, replayed in log), "and met nothing that was not prepared"


def test_a_request_that_has_come_is_served_before_anything_is_prepared(
    serve: Callable[[bool], Any], log: list[Any]
) -> None:
    before = len(log)
    answer(serve(True))
    until(lambda: log[-1] == "done")
    steps = log[before : log.index("asked", before)]
    assert len(steps) >= REQUEST.max_tokens
    assert "asked" in log[before + len(steps) :]


def test_preparing_changes_no_answer_and_no_figure(
    serve: Callable[[bool], Any], log: list[Any]
) -> None:
    """Neither the pages and the page table of requests nor what was sampled last."""
    dealer = serve(True)
    first = answer(dealer)
    until(lambda: log[-1] == "done")
    dealer.send(encode(REQUEST))
    assert answer(dealer) == first
    dealer.send(encode(process.GetStats(ticket=1)))
    assert dealer.poll(30_000)
    stats = decode_from_engine(dealer.recv())
    assert (stats.prompt_tokens, stats.generated_tokens) == (58, 12)
    assert stats.steps <= 14
