"""The engine as an asyncio program sees it: requests in, outputs out; the core is another process."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from inarch.config import EngineConfig
from inarch.engine.child import EngineChild
from inarch.engine.frontend import Frontend
from inarch.engine.messages import (
    Abort,
    ClearCache,
    Cleared,
    GetStats,
    ModelInfo,
    Overloaded,
    Refused,
    Stats,
    ToEngine,
    TokenOutput,
)
from inarch.engine.outputs import RequestOutput
from inarch.engine.resolve import resolve, set_environment
from inarch.engine.tokenizer import Tokenizer
from inarch.errors import EngineDeadError, InarchError, InvalidRequestError
from inarch.plugins import load_plugins
from inarch.sampling import SamplingParams

log = logging.getLogger("inarch.engine")

LONG_TEXT = 20_000  # characters, from which tokenizing moves to a thread
# Messages that may be handled before others in the event loop have a turn. What has piled up is
# taken in one go, so that each stream writes once for all of it: that is how a late one catches up.
MOST_AT_ONCE = 8

Listener = Callable[[RequestOutput | InarchError], None]


@dataclass(frozen=True)
class Ongoing:
    """A request that has begun: who hears of it, and its samples' handles."""

    listener: Listener
    handles: list[int]


class AsyncEngine:
    """Starts an engine process and talks to it: `async with AsyncEngine(config) as engine: ...`"""

    config: EngineConfig
    tokenizer: Tokenizer
    info: ModelInfo

    def __init__(self, config: EngineConfig | None = None) -> None:
        self._given = config or EngineConfig()
        self._tickets = itertools.count(1)
        self._requests: dict[str, Ongoing] = {}
        self._replies: dict[int, asyncio.Future[Stats | Cleared]] = {}
        self._dead: str | None = "it was not started"

    @property
    def alive(self) -> bool:
        return self._dead is None

    async def __aenter__(self) -> AsyncEngine:
        """Start the process and wait until it can answer. Raises InarchError."""
        self.config, backend = resolve(self._given, load_plugins())
        set_environment(backend)
        assert self.config.model is not None
        self._child = await EngineChild.start(self.config)
        try:
            self.tokenizer = await asyncio.to_thread(
                Tokenizer.load, Path(self.config.model), chat_template=self.config.chat_template
            )
            self.info = await self._child.handshake()
        except BaseException:
            await self._child.stop()
            raise
        self._dead = None
        self._frontend = Frontend(self.tokenizer, self.info, self.config.random_seed)
        self._tasks = [asyncio.create_task(self._listen()), asyncio.create_task(self._watch())]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._die("it was closed")
        await self._child.stop()

    async def generate(
        self,
        prompt: str | Sequence[int],
        params: SamplingParams,
        *,
        request_id: str | None = None,
        namespace: str = "",
    ) -> AsyncGenerator[RequestOutput, None]:
        """Outputs of a request as they come; samples of n > 1 are interleaved.

        Closing the iterator, or cancelling the task that runs it, ends the request at once. Raises
        InvalidRequestError before the first output, EngineDeadError at any time.
        """
        self._check_alive()
        if isinstance(prompt, str) and len(prompt) > LONG_TEXT:
            ids = await asyncio.to_thread(self._frontend.encode, prompt)
        else:
            ids = self._frontend.encode(prompt)
        queue: asyncio.Queue[RequestOutput | InarchError] = asyncio.Queue()
        name = self.begin(ids, params, queue.put_nowait, request_id=request_id, namespace=namespace)
        try:
            unfinished = params.n
            while unfinished:
                output = await queue.get()
                if isinstance(output, InarchError):
                    raise output
                yield output
                unfinished -= output.finish_reason is not None
        finally:
            self.end(name)

    def begin(
        self,
        ids: Sequence[int],
        params: SamplingParams,
        listener: Listener,
        *,
        request_id: str | None = None,
        namespace: str = "",
    ) -> str:
        """Begin a request and return its id. What `generate` is made of, without a task of its own.

        `listener` is called in the event loop with each output, or with the error that ends the
        request; it must be quick. Whoever begins a request must `end` it. The ids are below the
        vocabulary's size. Raises InvalidRequestError and EngineDeadError.
        """
        self._check_alive()
        if request_id in self._requests:
            raise InvalidRequestError(f"request id {request_id!r} is in use", param="request_id")
        samples = self._frontend.open(ids, params, request_id=request_id, namespace=namespace)
        name = self._frontend.samples[samples[0].handle].request_id
        self._requests[name] = Ongoing(listener, [message.handle for message in samples])
        for message in samples:
            self._child.send(message)
        return name

    def end(self, request_id: str) -> None:
        """Forget a request and abort what is unfinished. Does not wait: a cancelled task may call."""
        for handle in self._requests.pop(request_id).handles:
            if handle in self._frontend.samples:
                self._frontend.close(handle)
                if self.alive:
                    self._child.send(Abort(handle=handle))

    async def abort(self, request_id: str) -> None:
        """End a request; its listener hears one more output per sample, with reason "abort"."""
        ongoing = self._requests.get(request_id)
        for handle in ongoing.handles if ongoing else ():
            sample = self._frontend.samples.get(handle)
            if sample is not None:
                self._frontend.close(handle)
                await self._send(Abort(handle=handle))
                self._deliver(request_id, self._frontend.aborted(sample))

    async def stats(self) -> Stats:
        ticket = next(self._tickets)
        reply = await self._ask(ticket, GetStats(ticket=ticket))
        assert isinstance(reply, Stats)
        return reply

    async def clear_cache(self) -> int:
        """Forget cached prefixes; returns how many pages that freed."""
        ticket = next(self._tickets)
        reply = await self._ask(ticket, ClearCache(ticket=ticket))
        assert isinstance(reply, Cleared)
        return reply.pages

    # ---- the wire ----

    async def _send(self, message: ToEngine) -> None:
        self._check_alive()
        await self._child.send(message)

    async def _ask(self, ticket: int, message: GetStats | ClearCache) -> Stats | Cleared:
        reply: asyncio.Future[Stats | Cleared] = asyncio.get_running_loop().create_future()
        self._replies[ticket] = reply
        try:
            await self._send(message)
            return await reply
        finally:
            del self._replies[ticket]

    async def _listen(self) -> None:
        try:
            await self._receive()
        except Exception as error:  # a bug: requests must end with an error, not hang
            log.exception("messages of the engine cannot be handled any more")
            self._die(f"a message could not be handled: {error}")

    async def _receive(self) -> None:
        for count in itertools.count(1):
            if count % MOST_AT_ONCE == 0:
                await asyncio.sleep(0)
            match message := await self._child.receive():
                case TokenOutput():
                    outputs, cut = self._frontend.receive(message)
                    for handle in cut:
                        await self._send(Abort(handle=handle))
                    for output in outputs:
                        self._deliver(output.request_id, output)
                case Stats() | Cleared():
                    reply = self._replies.get(message.ticket)
                    if reply is not None and not reply.done():  # who asked may have been cancelled
                        reply.set_result(message)
                case Overloaded():
                    waiting, limit = message.waiting, self.config.max_waiting_requests
                    self._refuse(
                        message.handle,
                        f"the server is overloaded: {waiting} requests are waiting, the limit is "
                        f"{limit}; try again later",
                        status=503,
                        code="overloaded",
                    )
                case Refused():
                    self._refuse(message.handle, message.message, status=message.status)

    def _deliver(self, request_id: str, output: RequestOutput | InarchError) -> None:
        ongoing = self._requests.get(request_id)
        if ongoing is not None:
            ongoing.listener(output)

    def _refuse(self, handle: int, why: str, *, status: int, code: str | None = None) -> None:
        sample = self._frontend.samples.get(handle)
        if sample is not None:
            error = InvalidRequestError(why, status=status, code=code)
            self._deliver(sample.request_id, error)

    # ---- the end ----

    async def _watch(self) -> None:
        code = await self._child.wait()
        log.error("the engine process ended with code %s; its messages are above", code)
        self._die(f"its process ended with code {code}")

    def _die(self, why: str) -> None:
        self._dead = why
        error = EngineDeadError(f"the engine is gone: {why}")
        for ongoing in list(self._requests.values()):
            ongoing.listener(error)
        for reply in self._replies.values():
            if not reply.done():
                reply.set_exception(error)

    def _check_alive(self) -> None:
        if self._dead is not None:
            raise EngineDeadError(f"the engine is gone: {self._dead}")
