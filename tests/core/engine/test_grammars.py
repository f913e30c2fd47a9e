"""Answers that are held to a grammar, with the bundled model: all parse, and nobody else is harmed."""

from __future__ import annotations

import asyncio
import dataclasses
import importlib.util
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest

from inarch.config import EngineConfig
from inarch.engine.async_engine import AsyncEngine
from inarch.engine.engine import Engine
from inarch.errors import ConfigError, InvalidRequestError
from inarch.grammar import Grammar, Kind
from inarch.sampling import SamplingParams

MODEL = Path(__file__).parents[3] / "plugins/bundled_model/inarch_bundled_model/data"
ENGINES = ["llguidance"]
if importlib.util.find_spec("xgrammar"):
    ENGINES.append("xgrammar")


def closed(**properties: Any) -> dict[str, Any]:
    return {
        "type": "object", "properties": properties, "required": list(properties),
        "additionalProperties": False,
    }  # fmt: skip


WORD = {"enum": ["red", "green", "blue"]}
SMALL = {"type": "integer", "minimum": 0, "maximum": 99}
SCHEMAS: list[dict[str, Any]] = [
    closed(name=WORD, age=SMALL),
    closed(answer={"type": "boolean"}),
    closed(nothing={"type": "null"}, a=SMALL),
    {"type": "integer", "minimum": -5, "maximum": 5},
    {"type": "number", "minimum": 0, "maximum": 1, "multipleOf": 0.25},
    WORD,
    {"const": {"fixed": ["text", 1, None]}},
    {"type": "array", "items": SMALL, "minItems": 2, "maxItems": 4},
    {"type": "array", "items": WORD, "maxItems": 3},
    {"type": "array", "prefixItems": [SMALL, WORD], "items": False, "minItems": 2},
    {"anyOf": [SMALL, WORD, {"type": "null"}]},
    {"oneOf": [closed(kind={"const": "a"}, n=SMALL), closed(kind={"const": "b"}, w=WORD)]},
    {"type": "object", "properties": {"a": SMALL, "b": WORD}, "additionalProperties": False},
    closed(inner=closed(deep=closed(colour=WORD))),
    closed(date={"type": "string", "format": "date"}),
    closed(id={"type": "string", "format": "uuid"}),
    closed(code={"type": "string", "pattern": "^[A-Z]{2}-[0-9]{3}$"}),
    closed(short={"type": "string", "maxLength": 8}),
    {"$ref": "#/$defs/colour", "$defs": {"colour": WORD}},
    closed(list={"type": "array", "items": closed(c=WORD), "minItems": 1, "maxItems": 2}),
    {"type": "string", "minLength": 3, "maxLength": 6},
    {"allOf": [closed(n=SMALL)]},
]


def schema(value: Any) -> Grammar:
    return Grammar(kind="json_schema", source=json.dumps(value))


def config(**options: Any) -> EngineConfig:
    # float32: in bfloat16 a product depends on how many rows are multiplied with it.
    given = {
        "backend": "reference",
        "kv_tokens": 16384,
        "max_running_requests": 96,
        "dtype": "float32",
    }
    return EngineConfig(model=str(MODEL), **(given | options))


@pytest.fixture(scope="module", params=ENGINES)
def engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    with Engine(config(grammar_engine=request.param)) as engine:
        yield engine


@pytest.fixture(scope="module")
def any_engine() -> Iterator[Engine]:
    with Engine(config()) as engine:
        yield engine


def greedy(**options: Any) -> SamplingParams:
    return SamplingParams(**({"temperature": 0, "max_tokens": 200} | options))


@pytest.mark.parametrize("temperature", [0, 1.5])
def test_every_answer_parses_and_validates(any_engine: Engine, temperature: float) -> None:
    params = [
        SamplingParams(temperature=temperature, seed=i, max_tokens=300, n=2, grammar=schema(s))
        for i, s in enumerate(SCHEMAS)
    ]
    answers = any_engine.generate(["What is the capital of France?"] * len(SCHEMAS), params)
    assert len(answers) == 2 * len(SCHEMAS)
    for answer in answers:
        assert answer.finish_reason == "stop"
        jsonschema.Draft202012Validator(
            SCHEMAS[answer.index], format_checker=jsonschema.FormatChecker()
        ).validate(json.loads(answer.text))


@pytest.mark.parametrize(
    ("kind", "source", "pattern"),
    [
        ("regex", "(yes|no), [0-9]{2}", r"(yes|no), [0-9]{2}"),
        (
            "ebnf",
            'root ::= "x" inner "!"\ninner ::= [a-c]{1,3} | "(" inner ")"',
            r"x\(*[a-c]{1,3}\)*!",
        ),
        ("json_object", "", None),
    ],
)
def test_other_kinds_of_grammar_hold_too(
    engine: Engine, kind: Kind, source: str, pattern: str | None
) -> None:
    grammar = Grammar(kind=kind, source=source)
    params = SamplingParams(seed=3, n=4, max_tokens=60, temperature=0.8, grammar=grammar)
    for answer in engine.generate("Is two a number?", params):
        if pattern is not None:
            assert re.fullmatch(pattern, answer.text)
        elif answer.finish_reason == "stop":
            assert isinstance(json.loads(answer.text), dict)


def test_structural_tags_hold_what_is_within_the_tags(engine: Engine) -> None:
    tag = {"begin": "<f>", "schema": closed(name=WORD, age=SMALL), "end": "</f>"}
    older = Grammar(
        kind="structural_tag", source=json.dumps({"structures": [tag], "triggers": ["<f"]})
    )
    content = {"type": "json_schema", "json_schema": tag["schema"]}
    single = {"type": "tag", "begin": "<f>", "content": content, "end": "</f>"}
    newer = Grammar(
        kind="structural_tag", source=json.dumps({"type": "structural_tag", "format": single})
    )
    short = {"max_tokens": 24}
    free = engine.generate("Which day is after Monday?", greedy(**short))[0]
    held = engine.generate("Which day is after Monday?", greedy(**short, grammar=older))[0]
    assert held.text == free.text, "the model never thinks of a tag"
    answer = engine.generate("Which day is after Monday?", greedy(grammar=newer))[0]
    inside = re.fullmatch("<f>(.*)</f>", answer.text)
    assert inside
    jsonschema.validate(json.loads(inside[1]), tag["schema"])


@pytest.mark.parametrize(
    "options", [{"temperature": 0}, {"seed": 5, "temperature": 3.0, "frequency_penalty": 1.0}]
)
def test_forced_tokens_change_no_answer(any_engine: Engine, options: dict[str, Any]) -> None:
    """Where logprobs are asked for, every token is sampled: the answer is the same all the same."""
    grammars = [schema(value) for value in SCHEMAS[:16]]
    held = [SamplingParams(max_tokens=200, grammar=grammar, **options) for grammar in grammars]
    prompts = ["Name a colour."] * len(held)
    before = any_engine.stats().steps
    jumped = any_engine.generate(prompts, held)
    between = any_engine.stats().steps
    stepped = any_engine.generate(
        prompts, [msgspec.structs.replace(one, logprobs=0) for one in held]
    )
    assert between - before < any_engine.stats().steps - between
    for quick, slow in zip(jumped, stepped, strict=True):
        assert quick.token_ids == slow.token_ids
        assert len(slow.logprobs) == len(slow.token_ids)


def test_forced_tokens_cost_no_step_each(engine: Engine) -> None:
    params = greedy(grammar=schema({"const": {"a long": "text which nobody has to think about"}}))
    before = engine.stats()
    (answer,) = engine.generate("Hello", params)
    after = engine.stats()
    assert json.loads(answer.text) == {"a long": "text which nobody has to think about"}
    assert after.generated_tokens - before.generated_tokens == len(answer.token_ids) > 12
    assert after.steps - before.steps < len(answer.token_ids) // 2


def test_forced_tokens_end_at_max_tokens(engine: Engine) -> None:
    grammar = schema({"const": "a text that is longer than what may be answered"})
    (whole,) = engine.generate("Hello", greedy(grammar=grammar))
    (cut,) = engine.generate("Hello", greedy(grammar=grammar, max_tokens=5))
    assert cut.token_ids == whole.token_ids[:5]
    assert cut.finish_reason == "length"


def test_company_changes_no_answer(any_engine: Engine) -> None:
    prompts = ["What is 2 plus 3?", "Name a colour.", "Which day is after Monday?"] * 4
    free = greedy(max_tokens=20)
    held = [greedy(grammar=schema(value)) for value in SCHEMAS[:12]]
    seeded = SamplingParams(max_tokens=20, seed=1)
    alone = any_engine.generate(prompts, free), any_engine.generate(prompts, seeded)
    kept = [any_engine.generate(p, h)[0].text for p, h in zip(prompts, held, strict=True)]
    mixed = any_engine.generate(prompts * 3, [*held, *[free] * 12, *[seeded] * 12])
    assert [a.text for a in mixed[:12]] == kept
    assert [a.text for a in mixed[12:24]] == [a.text for a in alone[0]]
    assert [a.text for a in mixed[24:]] == [a.text for a in alone[1]]


def test_a_device_that_answers_late_gives_the_same(
    any_engine: Engine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Steps overlap there: a mask needs the token of a step that is still under way."""
    fake = Path(__file__).parents[2] / "fake_accelerator"
    monkeypatch.syspath_prepend(fake)
    monkeypatch.syspath_prepend(fake / "installed")
    params: list[SamplingParams] = []
    for i, value in enumerate(SCHEMAS):
        grammar = None if i % 4 == 3 else schema(value)
        params.append(
            SamplingParams(
                temperature=0.7, seed=i, max_tokens=30, grammar=grammar,
                logprobs=0 if i % 5 == 4 else None,
                frequency_penalty=0.5 * (i % 2), min_tokens=i % 3, top_p=0.9,
            )
        )  # fmt: skip
    prompts = [f"Question {i}: name a colour." for i in range(len(params))]
    expected = [answer.token_ids for answer in any_engine.generate(prompts, params)]
    shutil.copytree(MODEL, tmp_path / "model")  # computed in what its configuration says
    told = json.loads((MODEL / "config.json").read_text()) | {"torch_dtype": "float32"}
    (tmp_path / "model/config.json").write_text(json.dumps(told))
    small = {"kv_tokens": 1024, "context_length": 256, "max_step_tokens": 64}
    late = config(backend="fake", dtype="auto", max_running_requests=8, **small)
    late = dataclasses.replace(late, model=str(tmp_path / "model"))
    with Engine(late) as engine:
        assert [answer.token_ids for answer in engine.generate(prompts, params)] == expected


def test_retraction_loses_nothing(any_engine: Engine) -> None:
    long = closed(id={"type": "string", "format": "uuid"}, a={"type": "string", "minLength": 400})
    grammars = [schema(value) for value in (SCHEMAS[0], SCHEMAS[13], long, long)] * 2
    params = [
        SamplingParams(temperature=0.9, seed=i, max_tokens=60, grammar=grammar, top_p=0.9)
        for i, grammar in enumerate(grammars)
    ]
    prompts = [f"Question {i}: name a colour." for i in range(len(params))]
    roomy = any_engine.generate(prompts, params)
    with Engine(config(kv_tokens=256, page_size=1, prefix_cache=False)) as engine:
        tight = engine.generate(prompts, params)
        assert engine.stats().retractions > 0
    assert [a.token_ids for a in tight] == [a.token_ids for a in roomy]


def test_sixty_four_at_once(engine: Engine) -> None:
    params = [
        SamplingParams(temperature=1.0, seed=i, max_tokens=200, grammar=schema(SCHEMAS[i % 4]))
        for i in range(64)
    ]
    answers = engine.generate([f"Number {i}" for i in range(64)], params)
    for i, answer in enumerate(answers):
        jsonschema.validate(json.loads(answer.text), SCHEMAS[i % 4])


def test_the_answer_is_free_until_the_end_of_the_reasoning(engine: Engine) -> None:
    prompt = "What is the capital of France?"
    (free,) = engine.generate(prompt, greedy(max_tokens=24))
    after = free.token_ids[2:4]
    grammar = Grammar(kind="json_schema", source=json.dumps(SCHEMAS[0]), after=after)
    (answer,) = engine.generate(prompt, greedy(grammar=grammar))
    assert answer.token_ids[:4] == free.token_ids[:4]
    rest = engine.tokenizer.decode(answer.token_ids[4:])
    jsonschema.validate(json.loads(rest), SCHEMAS[0])
    never = Grammar(kind="json_schema", source=json.dumps(SCHEMAS[0]), after=(7, 7, 7))
    (answer,) = engine.generate(prompt, greedy(max_tokens=24, grammar=never))
    assert answer.token_ids == free.token_ids


def test_the_grammar_wins_over_what_is_asked_of_the_end(engine: Engine) -> None:
    """ignore_eos and min_tokens put the end off while the grammar allows anything else."""
    options = greedy(grammar=Grammar(kind="regex", source="(yes|no)!"), ignore_eos=True)
    (answer,) = engine.generate("Hello", options)
    assert re.fullmatch("(yes|no)!", answer.text)
    assert answer.finish_reason == "stop"
    open_end, eager = Grammar(kind="regex", source="a+"), {4: 100.0, 2: 100.0}
    options = greedy(grammar=open_end, ignore_eos=True, max_tokens=30, logit_bias=eager)
    assert len(engine.generate("Hello", options)[0].token_ids) == 30
    options = greedy(grammar=open_end, min_tokens=20, logit_bias=eager)
    (answer,) = engine.generate("Hello", options)
    assert len(answer.token_ids) == 20 + 1, "its end comes after that many"
    (answer,) = engine.generate(
        "Hello", greedy(grammar=Grammar(kind="regex", source="b"), min_tokens=20)
    )
    assert (answer.text, answer.finish_reason) == ("b", "stop")


def test_stops_of_the_caller_end_an_answer_early(engine: Engine) -> None:
    grammar = schema({"const": {"first": 1, "second": 2}})
    (answer,) = engine.generate("Hello", greedy(grammar=grammar, stop=("second",)))
    assert re.fullmatch(r'\{"first": ?1, ?"', answer.text)
    (whole,) = engine.generate("Hello", greedy(grammar=grammar))
    stop = whole.token_ids[5]
    (answer,) = engine.generate("Hello", greedy(grammar=grammar, stop_token_ids=(stop,)))
    assert answer.token_ids == whole.token_ids[: whole.token_ids.index(stop) + 1]


def test_a_bias_chooses_among_what_is_allowed(engine: Engine) -> None:
    token = engine.tokenizer.encode("green", add_special_tokens=False)[0]
    params = greedy(grammar=Grammar(kind="regex", source="red|green|blue"), logit_bias={token: 100})
    assert engine.generate("Name a colour.", params)[0].text == "green"


def test_logprobs_are_those_of_the_model_without_the_grammar(engine: Engine) -> None:
    params = greedy(logprobs=3, max_tokens=1)
    (free,) = engine.generate("Name a colour.", params)
    held = greedy(logprobs=3, max_tokens=1, grammar=Grammar(kind="regex", source="[0-9]"))
    (answer,) = engine.generate("Name a colour.", held)
    assert answer.logprobs[0].top == free.logprobs[0].top
    assert answer.logprobs[0].logprob < free.logprobs[0].logprob


@pytest.mark.parametrize(
    ("kind", "source", "why"),
    [
        ("json_schema", "{", "not JSON"),
        ("json_schema", '{"type": "text"}', "#/type"),
        ("json_schema", '{"type": "object", "properties": {"a": {"not": {}}}}', "not"),
        ("json_schema", '{"$ref": "https://example.com/schema"}', "leads out"),
        ("json_schema", '{"type": "array", "uniqueItems": true}', "uniqueItems"),
        ("regex", "(unclosed", "regex"),
        ("ebnf", "root ::= missing", "missing"),
        ("structural_tag", "[]", "format"),
    ],
)
def test_what_cannot_be_enforced_is_refused_with_the_reason(
    engine: Engine, kind: Kind, source: str, why: str
) -> None:
    with pytest.raises(InvalidRequestError, match=why) as refused:
        engine.generate("Hello", greedy(grammar=Grammar(kind=kind, source=source)))
    assert refused.value.status == 400
    assert engine.generate("Hello", greedy(max_tokens=3))[0].finish_reason == "length"


def test_an_unknown_engine_stops_the_start() -> None:
    with pytest.raises(ConfigError, match="llguidance"):
        Engine(config(grammar_engine="yacc"))


def test_a_served_engine_compiles_beside_its_steps_and_forgets_what_was_aborted() -> None:
    many = {"enum": [f"value {i}" for i in range(8000)]}

    async def scenario() -> None:
        async with AsyncEngine(config()) as engine:
            slow = engine.generate("Hello", greedy(grammar=schema(many)))
            waiting = asyncio.ensure_future(anext(slow))
            free = [o async for o in engine.generate("Hello", greedy(max_tokens=5))]
            assert free[-1].completion_tokens == 5
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
            with pytest.raises(InvalidRequestError, match="uniqueItems"):
                await anext(engine.generate("Hello", greedy(grammar=schema({"uniqueItems": True}))))
            held = [o async for o in engine.generate("Hello", greedy(grammar=schema(WORD)))]
            assert json.loads("".join(o.text for o in held)) in WORD["enum"]
            again = [o async for o in engine.generate("Hello", greedy(grammar=schema(many)))]
            assert json.loads("".join(o.text for o in again)) in many["enum"]
            stats = await engine.stats()
            assert stats.running == stats.waiting == stats.kv_pages_used == 0

    asyncio.run(scenario())


@pytest.mark.parametrize("name", ENGINES)
def test_a_model_that_names_no_end_is_held_to_nothing(tmp_path: Path, name: str) -> None:
    shutil.copytree(MODEL, tmp_path, dirs_exist_ok=True)
    for file in ("config.json", "generation_config.json", "tokenizer_config.json"):
        values = json.loads((tmp_path / file).read_text())
        values = {key: value for key, value in values.items() if not key.startswith("eos_token")}
        (tmp_path / file).write_text(json.dumps(values))
    (tmp_path / "special_tokens_map.json").unlink(missing_ok=True)
    with Engine(dataclasses.replace(config(grammar_engine=name), model=str(tmp_path))) as engine:
        with pytest.raises(InvalidRequestError, match=r"set eos_token_id in its generation_config"):
            engine.generate("Hello", greedy(grammar=schema(WORD)))
        assert engine.generate("Hello", greedy(max_tokens=3))[0].finish_reason == "length"
