"""The engine behind its socket: what an asyncio program may do to it, and what it may not hear."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import signal
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import numpy as np
import pytest

from inarch.config import EngineConfig
from inarch.engine import keeper
from inarch.engine.async_engine import AsyncEngine
from inarch.engine.engine import Engine
from inarch.engine.outputs import RequestOutput
from inarch.errors import EngineDeadError, InvalidRequestError, OutOfMemoryError
from inarch.sampling import SamplingParams, Terms

from ..models.oracle import Saved

LONG = SamplingParams(max_tokens=400, ignore_eos=True, seed=3)
SHORT = SamplingParams(max_tokens=3, ignore_eos=True)


@pytest.fixture
def run(served: Callable[[str], Saved]) -> Callable[..., None]:
    """Runs a coroutine function with a started engine."""

    def run(program: Callable[[AsyncEngine], Awaitable[None]], **options: object) -> None:
        options = {"backend": "reference", "kv_tokens": 4096, "max_running_requests": 8} | options
        config = EngineConfig(model=str(served("llama").folder), **options)  # type: ignore[arg-type]

        async def main() -> None:
            async with AsyncEngine(config) as engine:
                await asyncio.wait_for(program(engine), 60)

        asyncio.run(main())

    return run


async def collect(
    engine: AsyncEngine, params: SamplingParams, **options: str
) -> list[RequestOutput]:
    return [output async for output in engine.generate([1, 2, 3], params, **options)]


async def until_idle(engine: AsyncEngine) -> None:
    while (await engine.stats()).running:
        await asyncio.sleep(0.01)


def test_many_requests_of_several_samples_are_told_apart(run: Callable[..., None]) -> None:
    async def program(engine: AsyncEngine) -> None:
        params = SamplingParams(max_tokens=5, n=3, seed=1, ignore_eos=True)
        answers = await asyncio.gather(*(collect(engine, params) for _ in range(20)))
        for outputs in answers:
            by_sample = {i: [o for o in outputs if o.index == i] for i in range(3)}
            assert all(samples[-1].finish_reason == "length" for samples in by_sample.values())
            assert all(samples[-1].completion_tokens == 5 for samples in by_sample.values())

    run(program)


def test_what_nobody_waits_for_any_more_is_ended(run: Callable[..., None]) -> None:
    """Leaving the loop, closing the iterator and cancelling the task each free the request."""

    async def program(engine: AsyncEngine) -> None:
        outputs = engine.generate([1, 2, 3], LONG)
        await anext(outputs)
        await outputs.aclose()
        task = asyncio.create_task(collect(engine, LONG))
        await asyncio.sleep(0.05)
        task.cancel()
        await until_idle(engine)
        assert (await engine.stats()).generated_tokens < 800

    run(program)


def test_an_abort_by_name_ends_the_stream_with_that_reason(run: Callable[..., None]) -> None:
    async def program(engine: AsyncEngine) -> None:
        task = asyncio.create_task(collect(engine, LONG, request_id="mine"))
        while not (await engine.stats()).running:
            await asyncio.sleep(0)
        with pytest.raises(InvalidRequestError, match="in use"):
            await collect(engine, SHORT, request_id="mine")
        await engine.abort("mine")
        assert (await task)[-1].finish_reason == "abort"
        await until_idle(engine)

    run(program)


def test_asking_for_numbers_and_giving_up_harms_nobody(run: Callable[..., None]) -> None:
    async def program(engine: AsyncEngine) -> None:
        for _ in range(100):
            task = asyncio.create_task(engine.stats())
            await asyncio.sleep(random.uniform(0, 0.002))
            task.cancel()
        assert len(await collect(engine, SHORT)) == 3

    run(program)


def test_the_prefix_tree_can_be_looked_at(run: Callable[..., None]) -> None:
    async def program(engine: AsyncEngine) -> None:
        prompt = list(range(1, 36))
        for tail, namespace in (([50] * 20, ""), ([51] * 20, ""), ([52] * 20, "tenant")):
            async for _ in engine.generate(prompt + tail, SHORT, terms=Terms(namespace=namespace)):
                pass
        tree = await engine.cache_tree(10)
        page = engine.info.page_tokens
        # Of 55 + 3 tokens the last one's KV is not kept.
        assert tree.tokens == (57 // page + (57 // page - 35 // page) + 57 // page) * page
        by_id = {node.id: node for node in tree.nodes}
        tails = [node for node in tree.nodes if node.parent]
        assert len(tails) == 2
        shared = by_id[tails[0].parent]
        assert shared.tokens == 35 // page * page
        assert np.frombuffer(shared.head, "<i4").tolist() == prompt[: shared.tokens]
        (private,) = [node for node in tree.nodes if not node.head]
        assert private.tokens == 57 // page * page
        assert sum(node.locks for node in tree.nodes) == 0
        one = await engine.cache_tree(1)
        assert (one.nodes, one.tokens) == ([private], tree.tokens)

    run(program)


def test_a_sample_says_how_long_it_waited_in_the_engine(run: Callable[..., None]) -> None:
    async def program(engine: AsyncEngine) -> None:
        began = time.perf_counter()
        answers = await asyncio.gather(*(collect(engine, SHORT) for _ in range(3)))
        waits = sorted(answer[-1].queued_s for answer in answers)
        # They run one after the other.
        assert 0 <= waits[0] < waits[1] < waits[2] < time.perf_counter() - began

    run(program, max_running_requests=1)


def test_requests_outlive_their_engine(run: Callable[..., None]) -> None:
    async def program(engine: AsyncEngine) -> None:
        undisturbed = await collect(engine, LONG)
        for _ in range(2):
            task = asyncio.create_task(collect(engine, LONG))
            await asyncio.sleep(0.1)
            assert engine._keeper
            os.kill(engine._keeper.pid, signal.SIGKILL)
            answer = await task
            assert [o.token_ids for o in answer] == [o.token_ids for o in undisturbed]
            assert [o.completion_tokens for o in answer] == list(range(1, 401))
        assert engine.alive

    run(program, dtype="float32")


def test_who_waited_for_a_dead_engine_is_taken_by_the_next_one(run: Callable[..., None]) -> None:
    """However many may wait: nobody is refused who was let in."""

    async def program(engine: AsyncEngine) -> None:
        crowd = [asyncio.create_task(collect(engine, LONG))]
        while not (await engine.stats()).running:
            await asyncio.sleep(0.01)
        await engine.pause("in_place")  # it shall not end before the others have come
        crowd += [asyncio.create_task(collect(engine, LONG)) for _ in range(2)]
        while (await engine.stats()).waiting < 2:
            await asyncio.sleep(0.01)
        await engine.proceed()
        assert engine._keeper
        os.kill(engine._keeper.pid, signal.SIGKILL)
        assert [len(answer) for answer in await asyncio.gather(*crowd)] == [400] * 3

    run(program, max_running_requests=1, max_queued_requests=2)


def test_more_than_may_wait_is_refused_with_503(run: Callable[..., None]) -> None:
    async def program(engine: AsyncEngine) -> None:
        crowd = [collect(engine, SHORT) for _ in range(30)]
        answers = await asyncio.gather(*crowd, return_exceptions=True)
        refused = [answer for answer in answers if isinstance(answer, InvalidRequestError)]
        assert refused
        assert all(error.status == 503 for error in refused)
        assert any(isinstance(answer, list) for answer in answers)

    run(program, max_running_requests=1, max_queued_requests=2)


def test_the_reason_why_an_engine_cannot_start_arrives(run: Callable[..., None]) -> None:
    async def program(engine: AsyncEngine) -> None: ...

    with pytest.raises(OutOfMemoryError, match="--kv-tokens"):
        run(program, kv_tokens=10**13)


def test_an_engine_that_cannot_be_started_again_is_given_up(
    served: Callable[[str], Saved], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper, "MOST_FAILURES", 2)
    folder = tmp_path / "model"
    shutil.copytree(served("llama").folder, folder)

    async def main() -> None:
        config = EngineConfig(model=str(folder), backend="reference", kv_tokens=4096)
        async with AsyncEngine(config) as engine:
            shutil.rmtree(folder)
            task = asyncio.create_task(collect(engine, LONG))
            await asyncio.sleep(0.05)
            assert engine._keeper
            os.kill(engine._keeper.pid, signal.SIGKILL)
            with pytest.raises(EngineDeadError, match="2 times in a row"):
                await task
            with pytest.raises(EngineDeadError):
                await collect(engine, SHORT)
            assert not engine.alive

    asyncio.run(main())


def test_while_no_engine_is_there_no_more_wait_than_may(run: Callable[..., None]) -> None:
    async def program(engine: AsyncEngine) -> None:
        assert engine._keeper
        os.kill(engine._keeper.pid, signal.SIGKILL)
        while engine.alive:
            await asyncio.sleep(0.01)
        answers = await asyncio.gather(
            *(collect(engine, SHORT) for _ in range(5)), return_exceptions=True
        )
        refused = [answer for answer in answers if isinstance(answer, InvalidRequestError)]
        assert [error.status for error in refused] == [503] * 3
        assert [len(answer) for answer in answers if isinstance(answer, list)] == [3, 3]

    run(program, max_queued_requests=2)


def test_conversations_are_answered_as_their_prompts_are(
    run: Callable[..., None], tmp_path: Path, served: Callable[[str], Saved]
) -> None:
    template = tmp_path / "chat.jinja"
    template.write_text("{% for m in messages %}{{ m.content }}{{ mark }}{% endfor %}")
    said = [[{"role": "user", "content": word}] for word in ("one", "two")]
    greedy = SamplingParams(max_tokens=5, temperature=0)

    async def program(engine: AsyncEngine) -> None:
        outputs = [output async for output in engine.chat(said[0], greedy, mark="!")]
        found["async"] = "".join(output.text for output in outputs)

    found: dict[str, str] = {}
    run(program, dtype="float32", chat_template=str(template))
    config = EngineConfig(
        model=str(served("llama").folder), backend="reference", dtype="float32",
        chat_template=str(template),
    )  # fmt: skip
    with Engine(config) as engine:
        prompts = [engine.tokenizer.encode(f"{word}!", False) for word in ("one", "two")]
        expected = [answer.text for answer in engine.generate(prompts, greedy)]
        assert [answer.text for answer in engine.chat(said, greedy, mark="!")] == expected
        assert engine.chat(said[1], greedy, mark="!")[0].text == expected[1]
    assert found["async"] == expected[0]


def test_vectors_scores_and_ranks_are_those_of_the_other_engine(
    run: Callable[..., None], served: Callable[[str], Saved]
) -> None:
    texts = ["one", "two", "three", "one"]

    async def program(engine: AsyncEngine) -> None:
        found["vectors"] = [one.vector for one in await engine.encode(texts, dimensions=9)]
        found["cut"] = (await engine.encode(["x" * 600], truncate=True))[0].prompt_tokens
        with pytest.raises(InvalidRequestError, match="600 tokens"):
            await engine.encode(["fine", "x" * 600])
        with pytest.raises(InvalidRequestError, match="no chat template"):
            await engine.rerank("one", texts)
        with pytest.raises(InvalidRequestError, match="no chat template"):
            await engine.score("one", texts)
        await until_idle(engine)

    found: dict[str, object] = {}
    run(program, dtype="float32")
    config = EngineConfig(model=str(served("llama").folder), backend="reference", dtype="float32")
    with Engine(config) as engine:
        expected = [one.vector for one in engine.encode(texts, dimensions=9)]
    np.testing.assert_allclose(found["vectors"], expected, atol=1e-5)  # type: ignore[arg-type]
    assert found["cut"] == 512


def test_a_prefix_goes_from_one_engine_to_another_process(
    run: Callable[..., None], served: Callable[[str], Saved]
) -> None:
    prompt = random.Random(3).choices(range(101), k=100)
    greedy = SamplingParams(temperature=0, max_tokens=8, ignore_eos=True)
    config = EngineConfig(model=str(served("llama").folder), backend="reference", kv_tokens=1024)
    with Engine(config) as offline:
        (expected,) = offline.generate(prompt, greedy)
        data = offline.export_prefix(prompt)

    async def program(engine: AsyncEngine) -> None:
        with pytest.raises(InvalidRequestError, match="100 tokens no page"):
            await engine.export_prefix(prompt)
        with pytest.raises(InvalidRequestError, match="hold no prefix"):
            await engine.import_prefix(data[:50])
        assert await engine.import_prefix(data) == 96
        outputs = [output async for output in engine.generate(prompt, greedy)]
        assert outputs[-1].cached_tokens == 96
        assert [t for output in outputs for t in output.token_ids] == list(expected.token_ids)
        assert len(await engine.export_prefix(prompt)) == len(data)

    run(program)
