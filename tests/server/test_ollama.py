"""/api/chat and the rest, as Ollama's own client understands them."""

from __future__ import annotations

import asyncio
import json
import time
from datetime import UTC, datetime
from typing import Any

import msgspec
import ollama
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from .harness import Server, messages
from .standin import StandIn
from .talking import CLOCK, WEATHER, call, talker

CHAT, GENERATE = "/api/chat", "/api/generate"
ASK: dict[str, Any] = {"model": "standin", "messages": messages("Hi")}
PROMPT = "user: Hi\nassistant: "  # what the stand-in's template makes of ASK
THOUGHT = "<think>\nHm, hm.\n</think>\n\n"


def client(server: Server) -> ollama.Client:
    return server.closing.enter_context(ollama.Client(host=server.url))


def lines(server: Server, path: str, body: dict[str, Any]) -> list[dict[str, Any]]:
    """Those of a stream, of which the last one alone is done."""
    answer = server.post(path, body)
    assert answer.status == 200, answer.body
    assert answer.headers["Content-Type"] == "application/x-ndjson"
    *texts, rest = answer.body.decode().split("\n")
    assert rest == ""
    found = [json.loads(text) for text in texts]
    assert [line["done"] for line in found] == [False] * (len(found) - 1) + [True]
    return found


def test_an_answer_has_a_message_counts_and_durations(server: Server) -> None:
    before = datetime.now(UTC)
    answer = client(server).chat(**ASK)
    assert (answer.model, answer.done, answer.done_reason) == ("standin", True, "stop")
    assert (answer.message.role, answer.message.content) == ("assistant", PROMPT)
    assert answer.message.thinking is answer.message.tool_calls is None
    assert (answer.prompt_eval_count, answer.eval_count) == (len(PROMPT), len(PROMPT) + 1)
    assert before <= datetime.fromisoformat(answer.created_at) <= datetime.now(UTC)


def test_durations_are_nanoseconds_of_what_they_say() -> None:
    engine = StandIn()
    engine.delay_s = 0.05  # before every token
    with Server(engine) as server:
        begun = time.perf_counter()
        answer = client(server).chat(**ASK, options={"num_predict": 4})
        seconds = time.perf_counter() - begun
    assert answer.prompt_eval_duration >= 0.05e9
    assert answer.eval_duration >= 3 * 0.05e9
    assert answer.prompt_eval_duration + answer.eval_duration <= answer.total_duration + 2
    assert answer.total_duration <= seconds * 1e9
    assert answer.load_duration == 0


def test_a_stream_is_lines_and_the_last_one_counts(server: Server) -> None:
    parts = list(client(server).chat(**ASK, stream=True))
    assert "".join(part.message.content for part in parts) == PROMPT
    assert [part.done for part in parts] == [False] * (len(parts) - 1) + [True]
    last = parts[-1]
    assert (last.message.content, last.done_reason) == ("", "stop")
    assert (last.prompt_eval_count, last.eval_count) == (len(PROMPT), len(PROMPT) + 1)
    assert all(part.eval_count is None for part in parts[:-1])


def test_what_says_nothing_of_a_stream_is_one(server: Server) -> None:
    assert len(lines(server, CHAT, ASK)) > 1
    assert server.post(CHAT, ASK | {"stream": False}).json["done"] is True


def test_the_async_client_does_the_same(server: Server) -> None:
    async def ask() -> tuple[str, str]:
        async with ollama.AsyncClient(host=server.url) as cli:
            whole = await cli.chat(**ASK)
            parts = [part async for part in await cli.chat(**ASK, stream=True)]
        return whole.message.content, "".join(part.message.content for part in parts)

    assert asyncio.run(ask()) == (PROMPT, PROMPT)


@pytest.mark.parametrize("stream", [False, True])
def test_thinking_and_calls_come_apart_from_content(stream: bool) -> None:
    # The prompt begins the reasoning, so that calls are held to their schemas behind it.
    says = THOUGHT.removeprefix("<think>\n") + "I look."
    says += call("weather", city="Köln") + call("clock")
    asked = {**ASK, "tools": [WEATHER, CLOCK]}
    with Server(talker(says, reasons=True)) as server:
        if stream:
            parts = [part.message for part in client(server).chat(**asked, stream=True)]
        else:
            parts = [client(server).chat(**asked).message]
    assert "".join(part.content for part in parts) == "I look."
    assert "".join(part.thinking or "" for part in parts).strip() == "Hm, hm."
    calls = [call.function for part in parts for call in part.tool_calls or ()]
    assert [(call.name, call.arguments) for call in calls] == [
        ("weather", {"city": "Köln"}),
        ("clock", {}),
    ]


def weather(city: str) -> str:
    """Tell the weather.

    Args:
        city: of which
    """
    return f"sunny in {city}"


def test_a_tool_loop_goes_round_with_python_functions() -> None:
    with Server(talker(call("weather", city="Rome"))) as server:
        cli = client(server)
        first = cli.chat(**ASK, tools=[weather])
        (made,) = first.message.tool_calls
        result = weather(**made.function.arguments)
        said = [*ASK["messages"], first.message]
        said.append({"role": "tool", "tool_name": "weather", "content": result})
        server.engine.says = "Sunny."
        second = cli.chat(model="standin", messages=said, tools=[weather])
        prompt = bytes(server.engine.asked[-1][0]).decode()
    assert "assistant: [weather Rome]\ntool: sunny in Rome\nassistant: " in prompt
    assert (second.message.content, second.done_reason) == ("Sunny.", "stop")


def told(said: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The messages that the chat template gets."""
    template = "{% for m in messages %}{{ m | tojson }}\n{% endfor %}{% if tools %}{% endif %}"
    with Server(talker("Yes.", template=template)) as server:
        answer = server.post(CHAT, ASK | {"messages": said})
        assert answer.status == 200, answer.body
        prompt = bytes(server.engine.asked[-1][0]).decode()
    return [json.loads(line) for line in prompt.splitlines()]


def test_results_find_their_calls_by_id_by_name_or_in_their_order() -> None:
    calls = [
        {"function": {"name": "a", "arguments": {}}},
        {"function": {"name": "b", "arguments": {"x": 1}}},
        {"id": "mine", "function": {"name": "c", "arguments": {}}},
        {"function": {"name": "a", "arguments": {}}},
    ]
    results = [
        {"role": "tool", "content": "1", "tool_call_id": "mine"},
        {"role": "tool", "content": "2", "tool_name": "b"},
        {"role": "tool", "content": "3"},
        {"role": "tool", "content": "4"},
        {"role": "tool", "content": "5", "tool_name": "z"},
    ]
    asking = {"role": "assistant", "content": "", "thinking": "Hm.", "tool_calls": calls}
    _, asked, *answered = told([*messages("Hi"), asking, *results])
    assert asked["reasoning_content"] == "Hm."
    ids = [call["id"] for call in asked["tool_calls"]]
    assert len(set(ids)) == 4
    assert ids[2] == "mine"
    assert asked["tool_calls"][1]["function"] == {"name": "b", "arguments": {"x": 1}}
    assert [message.get("tool_call_id") for message in answered] == [
        "mine",
        ids[1],
        ids[0],
        ids[3],
        None,
    ]
    assert [message["name"] for message in answered] == ["c", "b", "a", "a", "z"]


@pytest.mark.parametrize(
    ("format", "kind", "source"),
    [
        ("json", "json_object", ""),
        ({"type": "object"}, "json_schema", '{"type":"object"}'),
        ({}, "json_schema", "{}"),
        ("", None, None),
        (None, None, None),
    ],
)
@pytest.mark.parametrize("path", [CHAT, GENERATE])
def test_an_answer_is_held_to_its_format(
    path: str, format: Any, kind: str | None, source: str | None
) -> None:
    body = {**ASK, "prompt": "Hi", "format": format, "stream": False}
    with Server(talker("{}")) as server:
        assert server.post(path, body).status == 200
        grammar = server.engine.asked[-1][1].grammar
    assert (grammar and grammar.kind, grammar and grammar.source) == (kind, source)


def test_options_are_sampling_parameters_in_other_words(server: Server) -> None:
    options = ollama.Options(
        num_predict=7,
        temperature=0.5,
        top_k=0,
        top_p=0.9,
        seed=3,
        stop=["a", "b"],
        repeat_penalty=1.2,
        presence_penalty=0.1,
        frequency_penalty=0.2,
        num_ctx=2048,
        num_gpu=1,
        mirostat=0,
        repeat_last_n=-1,
    )
    client(server).chat(**ASK, options=options, keep_alive="5m")
    params = server.engine.asked[-1][1]
    assert (params.max_tokens, params.temperature, params.top_k) == (7, 0.5, -1)
    assert (params.top_p, params.seed, params.stop) == (0.9, 3, ("a", "b"))
    assert params.repetition_penalty == 1.2
    assert (params.presence_penalty, params.frequency_penalty) == (0.1, 0.2)
    client(server).chat(**ASK, options={"num_predict": -2, "seed": -1, "min_p": 0.2})
    params = server.engine.asked[-1][1]
    assert (params.max_tokens, params.seed, params.min_p) == (None, None, 0.2)


@pytest.mark.parametrize(
    ("think", "switch"),
    [(None, ""), (True, "True"), (False, "False none"), ("low", "True low")],
)
def test_think_reaches_the_template(think: Any, switch: str) -> None:
    template = (
        "{% if messages %}x{% endif %}{{ enable_thinking if enable_thinking is defined }}"
        "{% if reasoning_effort is defined %} {{ reasoning_effort }}{% endif %}"
    )
    with Server(talker("Yes.", reasons=True, template=template)) as server:
        client(server).chat(**ASK, think=think)
        client(server).generate(model="standin", prompt="Hi", think=think)
        prompts = [bytes(ids).decode() for ids, _ in server.engine.asked]
    assert prompts == ["x" + switch] * 2


def test_a_model_that_cannot_think_says_so(server: Server) -> None:
    with pytest.raises(ollama.ResponseError, match="think 'on' cannot be honoured") as caught:
        client(server).chat(**ASK, think=True)
    assert caught.value.status_code == 400
    client(server).chat(**ASK, think=False)


def test_generate_answers_a_prompt_through_the_template(server: Server) -> None:
    answer = client(server).generate(model="standin", prompt="Hi")
    assert (answer.response, answer.done_reason) == (PROMPT, "stop")
    assert (answer.prompt_eval_count, answer.eval_count) == (len(PROMPT), len(PROMPT) + 1)
    parts = list(client(server).generate(model="standin", prompt="Hi", stream=True))
    assert "".join(part.response for part in parts) == PROMPT
    assert parts[-1].eval_count == len(PROMPT) + 1


def test_generate_puts_a_system_prompt_first() -> None:
    with Server(talker()) as server:
        answer = client(server).generate(model="standin", prompt="Hi", system="Be brief.")
    assert answer.response == "system: Be brief.\nuser: Hi\nassistant: "


def test_generate_reads_a_raw_prompt_as_it_is() -> None:
    with Server(talker(reasons=True)) as server:
        prompt = "<think>one</think>two"
        answer = client(server).generate(model="standin", prompt=prompt, raw=True)
        assert server.engine.asked[-1][0] == list(prompt.encode())
    assert (answer.response, answer.thinking) == (prompt, None)


def test_generate_tells_thinking_apart() -> None:
    with Server(talker(THOUGHT + "Yes.", reasons=True)) as server:
        answer = client(server).generate(model="standin", prompt="Hi")
        parts = list(client(server).generate(model="standin", prompt="Hi", stream=True))
    assert (answer.response, answer.thinking.strip()) == ("Yes.", "Hm, hm.")
    assert "".join(part.thinking or "" for part in parts) == answer.thinking


def test_log_probabilities_come_with_the_lines_of_their_tokens(server: Server) -> None:
    asked = {**ASK, "logprobs": True, "top_logprobs": 1, "options": {"num_predict": 5}}
    whole = client(server).chat(**asked)
    parts = list(client(server).chat(**asked, stream=True))
    assert [entry.token for entry in whole.logprobs] == list(PROMPT[:5])
    assert whole.logprobs[0].logprob == -0.5
    assert whole.logprobs[0].top_logprobs[0].token == PROMPT[0]
    streamed = [entry for part in parts for entry in part.logprobs or ()]
    assert streamed == list(whole.logprobs)


@pytest.mark.parametrize("stream", [False, True])
def test_nothing_to_say_loads_a_model_that_is_there(server: Server, stream: bool) -> None:
    chat = client(server).chat(model="standin", messages=[], stream=stream)
    said = client(server).generate(model="standin", prompt="", keep_alive=0, stream=stream)
    (chat,), (said,) = (list(chat), list(said)) if stream else ([chat], [said])
    assert (chat.done_reason, chat.message.content) == ("load", "")
    assert (said.done_reason, said.response) == ("unload", "")
    assert server.engine.asked == []


def test_a_name_may_have_the_tag_latest_or_not() -> None:
    for name, asked in (("m", "m"), ("m", "m:latest"), ("m:latest", "m:latest"), ("a:7b", "a:7b")):
        with Server(StandIn(name=name)) as server:
            assert client(server).chat(model=asked, messages=messages("Hi")).model == asked
            assert client(server).show(asked).modified_at
    with Server(StandIn(name="a:7b")) as server:
        for asked in ("a", "a:latest", "b"):
            with pytest.raises(ollama.ResponseError, match="is not served here") as caught:
                client(server).chat(model=asked, messages=messages("Hi"))
            assert caught.value.status_code == 404


def test_the_model_is_listed_shown_and_runs(tmp_path: Any) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"x" * 98)
    engine = talker(reasons=True)
    engine.info = msgspec.structs.replace(
        engine.info, path=str(tmp_path), memory={"weights": 70, "kv": 30}
    )
    with Server(engine) as server:
        (listed,) = client(server).list().models
        (running,) = client(server).ps().models
        shown = client(server).show("standin")
        version = server.get("/api/version").json["version"]
        (tmp_path / "config.json").write_text("[]  ")
        (changed,) = client(server).list().models
    assert (listed.model, int(listed.size)) == ("standin", 100)
    assert listed.details.quantization_level == "float32"
    assert (running.model, running.context_length) == ("standin", 2048)
    assert (int(running.size_vram), running.digest) == (100, listed.digest)
    assert changed.digest != listed.digest
    assert shown.capabilities == ["completion", "tools", "thinking"]
    assert shown.modelinfo["none.context_length"] == 2048
    assert "messages" in shown.template
    assert [part.isdigit() for part in version.partition("+")[0].split(".")] == [True] * 3


def test_a_call_that_num_predict_cuts_has_what_there_is_of_its_arguments() -> None:
    says = call("weather", city="Berlin", wind=True)
    options = {"num_predict": says.index(', "wind')}
    with Server(talker(says)) as server:
        answer = client(server).chat(**ASK, tools=[WEATHER], options=options)
    assert answer.done_reason == "length"
    assert answer.message.tool_calls[0].function.arguments == {"city": "Berlin"}


WORDS = st.sampled_from(
    [
        "Hm",
        " ",
        "é",
        "💡",
        "\n",
        "<think>",
        "</think>",
        "<tool",
        call("clock"),
        "x</tool_call>",
        '{"',
    ]
)


@pytest.fixture(scope="module")
def talking() -> Any:
    with Server(talker("", reasons=True)) as server:
        yield server


@settings(deadline=None, max_examples=60)
@given(words=st.lists(WORDS, max_size=8), most=st.integers(1, 120))
def test_a_stream_says_what_the_whole_answer_says(
    talking: Server, words: list[str], most: int
) -> None:
    talking.engine.says = "".join(words)
    body = {**ASK, "tools": [WEATHER, CLOCK], "options": {"num_predict": most, "stop": "Hm \n"}}
    whole = talking.post(CHAT, body | {"stream": False}).json
    streamed = lines(talking, CHAT, body)
    for field in ("content", "thinking"):
        said = "".join(line["message"].get(field, "") for line in streamed)
        assert said == whole["message"].get(field, "")
    calls = [call for line in streamed for call in line["message"].get("tool_calls", ())]
    made = [call["function"] for call in calls]
    assert made == [call["function"] for call in whole["message"].get("tool_calls", ())]
    for field in ("done_reason", "prompt_eval_count", "eval_count"):
        assert streamed[-1][field] == whole[field]
