"""Orders to a running engine: pause, continue, end by name, flush, profile. Nothing else is disturbed."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from inarch.config import EngineConfig
from inarch.engine.async_engine import AsyncEngine
from inarch.errors import InvalidRequestError
from inarch.sampling import SamplingParams, Terms

from ..models.oracle import Saved

LONG = SamplingParams(max_tokens=150, ignore_eos=True, seed=3)
SHORT = SamplingParams(max_tokens=3, ignore_eos=True, seed=4)
PROMPTS = [[1, 2, 3], list(range(40)), [7] * 17]

Program = Callable[[AsyncEngine], Awaitable[None]]


@pytest.fixture(scope="module")
def run(served: Callable[[str], Saved]) -> Iterator[Callable[[Program], None]]:
    """Runs a coroutine function with the one engine of this file."""
    config = EngineConfig(
        model=str(served("llama").folder), backend="reference", kv_tokens=4096,
        max_running_requests=4, page_size=16, dtype="float32",
    )  # fmt: skip
    loop = asyncio.new_event_loop()
    engine = AsyncEngine(config)
    loop.run_until_complete(engine.__aenter__())
    try:
        yield lambda program: loop.run_until_complete(asyncio.wait_for(program(engine), 60))
    finally:
        loop.run_until_complete(engine.__aexit__(None, None, None))
        loop.close()


async def answer(
    engine: AsyncEngine, prompt: list[int], params: SamplingParams = LONG, **options: object
) -> tuple[tuple[int, ...], str | None]:
    generated = engine.generate(prompt, params, **options)  # type: ignore[arg-type]
    outputs = [output async for output in generated]
    return tuple(t for o in outputs for t in o.token_ids), outputs[-1].finish_reason


async def all_answers(engine: AsyncEngine, **options: object) -> list[object]:
    return await asyncio.gather(*(answer(engine, prompt, **options) for prompt in PROMPTS))


@pytest.mark.parametrize("mode", ["retract", "in_place"])
def test_a_pause_loses_nothing_and_changes_nothing(
    run: Callable[[Program], None], mode: str
) -> None:
    async def program(engine: AsyncEngine) -> None:
        expected = await all_answers(engine)
        running = asyncio.create_task(all_answers(engine))
        for _ in range(3):
            await asyncio.sleep(0.03)
            await engine.pause(mode)  # type: ignore[arg-type]
            before = await engine.stats()
            await asyncio.sleep(0.1)
            after = await engine.stats()
            # What was in flight may still be read; nothing more is computed.
            assert after.steps - before.steps <= 2
            assert after.paused
            assert mode == "in_place" or after.kv_pages_used == 0
            newcomer = asyncio.create_task(answer(engine, [5], SHORT))
            await asyncio.sleep(0.02)
            assert not newcomer.done()
            await engine.proceed()
            assert len((await newcomer)[0]) == 3
        assert await running == expected
        assert not (await engine.stats()).paused

    run(program)


def test_a_pause_that_aborts_ends_what_runs_and_keeps_what_comes_later(
    run: Callable[[Program], None],
) -> None:
    async def program(engine: AsyncEngine) -> None:
        running = asyncio.create_task(all_answers(engine))
        while not (await engine.stats()).running:
            await asyncio.sleep(0)
        await engine.pause("abort")
        assert {reason for _, reason in await running} == {"abort"}  # type: ignore[misc]
        later = asyncio.create_task(answer(engine, [5], SHORT))
        await asyncio.sleep(0.05)
        assert not later.done()
        await engine.proceed()
        assert (await later)[1] == "length"

    run(program)


def test_a_request_is_ended_by_its_name_with_all_of_its_batch_and_no_other(
    run: Callable[[Program], None],
) -> None:
    async def program(engine: AsyncEngine) -> None:
        names = ["mine", "mine-0", "mine-1", "mine2", "not-mine", "mine-7f3c"]
        tasks = [asyncio.create_task(answer(engine, [1], request_id=name)) for name in names]
        await asyncio.sleep(0.02)
        engine.abort_everywhere("mine")
        engine.abort_everywhere("nobody")
        reasons = [reason for _, reason in await asyncio.gather(*tasks)]
        assert reasons == ["abort", "abort", "abort", "length", "length", "length"]

    run(program)


def test_the_cache_may_be_flushed_while_requests_run(run: Callable[[Program], None]) -> None:
    async def program(engine: AsyncEngine) -> None:
        expected = await all_answers(engine)
        running = asyncio.create_task(all_answers(engine))
        while not running.done():
            await engine.clear_cache()
            await asyncio.sleep(0.01)
        assert await running == expected
        await answer(engine, list(range(40)), SHORT)
        assert await engine.clear_cache() > 0
        assert (await engine.stats()).kv_pages_cached == 0

    run(program)


def test_a_profile_is_a_trace_that_says_what_was_run(
    run: Callable[[Program], None], tmp_path: Path
) -> None:
    async def program(engine: AsyncEngine) -> None:
        whole, short = tmp_path / "whole.json.gz", tmp_path / "short.json"
        await engine.start_profile(str(whole))
        with pytest.raises(InvalidRequestError, match="already"):
            await engine.start_profile(str(short))
        await answer(engine, [1], SHORT)
        await engine.stop_profile()
        with gzip.open(whole) as file:
            events = json.load(file)["traceEvents"]
        assert any(event.get("name") == "aten::embedding" for event in events)

        await engine.start_profile(str(short), steps=2)
        await answer(engine, [1], LONG)
        assert "traceEvents" in json.loads(short.read_bytes())
        with pytest.raises(InvalidRequestError, match="no profile"):
            await engine.stop_profile()
        assert sorted(path.name for path in tmp_path.iterdir()) == ["short.json", "whole.json.gz"]

    run(program)


def test_a_profile_that_cannot_be_written_is_said_so_and_harms_nobody(
    run: Callable[[Program], None], tmp_path: Path
) -> None:
    async def program(engine: AsyncEngine) -> None:
        await engine.start_profile(str(tmp_path / "missing" / "trace.json"))
        await answer(engine, [1], SHORT)
        with pytest.raises(InvalidRequestError, match="could not be written"):
            await engine.stop_profile()
        assert (await answer(engine, [1], SHORT))[1] == "length"

    run(program)


def test_who_has_a_higher_priority_goes_first(run: Callable[[Program], None]) -> None:
    async def program(engine: AsyncEngine) -> None:
        order: list[int] = []

        async def ask(priority: int) -> None:
            await answer(engine, [priority], SHORT, terms=Terms(priority=priority))
            order.append(priority)

        await engine.pause("in_place")
        tasks = [asyncio.create_task(ask(priority)) for priority in (0, 5, 1, 9, 3, 7, 8, 2, 6)]
        await asyncio.sleep(0.02)
        await engine.proceed()
        await asyncio.gather(*tasks)
        assert {*order[:4]} == {9, 8, 7, 6}
        assert order[-1] == 0

    run(program)


def test_namespaces_share_no_cache(run: Callable[[Program], None]) -> None:
    async def cached(engine: AsyncEngine, namespace: str) -> int:
        terms = Terms(namespace=namespace)
        outputs = [o async for o in engine.generate(list(range(64)), SHORT, terms=terms)]
        return outputs[0].cached_tokens

    async def program(engine: AsyncEngine) -> None:
        await engine.clear_cache()
        assert [await cached(engine, name) for name in ("a", "b", "a", "", "b")] == [
            0,
            0,
            48,
            0,
            48,
        ]

    run(program)


def test_a_pattern_that_takes_too_long_ends_its_own_request_alone(
    run: Callable[[Program], None],
) -> None:
    slow = SamplingParams(
        max_tokens=400, ignore_eos=True, seed=1, stop_regex=(r"(?s)(.|..)+[\u0416\u0417]$",)
    )

    async def program(engine: AsyncEngine) -> None:
        other = asyncio.create_task(answer(engine, [1, 2, 3]))
        with pytest.raises(InvalidRequestError, match="takes too long"):
            await answer(engine, [1], slow)
        assert (await other)[1] == "length"
        while (await engine.stats()).running:
            await asyncio.sleep(0.01)

    run(program)
