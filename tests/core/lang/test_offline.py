"""The offline engine: as SGLang's scripts call it, and its methods' twins in an event loop."""

from __future__ import annotations

import asyncio
import inspect
from types import SimpleNamespace
from typing import Any, get_type_hints

import pytest

import inarch.lang as sgl
from inarch import AsyncEngine, Engine, SamplingParams
from inarch.engine.side_by_side import AHEAD, answered, side_by_side
from inarch.errors import InvalidRequestError
from inarch.lang.loop import submit
from inarch.sampling import DEFAULT_TERMS

pytestmark = pytest.mark.timeout(60)
PROMPTS = ["The capital of France is", "What is 2 + 3?", "Once upon a time"]
ASKED = {"temperature": 0, "max_new_tokens": 6, "ignore_eos": True}
PARAMS = SamplingParams(temperature=0, max_tokens=6, ignore_eos=True)


@pytest.fixture(scope="module")
def expected(engine: Engine) -> list[str]:
    return [answer.text for answer in engine.generate(PROMPTS, PARAMS)]


def test_prompts_in_and_dictionaries_out(llm: sgl.Engine, expected: list[str]) -> None:
    outputs = llm.generate(PROMPTS, ASKED)
    assert [output["text"] for output in outputs] == expected
    assert outputs[0]["meta_info"]["completion_tokens"] == len(outputs[0]["output_ids"]) == 6
    assert llm.generate(PROMPTS[1], ASKED)["text"] == expected[1]
    ids = llm.runtime.engine.tokenizer.encode(PROMPTS[0])
    assert llm.generate(input_ids=ids, sampling_params=ASKED)["text"] == expected[0]
    each = [{**ASKED, "max_new_tokens": 1 + i} for i in range(3)]
    assert [len(one["output_ids"]) for one in llm.generate(PROMPTS, each)] == [1, 2, 3]


def test_samples_come_one_after_the_other(llm: sgl.Engine) -> None:
    asked = {"temperature": 5.0, "max_new_tokens": 5, "n": 3, "seed": 1}
    outputs = llm.generate(PROMPTS[:2], asked)
    assert [(o["index"], o["sample"]) for o in outputs] == [
        (i, k) for i in (0, 1) for k in range(3)
    ]
    assert len({output["text"] for output in outputs[:3]}) == 3


def test_log_probabilities_are_told_where_they_are_asked_for(llm: sgl.Engine) -> None:
    told = llm.generate(PROMPTS[0], ASKED, return_logprob=True, top_logprobs_num=2)["meta_info"]
    assert len(told["output_token_logprobs"]) == 6
    assert len(told["output_top_logprobs"][0]) == 2


def test_streams_tell_all_text_so_far(llm: sgl.Engine, expected: list[str]) -> None:
    seen: dict[int, str] = {}
    for part in llm.generate(PROMPTS, ASKED, stream=True):
        assert part["text"].startswith(seen.get(part["index"], ""))
        seen[part["index"]] = part["text"]
    assert [seen[i] for i in range(3)] == expected


def test_an_event_loop_has_the_same(llm: sgl.Engine, expected: list[str]) -> None:
    async def main() -> tuple[Any, str]:
        outputs = await llm.async_generate(PROMPTS, ASKED)
        async for part in await llm.async_generate(PROMPTS[2], ASKED, stream=True):
            last = part["text"]
        return outputs, last

    outputs, last = asyncio.run(main())
    assert [output["text"] for output in outputs] == expected
    assert last == expected[2]


def test_leaving_a_stream_ends_it(llm: sgl.Engine) -> None:
    endless = {"max_new_tokens": 1500, "ignore_eos": True}
    for _ in llm.generate(PROMPTS * 4, endless, stream=True):
        break
    assert submit(llm.runtime.engine.generate_batch("a", PARAMS)).result()
    stats = submit(llm.runtime.engine.stats()).result()
    assert stats.running + stats.waiting == 0


def test_what_is_wrong_is_told_before_anything_runs(llm: sgl.Engine) -> None:
    for given, asked, message in (
        ({}, ASKED, "exactly one of prompt and input_ids"),
        ({"prompt": "a", "input_ids": [1]}, ASKED, "exactly one of"),
        ({"prompt": "a"}, {"temprature": 1}, "takes no temprature"),
        ({"prompt": ["a", "b"]}, {"temperature": -1}, "temperature must be"),
    ):
        with pytest.raises(InvalidRequestError, match=message):
            llm.generate(**given, sampling_params=asked)  # type: ignore[arg-type]


def test_texts_become_vectors(llm: sgl.Engine) -> None:
    one, many = llm.encode(PROMPTS[0]), asyncio.run(llm.async_encode(PROMPTS))
    assert one["embedding"] == pytest.approx(many[0]["embedding"], abs=1e-5)
    assert many[1]["meta_info"]["prompt_tokens"] > 3


def test_programs_run_on_it(llm: sgl.Engine) -> None:
    @sgl.function
    def says(s: sgl.State) -> None:
        s += PROMPTS[0] + sgl.gen("rest", max_tokens=6, ignore_eos=True)

    assert says.run(backend=llm, temperature=0)["rest"] == llm.generate(PROMPTS[0], ASKED)["text"]
    llm.flush_cache()
    assert llm.get_server_info()["vocab_size"]


# Of Engine, and what an event loop calls instead.
TWINS = {
    "generate": "generate_batch", "stream": "generate", "stream_batch": "stream_batch",
    "chat": "chat", "encode": "encode", "classify": "classify", "score": "score",
    "rerank": "rerank", "stats": "stats", "export_prefix": "export_prefix",
    "import_prefix": "import_prefix", "close": "shutdown", "shutdown": "shutdown", "info": "info",
}  # fmt: skip


def test_every_method_of_the_engine_has_its_twin() -> None:
    public = {name for name in vars(Engine) if not name.startswith("_")}
    assert public == set(TWINS)
    known = {*dir(AsyncEngine), *get_type_hints(AsyncEngine)}
    assert set(TWINS.values()) <= known
    for one, twin in TWINS.items():
        if one in ("info", "close", "shutdown", "stats"):
            continue
        own = set(inspect.signature(getattr(Engine, one)).parameters)
        takes = set(inspect.signature(getattr(AsyncEngine, twin)).parameters)
        assert own - {"prompt", "prompts"} <= takes


def test_the_twins_say_the_same(llm: sgl.Engine, expected: list[str]) -> None:
    engine = llm.runtime.engine

    async def main() -> None:
        answers = await engine.generate_batch(PROMPTS * 2, PARAMS)
        assert [answer.text for answer in answers] == expected * 2
        assert [answer.index for answer in answers] == list(range(6))
        texts = [""] * 3
        async for number, output in engine.stream_batch(PROMPTS, PARAMS):
            texts[number] += output.text
        assert texts == expected
        one = [output.text async for output in engine.generate(PROMPTS[0], PARAMS)]
        assert "".join(one) == expected[0]
        with pytest.raises(InvalidRequestError, match="classifier"):
            await engine.classify(["a"])
        wrong = [PARAMS, PARAMS, SamplingParams(temperature=-1)]
        with pytest.raises(InvalidRequestError, match="temperature"):
            await engine.generate_batch(PROMPTS, wrong)
        assert len(await engine.generate_batch([], PARAMS)) == 0

    submit(main()).result()


def test_a_batch_leaves_the_queue_to_others_too(llm: sgl.Engine) -> None:
    engine, begun, most = llm.runtime.engine, 0, 0

    class Small:
        """As if the engine ran one request at once."""

        info = SimpleNamespace(max_running_requests=1)
        token_ids = staticmethod(engine.token_ids)

        def begin(self, *args: Any, **kwargs: Any) -> str:
            nonlocal begun, most
            begun += 1
            most = max(most, begun)
            return engine.begin(*args, **kwargs)

        def end(self, name: str) -> None:
            nonlocal begun
            begun -= 1
            engine.end(name)

    async def main() -> int:
        asked = ((PROMPTS[i % 3], PARAMS) for i in range(20))
        outputs = side_by_side(Small(), asked, DEFAULT_TERMS)  # type: ignore[arg-type]
        return len(await answered(outputs))

    assert submit(main()).result() == 20
    assert most == AHEAD
    assert begun == 0
