"""The requests of one process that are not over, whichever engine works on them.

They are kept so that a new engine can go on where a dead one ended, and so that each hears of its
tokens or of the error that ended it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from inarch.config import EngineConfig
from inarch.engine.frontend import Frontend
from inarch.engine.journal import Journal
from inarch.engine.link import Link
from inarch.engine.messages import Abort, ModelInfo, ToEngine, TokenOutput
from inarch.engine.outputs import RequestOutput
from inarch.engine.suspicion import Quarantine, convict
from inarch.engine.text.tokenizer import Tokenizer
from inarch.errors import EngineDeadError, InarchError, InvalidRequestError
from inarch.sampling import SamplingParams, Terms

log = logging.getLogger("inarch.engine")

Listener = Callable[[RequestOutput | InarchError], None]


@dataclass(frozen=True)
class Ongoing:
    """A request that has begun: who hears of it, and its samples' handles."""

    listener: Listener
    handles: list[int]


class OpenRequests:
    """`send` gives a message to the engine, or drops it while there is none; `folder`: the engines'."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        info: ModelInfo,
        config: EngineConfig,
        send: Callable[[ToEngine], None],
        folder: Path,
    ) -> None:
        self._frontend = Frontend(tokenizer, info, config.random_seed, self._deliver)
        self._most = config.max_queued_requests
        self._send = send
        self._requests: dict[str, Ongoing] = {}
        self._quarantine = Quarantine(folder)

    # ---- for whoever asks ----

    def encode(self, prompt: str | Sequence[int]) -> Sequence[int]:
        return self._frontend.encode(prompt)

    def begin(
        self,
        ids: Sequence[int],
        params: SamplingParams,
        listener: Listener,
        *,
        request_id: str | None,
        terms: Terms,
    ) -> str:
        """See EngineClient.begin."""
        if request_id in self._requests:
            raise InvalidRequestError(f"request id {request_id!r} is in use", param="request_id")
        self._quarantine.check(ids, params)
        samples = self._frontend.open(ids, params, request_id=request_id, terms=terms)
        name = self._frontend.samples[samples[0].handle].request_id
        self._requests[name] = Ongoing(listener, [message.handle for message in samples])
        for message in samples:
            self._send(message)
        return name

    def end(self, request_id: str) -> None:
        """Forget a request and abort what is unfinished."""
        for handle in self._requests.pop(request_id).handles:
            if handle in self._frontend.samples:
                self._frontend.close(handle)
                self._send(Abort(handle=handle))

    def abort(self, request_id: str) -> None:
        """End a request; its listener hears one more output per sample, with reason "abort"."""
        ongoing = self._requests.get(request_id)
        for handle in ongoing.handles if ongoing else ():
            sample = self._frontend.samples.get(handle)
            if sample is not None:
                self._frontend.close(handle)
                self._send(Abort(handle=handle))
                self._deliver(request_id, self._frontend.aborted(sample))

    def abort_named(self, request_id: str | None) -> None:
        """As `abort`, those that are meant by a name: NAME, NAME-0 ...; None: all."""
        for name in list(self._requests):
            batch, _, number = name.rpartition("-")
            if request_id in (None, name) or (request_id == batch and number.isdecimal()):
                self.abort(name)

    def check_room(self) -> None:
        """Raise InvalidRequestError if as many wait for an engine as may wait for a turn."""
        if len(self._frontend.samples) >= self._most:
            raise self._overloaded(len(self._frontend.samples))

    # ---- what the engine says ----

    def hear(self, message: TokenOutput) -> None:
        outputs, cut = self._frontend.receive(message)
        for handle in cut:
            self._send(Abort(handle=handle))
        for output in outputs:
            self._deliver(output.request_id, output)

    def refuse(self, handle: int, error: InvalidRequestError) -> None:
        sample = self._frontend.samples.get(handle)
        if sample is not None:
            self._deliver(sample.request_id, error)

    def refuse_overloaded(self, handle: int, waiting: int) -> None:
        self.refuse(handle, self._overloaded(waiting))

    # ---- engines come and go ----

    def resubmit(self, info: ModelInfo) -> None:
        """Give all that is open to an engine that has come."""
        self._frontend.info = info
        for sample in list(self._frontend.samples.values()):
            if sample.prompt_tokens + sample.message.max_tokens <= info.max_request_tokens:
                self._send(sample.again())
            else:
                why = "the engine was started again, and has less memory for KV than before"
                self._deliver(sample.request_id, EngineDeadError(why))

    def convict(self, link: Link) -> None:
        """End the samples of which the engine has died."""
        if not link.engine.journal.exists():  # it never got that far
            return
        journal = Journal(link.engine.journal)
        for sample in convict(list(self._frontend.samples.values()), link.name, journal):
            log.error("request %s is refused: the engine died of it", sample.request_id)
            self._frontend.close(sample.handle)
            self._deliver(sample.request_id, self._quarantine.take(sample.message))

    def fail(self, error: EngineDeadError) -> None:
        """End all of them: there will be no engine any more."""
        for ongoing in list(self._requests.values()):
            ongoing.listener(error)

    def _deliver(self, request_id: str, output: RequestOutput | InarchError) -> None:
        ongoing = self._requests.get(request_id)
        if ongoing is not None:
            ongoing.listener(output)

    def _overloaded(self, waiting: int) -> InvalidRequestError:
        return InvalidRequestError(
            f"the server is overloaded: {waiting} prompts and samples are waiting, the limit is "
            f"{self._most}; try again later, with fewer of them in one request",
            status=503,
            code="overloaded",
        )
