"""Runs programs on an `inarch.Engine`, which computes in this process and knows no event loop.

It takes one caller at a time, so a thread of its own steps it while there is anything to do: requests
of all programs that run at once are streams of that thread, and so one batch.
"""

from __future__ import annotations

import asyncio
import queue
import threading
import weakref
from collections.abc import AsyncGenerator, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from inarch.engine.engine import Engine
from inarch.engine.outputs import RequestOutput
from inarch.engine.text.recognition import recognise_formats
from inarch.errors import EngineDeadError, InarchError
from inarch.lang.executors.engine import TokenExecutor
from inarch.sampling import SamplingParams


@dataclass
class _Request:
    """Told in the event loop of who asked: outputs, then None or what went wrong."""

    ids: Sequence[int]
    params: SamplingParams
    loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.get_running_loop)
    told: asyncio.Queue[RequestOutput | Exception | None] = field(default_factory=asyncio.Queue)
    left: bool = False  # nobody listens any more

    def tell(self, news: RequestOutput | Exception | None) -> None:
        self.loop.call_soon_threadsafe(self.told.put_nowait, news)


class _Stepped:
    """An Engine as a TokenEngine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = weakref.ref(engine)  # whoever closes and forgets it gets its memory back
        self.tokenizer, self.info = engine.tokenizer, engine.info
        self.formats = recognise_formats(engine.config, engine.tokenizer)
        self._requests: queue.SimpleQueue[_Request] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._steps = False  # a thread is there

    async def generate(
        self, prompt: Sequence[int], params: SamplingParams
    ) -> AsyncGenerator[RequestOutput, None]:
        request = _Request(prompt, params)
        engine = self._engine()
        if engine is None:
            raise EngineDeadError("the engine is gone: nothing holds it any more")
        with self._lock:
            self._requests.put(request)
            if not self._steps:
                self._steps = True
                threading.Thread(target=self._step, args=(engine,), daemon=True).start()
        try:
            while (news := await request.told.get()) is not None:
                if isinstance(news, Exception):
                    raise news
                yield news
        finally:
            request.left = True

    def _step(self, engine: Engine) -> None:
        """Until nothing is left to do."""
        streams: list[tuple[_Request, Iterator[RequestOutput]]] = []
        while self._goes_on(bool(streams)):
            while not self._requests.empty():
                request = self._requests.get()
                streams.append((request, engine.stream(request.ids, request.params)))
            streams = [stream for stream in streams if _advanced(*stream)]

    def _goes_on(self, busy: bool) -> bool:
        with self._lock:
            self._steps = busy or not self._requests.empty()
            return self._steps


def _advanced(request: _Request, stream: Any) -> bool:
    """Tell the next output; whether there may be more. Steps the engine for all streams."""
    if request.left:
        stream.close()
        return False
    try:
        request.tell(next(stream))
    except StopIteration:
        request.tell(None)
    except Exception as error:
        known = isinstance(error, InarchError)
        request.tell(error if known else EngineDeadError(f"{type(error).__name__}: {error}"))
    else:
        return True
    return False


class EngineExecutor(TokenExecutor):
    """While programs run on the engine, nothing else may use it."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(_Stepped(engine))

    def get_server_info(self) -> dict[str, Any]:
        """Of the model and what it runs on."""
        info: dict[str, Any] = msgspec.to_builtins(self._engine.info)
        return info


_made: weakref.WeakKeyDictionary[Engine, EngineExecutor] = weakref.WeakKeyDictionary()


def executor_of(engine: Engine) -> EngineExecutor:
    """The one executor that an engine has."""
    if engine not in _made:
        _made[engine] = EngineExecutor(engine)
    return _made[engine]
