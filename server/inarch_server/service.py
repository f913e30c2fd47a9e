"""What every handler of one server shares: the engine, the name it is served under, the numbers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from aiohttp import web

from inarch.errors import InvalidRequestError
from inarch.sampling import SamplingParams, Terms
from inarch_server.answering.answers import Answers
from inarch_server.answering.prompts import Prompt
from inarch_server.watching.health import Health
from inarch_server.watching.metrics import Metrics
from inarch_server.watching.stopwatch import Stopwatch

if TYPE_CHECKING:
    from inarch.config import EngineConfig
    from inarch.engine.async_engine import AsyncEngine
    from inarch_server.watching.account import Observer

MAX_CHOICES = 4096  # of one request


@dataclass(frozen=True, eq=False)
class Service:
    engine: AsyncEngine
    config: EngineConfig
    metrics: Metrics
    health: Health
    observers: Sequence[Observer] = ()  # told of every request when it is over
    running: dict[asyncio.Task[Any], web.Request] = field(default_factory=dict)
    out_of_patience: asyncio.Event = field(default_factory=asyncio.Event)  # the server stops now
    created: int = field(default_factory=lambda: int(time.time()))

    @property
    def model(self) -> str:
        """The name under which the API lists the model."""
        return self.engine.info.name

    def check_model(self, name: str | None) -> None:
        """A request may leave the model out, but must not name another one."""
        if name is not None and name != self.model:
            raise InvalidRequestError(
                f"model {name!r} is not served here; this server has {self.model!r}",
                param="model",
                status=404,
                code="model_not_found",
            )

    def answer(
        self,
        request: web.Request,
        ids: Sequence[str],
        prompts: Sequence[Prompt],
        params: Sequence[SamplingParams],
        terms: Terms | None = None,
    ) -> Answers:
        """Answers to `prompts`, one id and one set of parameters each; enter them to begin."""
        choices = sum(one.n for one in params)
        if choices > MAX_CHOICES:
            raise InvalidRequestError(
                f"{len(prompts)} prompts with n make {choices} choices, more than the {MAX_CHOICES}"
                " of one request; send several requests",
                param="n",
            )
        stopwatch = Stopwatch(self.metrics, request[RECEIVED_S])
        terms = terms or Terms(timeout_s=self.config.request_timeout)
        request[ANSWERS] = answers = Answers(
            self.engine, ids, prompts, params, stopwatch, terms,
            keep_text=self.config.log_request_text,
        )  # fmt: skip
        return answers


REQUEST_ID: web.RequestKey[str] = web.RequestKey("request_id", str)
RECEIVED_S: web.RequestKey[float] = web.RequestKey("received_s", float)  # time.perf_counter()
ANSWERS: web.RequestKey[Answers] = web.RequestKey("answers", Answers)
REFUSED: web.RequestKey[dict[str, Any]] = web.RequestKey("refused", dict)  # the error it got
CLIENT_GONE: web.RequestKey[bool] = web.RequestKey("client_gone", bool)
SERVICE: web.AppKey[Service] = web.AppKey("service", Service)
