"""The engine as an asyncio program sees it: requests in, outputs out; the core is another process.

That process may end at any time and another one take its place: what has not been answered is then
given to the new one together with the tokens so far, and goes on as if nothing had happened.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal

from inarch.config import EngineConfig
from inarch.engine.frontend import Frontend
from inarch.engine.journal import Incarnation, Journal
from inarch.engine.keeper import Keeper
from inarch.engine.link import Link
from inarch.engine.messages import (
    Abort,
    AbortByName,
    CacheTree,
    ClearCache,
    Cleared,
    Continue,
    Done,
    FromEngine,
    GetCacheTree,
    GetStats,
    Hello,
    ModelInfo,
    Order,
    Overloaded,
    Pause,
    Ready,
    Refused,
    StartProfile,
    Stats,
    StopProfile,
    ToEngine,
    TokenOutput,
)
from inarch.engine.outputs import RequestOutput
from inarch.engine.recognition import recognise_formats
from inarch.engine.resolve import resolve, set_environment
from inarch.engine.suspicion import Quarantine, convict
from inarch.engine.tokenizer import Tokenizer
from inarch.errors import EngineDeadError, InarchError, InvalidRequestError
from inarch.formats import Formats
from inarch.plugins import load_plugins
from inarch.sampling import DEFAULT_TERMS, SamplingParams, Terms

log = logging.getLogger("inarch.engine")

LONG_TEXT = 20_000  # characters, from which tokenizing moves to a thread
# Messages that may be handled before others in the event loop have a turn. What has piled up is
# taken in one go, so that each stream writes once for all of it: that is how a late one catches up.
MOST_AT_ONCE = 8

Listener = Callable[[RequestOutput | InarchError], None]
Reply = Stats | Cleared | CacheTree | Done


@dataclass(frozen=True)
class Ongoing:
    """A request that has begun: who hears of it, and its samples' handles."""

    listener: Listener
    handles: list[int]


class AsyncEngine:
    """Starts an engine process and talks to it: `async with AsyncEngine(config) as engine: ...`

    With `kept=True` somebody else starts the process and says so by `engine_begins`; the
    configuration is then a resolved one.
    """

    config: EngineConfig
    tokenizer: Tokenizer
    formats: Formats  # in which the model writes calls and reasoning
    info: ModelInfo
    _frontend: Frontend  # from when an engine was ready for the first time

    def __init__(self, config: EngineConfig | None = None, *, kept: bool = False) -> None:
        self.config = config or EngineConfig()
        self._kept = kept
        self._keeper: Keeper | None = None
        self._link: Link | None = None  # to the engine that is there, and may still be starting
        self._talk: asyncio.Task[None] | None = None
        self._tickets = itertools.count(1)
        self._requests: dict[str, Ongoing] = {}
        self._replies: dict[int, asyncio.Future[Reply]] = {}
        self._quarantine = Quarantine()
        self._loaded = asyncio.Event()  # the tokenizer
        self._begun = False
        self._ready = asyncio.Event()  # the engine that is there can answer
        self._over: str | None = "it was not started"  # why there will be no engine any more
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def alive(self) -> bool:
        return self._over is None and self._ready.is_set()

    async def __aenter__(self) -> AsyncEngine:
        """Wait until the engine can answer. Raises InarchError."""
        self._over = None
        try:
            if not self._kept:
                self.config, backend = resolve(self.config, load_plugins())
                set_environment(backend)
                self._keeper = Keeper(self.config, self)
            await asyncio.gather(self._load_tokenizer(), self._start())
        except BaseException:
            await self._close()
            raise
        return self

    async def _load_tokenizer(self) -> None:
        assert self.config.model is not None
        self.tokenizer = await asyncio.to_thread(
            Tokenizer.load, Path(self.config.model), chat_template=self.config.chat_template
        )
        self.formats = recognise_formats(self.config, self.tokenizer)
        self._loaded.set()

    async def _start(self) -> None:
        if self._keeper is not None:
            await self._keeper.start()
            self._tasks.append(asyncio.create_task(self._keep(self._keeper)))
        await self._ready.wait()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._close()

    async def _close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.give_up("it was closed")
        if self._keeper is not None:
            await self._keeper.stop()

    async def generate(
        self,
        prompt: str | Sequence[int],
        params: SamplingParams,
        *,
        request_id: str | None = None,
        terms: Terms = DEFAULT_TERMS,
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
        name = self.begin(ids, params, queue.put_nowait, request_id=request_id, terms=terms)
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
        terms: Terms = DEFAULT_TERMS,
    ) -> str:
        """Begin a request and return its id. What `generate` is made of, without a task of its own.

        `listener` is called in the event loop with each output, or with the error that ends the
        request; it must be quick. Whoever begins a request must `end` it. The ids are below the
        vocabulary's size. Raises InvalidRequestError and EngineDeadError.
        """
        self._check_alive()
        if request_id in self._requests:
            raise InvalidRequestError(f"request id {request_id!r} is in use", param="request_id")
        self._quarantine.check(ids, params)
        if not self.alive and len(self._frontend.samples) >= self.config.max_queued_requests:
            raise self._overloaded(len(self._frontend.samples))
        samples = self._frontend.open(ids, params, request_id=request_id, terms=terms)
        name = self._frontend.samples[samples[0].handle].request_id
        self._requests[name] = Ongoing(listener, [message.handle for message in samples])
        for message in samples:
            self._send(message)
        return name

    def end(self, request_id: str) -> None:
        """Forget a request and abort what is unfinished. Does not wait: a cancelled task may call."""
        for handle in self._requests.pop(request_id).handles:
            if handle in self._frontend.samples:
                self._frontend.close(handle)
                self._send(Abort(handle=handle))

    async def abort(self, request_id: str) -> None:
        """End a request; its listener hears one more output per sample, with reason "abort"."""
        ongoing = self._requests.get(request_id)
        for handle in ongoing.handles if ongoing else ():
            sample = self._frontend.samples.get(handle)
            if sample is not None:
                self._frontend.close(handle)
                self._send(Abort(handle=handle))
                self._deliver(request_id, self._frontend.aborted(sample))

    def abort_everywhere(self, request_id: str | None) -> None:
        """As `abort`, in whichever front end of the server the request is, of that name and of
        those of a batch of that name (NAME-0 ...); None: of all. Does not wait."""
        self._send(AbortByName(request_id=request_id))

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

    async def cache_tree(self, nodes: int) -> CacheTree:
        """The prefix tree in outline, at most so many nodes of it; costs a step about a millisecond."""
        ticket = next(self._tickets)
        reply = await self._ask(ticket, GetCacheTree(ticket=ticket, nodes=nodes))
        assert isinstance(reply, CacheTree)
        return reply

    async def pause(self, mode: Literal["abort", "retract", "in_place"]) -> None:
        """Compute nothing until `proceed`; requests wait meanwhile. See messages.Pause."""
        await self._order(Pause(ticket=next(self._tickets), mode=mode))

    async def proceed(self) -> None:
        await self._order(Continue(ticket=next(self._tickets)))

    async def start_profile(self, path: str, steps: int | None = None) -> None:
        """Record what the engine process does to a trace file, until stopped or for some steps."""
        await self._order(StartProfile(ticket=next(self._tickets), path=path, steps=steps))

    async def stop_profile(self) -> None:
        """Returns when the trace is written."""
        await self._order(StopProfile(ticket=next(self._tickets)))

    # ---- the engine comes and goes ----

    def engine_begins(self, engine: Incarnation) -> None:
        """An engine is there: say hello, and give it what is open as soon as it answers."""
        self._quarantine.learn(Path(engine.folder))
        self._link = Link(engine)
        self._talk = asyncio.create_task(self._converse(self._link))

    def engine_ended(self, why: str, *, blameless: bool) -> None:
        """The engine is gone; until the next one answers, requests wait."""
        link = self._hang_up(f"the engine is gone: {why}")
        if link is not None and not blameless:
            self._convict(link)

    def give_up(self, why: str) -> None:
        """There will be no engine any more: end all requests."""
        self._over = why
        error = EngineDeadError(f"the engine is gone: {why}")
        self._hang_up(str(error))
        for ongoing in list(self._requests.values()):
            ongoing.listener(error)

    def _hang_up(self, why: str) -> Link | None:
        self._ready.clear()
        link, self._link = self._link, None
        if self._talk is not None:
            self._talk.cancel()
        if link is not None:
            link.close()
        for reply in self._replies.values():
            if not reply.done():
                reply.set_exception(EngineDeadError(why))
        return link

    async def _keep(self, keeper: Keeper) -> None:
        try:
            await keeper.keep()
        except EngineDeadError as error:
            self.give_up(str(error))

    def _convict(self, link: Link) -> None:
        """End the samples of which the engine has died."""
        if not self._begun or not link.engine.journal.exists():  # it never got that far
            return
        journal, folder = Journal(link.engine.journal), Path(link.engine.folder)
        for sample in convict(list(self._frontend.samples.values()), link.name, journal):
            log.error("request %s is refused: the engine died of it", sample.request_id)
            self._frontend.close(sample.handle)
            self._deliver(sample.request_id, self._quarantine.take(sample.message, folder))

    def _resubmit(self) -> None:
        for sample in list(self._frontend.samples.values()):
            if sample.prompt_tokens + sample.message.max_tokens <= self.info.max_request_tokens:
                self._send(sample.again())
            else:
                why = "the engine was started again, and has less memory for KV than before"
                self._deliver(sample.request_id, EngineDeadError(why))

    # ---- the wire ----

    def _send(self, message: ToEngine) -> None:
        """To the engine, if one is ready: another one will be told all that is open then."""
        if self._link is not None and self.alive:
            self._link.send(message)

    async def _order(self, message: Order) -> None:
        """Have an order carried out. Raises InvalidRequestError: why it could not be."""
        reply = await self._ask(message.ticket, message)
        assert isinstance(reply, Done)
        if reply.error:
            raise InvalidRequestError(reply.error)

    async def _ask(self, ticket: int, message: GetStats | GetCacheTree | Order) -> Reply:
        self._check_alive()
        if not self.alive:
            raise EngineDeadError("the engine is being started again")
        reply: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._replies[ticket] = reply
        try:
            self._send(message)
            return await reply
        finally:
            del self._replies[ticket]

    async def _converse(self, link: Link) -> None:
        try:
            link.send(Hello())
            ready = await link.receive()
            assert isinstance(ready, Ready)
            await self._loaded.wait()
            self._begin_with(ready.info)
            await self._receive(link)
        except Exception as error:  # a bug: requests must end with an error, not hang
            log.exception("messages of the engine cannot be handled any more")
            self.give_up(f"a message could not be handled: {error}")

    def _begin_with(self, info: ModelInfo) -> None:
        if not self._begun:
            self._begun = True
            seed = self.config.random_seed
            self._frontend = Frontend(self.tokenizer, info, seed, self._deliver)
        self.info = self._frontend.info = info
        self._ready.set()
        self._resubmit()

    async def _receive(self, link: Link) -> None:
        for count in itertools.count(1):
            if count % MOST_AT_ONCE == 0:
                await asyncio.sleep(0)
            await self._hear(await link.receive())

    async def _hear(self, message: FromEngine) -> None:
        match message:
            case TokenOutput():
                outputs, cut = self._frontend.receive(message)
                for handle in cut:
                    self._send(Abort(handle=handle))
                for output in outputs:
                    self._deliver(output.request_id, output)
            case Stats() | Cleared() | CacheTree() | Done():
                reply = self._replies.get(message.ticket)
                if reply is not None and not reply.done():  # who asked may have been cancelled
                    reply.set_result(message)
            case Overloaded():
                self._refuse(message.handle, self._overloaded(message.waiting))
            case Refused():
                error = InvalidRequestError(message.message, status=message.status)
                self._refuse(message.handle, error)
            case AbortByName():
                for name in self._named(message.request_id):
                    await self.abort(name)

    def _named(self, request_id: str | None) -> list[str]:
        """Open requests that are meant by a name; None: all."""
        if request_id is None:
            return list(self._requests)
        batch = f"{request_id}-"
        return [name for name in self._requests if name == request_id or name.startswith(batch)]

    def _deliver(self, request_id: str, output: RequestOutput | InarchError) -> None:
        ongoing = self._requests.get(request_id)
        if ongoing is not None:
            ongoing.listener(output)

    def _refuse(self, handle: int, error: InvalidRequestError) -> None:
        sample = self._frontend.samples.get(handle)
        if sample is not None:
            self._deliver(sample.request_id, error)

    def _overloaded(self, waiting: int) -> InvalidRequestError:
        return InvalidRequestError(
            f"the server is overloaded: {waiting} requests are waiting, the limit is "
            f"{self.config.max_queued_requests}; try again later",
            status=503,
            code="overloaded",
        )

    def _check_alive(self) -> None:
        if self._over is not None:
            raise EngineDeadError(f"the engine is gone: {self._over}")
