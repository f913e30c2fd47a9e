"""Anthropic's and Ollama's own clients on the bundled model, held to schemas by a real grammar engine."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Literal

import anthropic
import ollama
import pytest
from pydantic import BaseModel

from .process import ServerProcess

QUESTION = [{"role": "user", "content": "What is the capital of Spain?"}]
SEEDED = {"seed": 7, "temperature": 1.5}


class Answer(BaseModel):
    city: Literal["Madrid", "Paris"]
    sure: bool


TOOL: dict[str, Any] = {
    "name": "weather",
    "description": "Tell the weather",
    "input_schema": {
        "type": "object",
        "properties": {"city": {"type": "string", "enum": ["Rome", "Oslo"]}},
        "required": ["city"],
        "additionalProperties": False,
    },
}


@pytest.fixture(scope="module")
def claude(server: ServerProcess) -> Iterator[anthropic.Anthropic]:
    url = f"http://127.0.0.1:{server.port}"
    with anthropic.Anthropic(base_url=url, api_key="any", max_retries=0) as client:
        yield client


@pytest.fixture(scope="module")
def llama(server: ServerProcess) -> Iterator[ollama.Client]:
    with ollama.Client(host=f"http://127.0.0.1:{server.port}") as client:
        yield client


def ask(**further: Any) -> dict[str, Any]:
    return {"model": "inarch-tiny", "max_tokens": 60, "messages": QUESTION, **further}


def test_with_one_seed_a_stream_says_what_the_whole_answer_says(
    claude: anthropic.Anthropic, llama: ollama.Client
) -> None:
    whole = claude.messages.create(**ask(), extra_body=SEEDED)
    with claude.messages.stream(**ask(), extra_body=SEEDED) as stream:
        streamed = stream.get_final_message()
    assert whole.content[0].text == streamed.content[0].text != ""
    assert whole.usage.output_tokens == streamed.usage.output_tokens
    said = {"model": "inarch-tiny", "messages": QUESTION, "options": {**SEEDED, "num_predict": 60}}
    parts = list(llama.chat(**said, stream=True))
    text = "".join(part.message.content for part in parts)
    assert text == llama.chat(**said).message.content == whole.content[0].text
    assert parts[-1].eval_count == whole.usage.output_tokens


def test_the_prompt_has_as_many_tokens_as_were_counted_and_the_cache_keeps_them(
    claude: anthropic.Anthropic,
) -> None:
    long = [{"role": "user", "content": "Tell me of Rome. " * 40}]
    counted = claude.messages.count_tokens(model="inarch-tiny", messages=long).input_tokens
    warmed = claude.messages.create(**ask(messages=long, max_tokens=0))
    assert (warmed.content, warmed.usage.output_tokens) == ([], 0)
    assert warmed.usage.input_tokens + warmed.usage.cache_read_input_tokens == counted
    usage = claude.messages.create(**ask(messages=long)).usage
    assert usage.input_tokens + usage.cache_read_input_tokens == counted
    assert usage.cache_read_input_tokens > counted // 2


def test_an_answer_goes_on_from_what_it_was_begun_with(claude: anthropic.Anthropic) -> None:
    greedy = {"temperature": 0}
    whole = claude.messages.create(**ask(), extra_body=greedy).content[0].text
    begun = whole[: whole.index(" ", 5)]
    conversation = [*QUESTION, {"role": "assistant", "content": begun}]
    rest = claude.messages.create(**ask(messages=conversation), extra_body=greedy)
    assert begun + rest.content[0].text == whole


@pytest.mark.parametrize("choice", [{"type": "any"}, {"type": "tool", "name": "weather"}])
@pytest.mark.parametrize("stream", [False, True])
def test_a_call_that_must_come_fits_its_schema(
    claude: anthropic.Anthropic, choice: dict[str, Any], stream: bool
) -> None:
    asked = ask(tools=[TOOL], tool_choice=choice | {"disable_parallel_tool_use": True})
    if stream:
        with claude.messages.stream(**asked) as events:
            message = events.get_final_message()
    else:
        message = claude.messages.create(**asked)
    (use,) = message.content
    assert message.stop_reason == "tool_use"
    assert (use.name, use.input["city"] in ("Rome", "Oslo")) == ("weather", True)
    result = {"type": "tool_result", "tool_use_id": use.id, "content": "sunny"}
    conversation = [
        *QUESTION,
        {"role": "assistant", "content": message.content},
        {"role": "user", "content": [result]},
    ]
    last = claude.messages.create(**ask(tools=[TOOL], messages=conversation))
    assert last.content


def test_answers_fit_the_schema_they_were_asked_for(
    claude: anthropic.Anthropic, llama: ollama.Client
) -> None:
    assert isinstance(claude.messages.parse(**ask(), output_format=Answer).parsed_output, Answer)
    said = {"model": "inarch-tiny:latest", "options": {"num_predict": 200}}
    chat = llama.chat(**said, messages=QUESTION, format=Answer.model_json_schema())
    assert Answer.model_validate_json(chat.message.content)
    parts = llama.generate(**said, prompt="Spain?", format=Answer.model_json_schema(), stream=True)
    assert Answer.model_validate_json("".join(part.response for part in parts))
    free = llama.generate(**said, prompt="{}", format="json")
    assert free.response.startswith("{")
    if free.done_reason == "stop":  # no schema says that it must come to an end
        assert isinstance(json.loads(free.response), dict)


def test_tools_reach_the_model_of_ollamas_client(llama: ollama.Client) -> None:
    described = {name: TOOL[name] for name in ("name", "description")}
    function = {"type": "function", "function": described | {"parameters": TOOL["input_schema"]}}
    answer = llama.chat(model="inarch-tiny", messages=QUESTION, tools=[function])
    assert answer.done_reason == "stop"
    for call in answer.message.tool_calls or ():
        assert call.function.arguments["city"] in ("Rome", "Oslo")


def test_the_model_is_listed_with_its_size(llama: ollama.Client) -> None:
    (listed,) = llama.list().models
    (running,) = llama.ps().models
    assert (listed.model, running.context_length) == ("inarch-tiny", 2048)
    assert int(listed.size) > 1_000_000
    assert "completion" in llama.show("inarch-tiny").capabilities
