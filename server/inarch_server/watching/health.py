"""Healthy means that a token can be made: one was a moment ago, or one is made to find out."""

from __future__ import annotations

import asyncio
import time
from contextlib import aclosing
from typing import TYPE_CHECKING

from inarch.errors import EngineDeadError, InarchError
from inarch.sampling import SamplingParams, encoding

if TYPE_CHECKING:
    from inarch.engine.async_engine import AsyncEngine
    from inarch_server.watching.metrics import Metrics

# A token made so recently answers for the engine without another one.
FRESH_S = 10.0
PROBE = (0,)  # a token that every vocabulary has
PROBE_TIMEOUT_S = 20.0
# For the first one, whose steps may have to be compiled beforehand, by a machine that has more to do. An
# engine that ends meanwhile is heard of at once.
FIRST_TIMEOUT_S = 600.0


class Health:
    def __init__(self, engine: AsyncEngine, metrics: Metrics) -> None:
        self._engine, self._metrics = engine, metrics
        self._probing: asyncio.Task[None] | None = None

    async def first(self) -> None:
        """Wait for an engine's first token. Raises EngineDeadError if it makes none."""
        await self._probe(FIRST_TIMEOUT_S)

    async def check(self, *, fresh_s: float = FRESH_S) -> None:
        """Raise EngineDeadError unless a token was made in the last `fresh_s`, or can be now.

        However many ask at once, one probe runs for all of them.
        """
        if not self._engine.alive:
            raise EngineDeadError("the engine process has ended; restart the server")
        if time.perf_counter() - self._metrics.last_token_s <= fresh_s:
            return
        if self._probing is None or self._probing.done():
            self._probing = asyncio.create_task(self._probe(PROBE_TIMEOUT_S))
            # Whoever asked may have gone before the answer came: it counts as heard all the same.
            self._probing.add_done_callback(lambda task: task.cancelled() or task.exception())
        await asyncio.shield(self._probing)

    async def _probe(self, patience_s: float) -> None:
        params = SamplingParams(max_tokens=1, temperature=0.0, ignore_eos=True)
        if not self._engine.info.head.generates:
            params = encoding()
        outputs = self._engine.generate(PROBE, params)
        try:
            async with asyncio.timeout(patience_s), aclosing(outputs):
                if (await self._engine.stats()).paused:
                    return  # on purpose, and it answers
                async for _ in outputs:
                    pass
        except InarchError as error:
            raise EngineDeadError(f"the engine made no token: {error}") from error
        except TimeoutError:
            raise EngineDeadError(
                f"the engine made no token in {patience_s:g} s; see the server's log"
            ) from None
        self._metrics.last_token_s = time.perf_counter()
