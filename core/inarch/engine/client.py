"""A process's end of the wire to the engine: requests begin and end, tokens come; the core is elsewhere.

The engine process may end at any time and another one take its place: what has not been answered is
then given to the new one together with the tokens so far, and goes on as if nothing had happened.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from inarch.config import EngineConfig
from inarch.engine.answers import Prompt
from inarch.engine.frontend import as_bytes
from inarch.engine.journal import Incarnation
from inarch.engine.keeper import Keeper
from inarch.engine.link import Link
from inarch.engine.messages import (
    AbortByName,
    CacheTree,
    ClearCache,
    Cleared,
    Continue,
    Done,
    ExportPrefix,
    FromEngine,
    GetCacheTree,
    GetStats,
    Hello,
    ImportPrefix,
    ModelInfo,
    Order,
    Overloaded,
    Pause,
    Prefixed,
    Ready,
    Refused,
    StartProfile,
    Stats,
    StopProfile,
    ToEngine,
    TokenOutput,
)
from inarch.engine.open_requests import Listener, OpenRequests
from inarch.engine.replies import Replies
from inarch.engine.resolve import resolve, set_environment
from inarch.engine.text.recognition import recognise_formats
from inarch.engine.text.tokenizer import Tokenizer
from inarch.errors import EngineDeadError, InvalidRequestError
from inarch.formats import Formats
from inarch.plugins import load_plugins
from inarch.sampling import DEFAULT_TERMS, SamplingParams, Terms

log = logging.getLogger("inarch.engine")

LONG_TEXT = 20_000  # characters, from which tokenizing moves to a thread
# Messages that may be handled before others in the event loop have a turn. What has piled up is
# taken in one go, so that each stream writes once for all of it: that is how a late one catches up.
MOST_AT_ONCE = 8


class EngineClient:
    """Starts an engine process and talks to it: `async with EngineClient(config) as engine: ...`

    With `kept=True` somebody else starts the process and says so by `engine_begins`; the
    configuration is then a resolved one.
    """

    config: EngineConfig
    tokenizer: Tokenizer
    formats: Formats  # in which the model writes calls and reasoning
    info: ModelInfo

    def __init__(self, config: EngineConfig | None = None, *, kept: bool = False) -> None:
        self.config = config or EngineConfig()
        self._kept = kept
        self._keeper: Keeper | None = None
        self._link: Link | None = None  # to the engine that is there, and may still be starting
        self._talk: asyncio.Task[None] | None = None
        self._replies = Replies(self._send)
        self._open: OpenRequests | None = None  # from when an engine was ready for the first time
        self._loaded = asyncio.Event()  # the tokenizer
        self._ready = asyncio.Event()  # the engine that is there can answer
        self._over: str | None = "it was not started"  # why there will be no engine any more
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def alive(self) -> bool:
        return self._over is None and self._ready.is_set()

    async def __aenter__(self) -> Self:
        """Wait until the engine can answer. Raises InarchError."""
        self._over = None
        try:
            if not self._kept:
                self.config, backend = resolve(self.config, load_plugins())
                set_environment(backend)
                self._keeper = Keeper(self.config, self)
            await asyncio.gather(self._load_tokenizer(), self._start())
        except BaseException:
            await self.shutdown()
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
        await self.shutdown()

    async def shutdown(self) -> None:
        """Stop the engine process; what is open ends with an EngineDeadError."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.give_up("it was closed")
        if self._keeper is not None:
            await self._keeper.stop()

    async def token_ids(self, prompt: Prompt) -> Sequence[int]:
        """Of a prompt; ids are checked, text is tokenized. Raises InvalidRequestError."""
        requests = self._requests()
        if isinstance(prompt, str) and len(prompt) > LONG_TEXT:
            return await asyncio.to_thread(requests.encode, prompt)
        return requests.encode(prompt)

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
        requests = self._requests()
        if not self.alive:
            requests.check_room()
        return requests.begin(ids, params, listener, request_id=request_id, terms=terms)

    def end(self, request_id: str) -> None:
        """Forget a request and abort what is unfinished. Does not wait: a cancelled task may call."""
        assert self._open is not None
        self._open.end(request_id)

    async def abort(self, request_id: str) -> None:
        """End a request; its listener hears one more output per sample, with reason "abort"."""
        if self._open is not None:
            self._open.abort(request_id)

    def abort_everywhere(self, request_id: str | None) -> None:
        """As `abort`, in whichever front end of the server the request is, of that name and of
        those of a batch of that name (NAME-0 ...); None: of all. Does not wait."""
        self._send(AbortByName(request_id=request_id))

    async def stats(self) -> Stats:
        self._check_answering()
        return await self._replies.ask(Stats, lambda ticket: GetStats(ticket=ticket))

    async def clear_cache(self) -> int:
        """Forget cached prefixes; returns how many pages that freed."""
        self._check_answering()
        cleared = await self._replies.ask(Cleared, lambda ticket: ClearCache(ticket=ticket))
        return cleared.pages

    async def cache_tree(self, nodes: int) -> CacheTree:
        """The prefix tree in outline, at most so many nodes of it; costs a step about a millisecond."""
        self._check_answering()
        return await self._replies.ask(
            CacheTree, lambda ticket: GetCacheTree(ticket=ticket, nodes=nodes)
        )

    async def pause(self, mode: Literal["abort", "retract", "in_place"]) -> None:
        """Compute nothing until `proceed`; requests wait meanwhile. See messages.Pause."""
        await self._order(lambda ticket: Pause(ticket=ticket, mode=mode))

    async def proceed(self) -> None:
        await self._order(lambda ticket: Continue(ticket=ticket))

    async def start_profile(self, path: str, steps: int | None = None) -> None:
        """Record what the engine process does to a trace file, until stopped or for some steps."""
        await self._order(lambda ticket: StartProfile(ticket=ticket, path=path, steps=steps))

    async def stop_profile(self) -> None:
        """Returns when the trace is written."""
        await self._order(lambda ticket: StopProfile(ticket=ticket))

    async def export_prefix(self, tokens: Sequence[int], namespace: str = "") -> bytes:
        """As `Engine.export_prefix`."""
        wanted = as_bytes(tokens)
        prefixed = await self._hand_over(
            lambda ticket: ExportPrefix(ticket=ticket, tokens=wanted, namespace=namespace)
        )
        return prefixed.data

    async def import_prefix(self, data: bytes, namespace: str = "") -> int:
        """As `Engine.import_prefix`."""
        prefixed = await self._hand_over(
            lambda ticket: ImportPrefix(ticket=ticket, data=data, namespace=namespace)
        )
        return prefixed.tokens

    async def _hand_over(self, order: Callable[[int], Order]) -> Prefixed:
        self._check_answering()
        prefixed = await self._replies.ask(Prefixed, order)
        if prefixed.error:
            raise InvalidRequestError(prefixed.error)
        return prefixed

    async def _order(self, order: Callable[[int], Order]) -> None:
        """Have an order carried out. Raises InvalidRequestError: why it could not be."""
        self._check_answering()
        done = await self._replies.ask(Done, order)
        if done.error:
            raise InvalidRequestError(done.error)

    def _requests(self) -> OpenRequests:
        """Where a request may begin, though the engine may have to be started again for it."""
        if self._over is not None:
            raise EngineDeadError(f"the engine is gone: {self._over}")
        if self._open is None:
            raise EngineDeadError("the engine is still being started")
        return self._open

    def _check_answering(self) -> None:
        self._requests()
        if not self.alive:
            raise EngineDeadError("the engine is being started again")

    # ---- the engine comes and goes ----

    def engine_begins(self, engine: Incarnation) -> None:
        """An engine is there: say hello, and give it what is open as soon as it answers."""
        self._link = Link(engine)
        self._talk = asyncio.create_task(self._converse(self._link))

    def engine_ended(self, why: str, *, blameless: bool) -> None:
        """The engine is gone; until the next one answers, requests wait."""
        link = self._hang_up(f"the engine is gone: {why}")
        if link is not None and self._open is not None and not blameless:
            self._open.convict(link)

    def give_up(self, why: str) -> None:
        """There will be no engine any more: end all requests."""
        self._over = why
        error = EngineDeadError(f"the engine is gone: {why}")
        self._hang_up(str(error))
        if self._open is not None:
            self._open.fail(error)

    def _hang_up(self, why: str) -> Link | None:
        self._ready.clear()
        link, self._link = self._link, None
        if self._talk is not None:
            self._talk.cancel()
        if link is not None:
            link.close()
        self._replies.fail(why)
        return link

    async def _keep(self, keeper: Keeper) -> None:
        try:
            await keeper.keep()
        except EngineDeadError as error:
            self.give_up(str(error))

    # ---- the wire ----

    def _send(self, message: ToEngine) -> None:
        """To the engine, if one is ready: another one will be told all that is open then."""
        if self._link is not None and self.alive:
            self._link.send(message)

    async def _converse(self, link: Link) -> None:
        try:
            link.send(Hello())
            ready = await link.receive()
            assert isinstance(ready, Ready)
            await self._loaded.wait()
            await self._receive(link, self._begin_with(ready.info, Path(link.engine.folder)))
        except Exception as error:  # a bug: requests must end with an error, not hang
            log.exception("messages of the engine cannot be handled any more")
            self.give_up(f"a message could not be handled: {error}")

    def _begin_with(self, info: ModelInfo, folder: Path) -> OpenRequests:
        """The engine can answer: whoever waited for one, and whoever lost one, has it now."""
        self.info = info
        if self._open is None:
            self._open = OpenRequests(self.tokenizer, info, self.config, self._send, folder)
        self._ready.set()
        self._open.resubmit(info)
        return self._open

    async def _receive(self, link: Link, requests: OpenRequests) -> None:
        for count in itertools.count(1):
            if count % MOST_AT_ONCE == 0:
                await asyncio.sleep(0)
            self._hear(await link.receive(), requests)

    def _hear(self, message: FromEngine, requests: OpenRequests) -> None:
        match message:
            case TokenOutput():
                requests.hear(message)
            case Stats() | Cleared() | CacheTree() | Done() | Prefixed():
                self._replies.hear(message)
            case Overloaded():
                requests.refuse_overloaded(message.handle, message.waiting)
            case Refused():
                error = InvalidRequestError(message.message, status=message.status)
                requests.refuse(message.handle, error)
            case AbortByName():
                requests.abort_named(message.request_id)
