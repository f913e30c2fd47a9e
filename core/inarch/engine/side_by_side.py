"""Many requests of one caller in an event loop, without a task for each."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from typing import TYPE_CHECKING

from inarch.engine.answers import Answer, Parts, Prompt
from inarch.engine.open_requests import Listener
from inarch.engine.outputs import RequestOutput
from inarch.errors import InarchError
from inarch.sampling import SamplingParams, Terms

if TYPE_CHECKING:
    from inarch.engine.async_engine import AsyncEngine

AHEAD = 4  # requests open for each that the engine runs: a batch leaves its queue to others too


async def side_by_side(
    engine: AsyncEngine, asked: Iterable[tuple[Prompt, SamplingParams]], terms: Terms
) -> AsyncGenerator[tuple[int, RequestOutput], None]:
    """Outputs as they come, each with the number of its prompt.

    If one fails, or the iterator is closed, the others end. Raises as AsyncEngine.generate does.
    """
    told: asyncio.Queue[tuple[int, RequestOutput | InarchError]] = asyncio.Queue()
    names: dict[int, str] = {}  # of requests that are open, by the number of the prompt
    unfinished: dict[int, int] = {}  # their samples
    most = AHEAD * engine.info.max_running_requests
    line = enumerate(asked)
    try:
        while True:
            for number, (prompt, params) in itertools.islice(line, most - len(names)):
                ids = await engine.token_ids(prompt)
                names[number] = engine.begin(ids, params, _into(told, number), terms=terms)
                unfinished[number] = params.n
            if not names:
                return
            number, output = await told.get()
            if isinstance(output, InarchError):
                raise output
            yield number, output
            unfinished[number] -= output.finish_reason is not None
            if not unfinished[number]:
                engine.end(names.pop(number))
    finally:
        for name in names.values():
            engine.end(name)


def _into(told: asyncio.Queue[tuple[int, RequestOutput | InarchError]], number: int) -> Listener:
    return lambda output: told.put_nowait((number, output))


async def answered(
    outputs: AsyncGenerator[tuple[int, RequestOutput], None],
) -> list[Answer]:
    """All of them as whole answers."""
    parts = Parts()
    async with aclosing(outputs):
        async for number, output in outputs:
            parts.add(number, output)
    return parts.answers()
