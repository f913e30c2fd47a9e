"""OpenAI's API on the bundled model, each answer against another way to compute it."""

from __future__ import annotations

import asyncio
import json
import math
import re
from typing import Annotated, Any, Literal

import numpy as np
import openai
import pytest
from pydantic import BaseModel, Field

from .process import ServerProcess

CHAT, COMPLETIONS, RESPONSES = "/v1/chat/completions", "/v1/completions", "/v1/responses"
QUESTION = "What is the capital of Spain?"


def messages(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def tokens_of(server: ServerProcess, body: dict[str, Any]) -> list[int]:
    return server.post("/v1/tokenize", body)["tokens"]


def continued(server: ServerProcess, ids: list[int], **options: Any) -> Any:
    (choice,) = server.post(COMPLETIONS, {"prompt": ids, **options})["choices"]
    return choice


def events(server: ServerProcess, path: str, body: dict[str, Any]) -> list[dict[str, Any]]:
    status, text = server.ask("POST", path, {**body, "stream": True})
    assert status == 200
    lines = [line.removeprefix("data: ") for line in text.split("\n") if line.startswith("data: ")]
    return [json.loads(line) for line in lines if line != "[DONE]"]


def test_an_echoed_prompt_has_the_log_probabilities_with_which_it_was_made(
    server: ServerProcess,
) -> None:
    prompt = tokens_of(server, {"messages": messages(QUESTION)})
    made = continued(server, prompt, temperature=0, max_tokens=6, logprobs=2)
    answer = tokens_of(server, {"prompt": made["text"], "add_special_tokens": False})[:6]
    told = continued(server, [*prompt, *answer], max_tokens=0, echo=True, logprobs=2)["logprobs"]
    assert told["token_logprobs"][0] is told["top_logprobs"][0] is None
    assert len(told["tokens"]) == len(prompt) + len(answer)
    at = len(prompt)
    assert told["tokens"][at:] == made["logprobs"]["tokens"][: len(answer)]
    assert told["token_logprobs"][at:] == pytest.approx(
        made["logprobs"]["token_logprobs"][: len(answer)], abs=1e-3
    )


def test_echo_puts_the_log_probabilities_of_prompt_and_answer_in_one_list(
    server: ServerProcess,
) -> None:
    options = {"max_tokens": 4, "temperature": 0, "echo": True, "logprobs": 1, "ignore_eos": True}
    (choice,) = server.post(COMPLETIONS, {"prompt": "The capital of", **options})["choices"]
    told = choice["logprobs"]
    shown = [
        (token, offset)
        for token, offset in zip(told["tokens"], told["text_offset"], strict=True)
        if not token.startswith("<|")
    ]
    assert "".join(token for token, _ in shown) == choice["text"]
    for token, offset in shown:
        assert choice["text"][offset:].startswith(token)
    streamed = events(server, COMPLETIONS, {"prompt": "The capital of", **options})
    joined = [t for e in streamed for c in e["choices"] for t in c["logprobs"]["tokens"]]
    assert joined == told["tokens"]


def test_best_of_gives_the_samples_that_are_likeliest_by_the_token(server: ServerProcess) -> None:
    body = {"prompt": "Once upon", "max_tokens": 8, "temperature": 1.5, "seed": 5}
    every = server.post(COMPLETIONS, {**body, "n": 6, "logprobs": 0})["choices"]
    means = [float(np.mean(choice["logprobs"]["token_logprobs"])) for choice in every]
    ranked = [every[i]["text"] for i in np.argsort(means)[::-1]]
    best = server.post(COMPLETIONS, {**body, "n": 2, "best_of": 6})
    assert [choice["text"] for choice in best["choices"]] == ranked[:2]
    assert [choice["index"] for choice in best["choices"]] == [0, 1]
    assert all(choice["logprobs"] is None for choice in best["choices"])
    assert best["usage"]["completion_tokens"] > 16


def test_a_decision_is_as_likely_as_its_answers_are(server: ServerProcess) -> None:
    """The oracle scores whole prompts, one for each answer."""
    cities = ["Madrid", "Paris", "Parma"]
    question = {
        "type": "choice",
        "instructions": QUESTION,
        "choices": [{"value": city} for city in cities],
    }
    told = server.post("/v1/decisions", {"input": "About cities.", "questions": [question]})
    (answer,) = told["answers"]
    asked = f"About cities.\n\n{QUESTION}\nAnswer with one of these alone:\n" + "\n".join(
        f"- {city}" for city in cities
    )
    prompt = tokens_of(server, {"messages": messages(asked)})
    ends = tokens_of(server, {"prompt": "<|im_end|>", "add_special_tokens": False})
    spelled = [tokens_of(server, {"prompt": c, "add_special_tokens": False}) for c in cities]
    assert len({tuple(ids) for ids in spelled}) == len(cities)
    found = [p["probability"] for p in answer["probabilities"]]
    assert sum(found) == pytest.approx(1.0)
    assert answer["choice"] == cities[int(np.argmax(found))]
    # Answers that share no first token are as likely as these tokens are among each other.
    firsts = {ids[0] for ids in spelled}
    if len(firsts) == len(cities):
        scores = []
        for ids in spelled:
            echoed = continued(server, [*prompt, *ids, *ends], max_tokens=0, echo=True, logprobs=0)
            scores.append(echoed["logprobs"]["token_logprobs"][len(prompt)])
        weights = [math.exp(score) for score in scores]
        expected = [weight / sum(weights) for weight in weights]
        assert found == pytest.approx(expected, abs=1e-3)


def test_a_conversation_of_responses_remembers(server: ServerProcess) -> None:
    with server.openai() as client:
        model = client.models.list().data[0].id
        first = client.responses.create(model=model, input=QUESTION, temperature=0)
        second = client.responses.create(
            model=model, input="And of France?", previous_response_id=first.id, temperature=0
        )
        turns = [
            {"role": "user", "content": QUESTION},
            {"role": "assistant", "content": first.output_text},
            {"role": "user", "content": "And of France?"},
        ]
        chat: Any = client.chat.completions.create(model=model, messages=turns, temperature=0)
    assert second.output_text == chat.choices[0].message.content
    assert second.usage.input_tokens == chat.usage.prompt_tokens
    assert "Madrid" in first.output_text


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("path", [CHAT, COMPLETIONS, RESPONSES])
def test_a_seeded_stream_says_what_the_whole_answer_says(
    server: ServerProcess, path: str, seed: int
) -> None:
    body: dict[str, Any] = {"temperature": 1.2, "seed": seed}
    if path == RESPONSES:
        body |= {"input": "Tell me a story.", "max_output_tokens": 24}
        whole = server.post(path, body)["output"][0]["content"][0]["text"]
        streamed = "".join(
            e["delta"] for e in events(server, path, body) if e["type"].endswith(".delta")
        )
    elif path == CHAT:
        body |= {"messages": messages("Tell me a story."), "max_tokens": 24}
        whole = server.post(path, body)["choices"][0]["message"]["content"]
        streamed = "".join(e["choices"][0]["delta"]["content"] for e in events(server, path, body))
    else:
        body |= {"prompt": "A story: ", "max_tokens": 24}
        whole = server.post(path, body)["choices"][0]["text"]
        streamed = "".join(e["choices"][0]["text"] for e in events(server, path, body))
    assert whole
    assert streamed == whole


def test_openais_asynchronous_client_gets_many_streams_at_once(server: ServerProcess) -> None:
    async def ask(client: openai.AsyncOpenAI, model: str, number: int) -> str:
        text = f"What is {number} + {number}?"
        stream = await client.chat.completions.create(
            model=model, messages=messages(text), temperature=0, stream=True
        )
        return "".join([chunk.choices[0].delta.content async for chunk in stream])

    async def ask_all() -> list[str]:
        url = f"http://127.0.0.1:{server.port}/v1"
        async with openai.AsyncOpenAI(base_url=url, api_key="none") as client:
            model = (await client.models.list()).data[0].id
            return list(await asyncio.gather(*(ask(client, model, i) for i in range(1, 9))))

    answers = asyncio.run(ask_all())
    for number, answer in enumerate(answers, 1):
        alone = server.post(
            CHAT, {"messages": messages(f"What is {number} + {number}?"), "temperature": 0}
        )
        assert answer == alone["choices"][0]["message"]["content"]


class Trip(BaseModel):
    city: Literal["Rome", "Oslo"]
    days: Annotated[int, Field(ge=1, le=9)]
    by: list[Literal["train", "boat"]] = Field(min_length=1, max_length=2)


TOOL = {
    "type": "function",
    "function": {"name": "book", "parameters": Trip.model_json_schema()},
}
CLOCK = {"type": "function", "function": {"name": "clock"}}


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_every_sample_fits_its_schema_however_hot_it_is(server: ServerProcess, seed: int) -> None:
    with server.openai() as client:
        answer = client.chat.completions.parse(
            model=client.models.list().data[0].id,
            messages=messages("Where to?"),
            response_format=Trip,
            temperature=1.9,
            seed=seed,
            n=4,
        )
    for choice in answer.choices:
        assert choice.finish_reason == "stop"
        assert isinstance(choice.message.parsed, Trip)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", [CHAT, RESPONSES])
def test_calls_fit_the_schemas_of_their_tools(
    server: ServerProcess, path: str, stream: bool
) -> None:
    with server.openai() as client:
        model = client.models.list().data[0].id
        for seed in range(3):
            options: dict[str, Any] = {"model": model, "temperature": 1.9}
            if path == RESPONSES:
                options |= {"input": "Where to?", "tool_choice": "required"}
                options["tools"] = [
                    {"type": "function", **tool["function"]} for tool in (TOOL, CLOCK)
                ]
                options["extra_body"] = {"seed": seed}
                if stream:
                    with client.responses.stream(**options) as events_:
                        response: Any = events_.until_done().get_final_response()
                else:
                    response = client.responses.create(**options)
                made = [(item.name, item.arguments) for item in response.output]
            else:
                options |= {"messages": messages("Where to?"), "tools": [TOOL, CLOCK], "seed": seed}
                options["tool_choice"] = "required"
                if stream:
                    with client.chat.completions.stream(**options) as chunks:
                        choice: Any = chunks.until_done().get_final_completion().choices[0]
                else:
                    choice = client.chat.completions.create(**options).choices[0]
                assert choice.finish_reason == "tool_calls"
                made = [(c.function.name, c.function.arguments) for c in choice.message.tool_calls]
            assert made
            for name, arguments in made:
                if name == "book":
                    Trip.model_validate_json(arguments)
                else:
                    assert (name, json.loads(arguments)) == ("clock", {})


def test_a_named_tool_is_called_once(server: ServerProcess) -> None:
    choice = {"type": "function", "function": {"name": "book"}}
    body = {"messages": messages("Hi"), "tools": [TOOL, CLOCK], "tool_choice": choice}
    (call,) = server.post(CHAT, {**body, "seed": 1})["choices"][0]["message"]["tool_calls"]
    assert call["function"]["name"] == "book"


@pytest.mark.parametrize("seed", range(4))
def test_beside_tools_an_answer_is_a_call_or_fits_its_format(
    server: ServerProcess, seed: int
) -> None:
    format = {"type": "json_schema", "json_schema": {"schema": Trip.model_json_schema()}}
    body = {"messages": messages("Where to?"), "tools": [CLOCK], "response_format": format}
    answer = server.post(CHAT, {**body, "temperature": 1.9, "seed": seed})
    message = answer["choices"][0]["message"]
    if "tool_calls" not in message:
        Trip.model_validate_json(message["content"])


def test_a_constraint_holds_beside_log_probabilities_and_stops(server: ServerProcess) -> None:
    body = {"prompt": "It was ", "max_tokens": 30, "logprobs": 1, "n": 2, "temperature": 1.9}
    pattern = "[0-9]{4}-[0-9]{2}-[0-9]{2}"
    for choice in server.post(COMPLETIONS, {**body, "regex": pattern})["choices"]:
        assert re.fullmatch(pattern, choice["text"])
        assert "".join(choice["logprobs"]["tokens"]).startswith(choice["text"])
    for choice in server.post(COMPLETIONS, {**body, "regex": pattern, "stop": "-"})["choices"]:
        assert re.fullmatch("[0-9]{4}", choice["text"])


def test_what_cannot_be_held_to_is_refused_with_the_reason(server: ServerProcess) -> None:
    format = {"type": "json_schema", "json_schema": {"schema": {"type": "nonsense"}}}
    for stream in (False, True):
        body = {"messages": messages("Hi"), "response_format": format, "stream": stream}
        status, answer = server.ask("POST", CHAT, body)
        assert status == 400
        assert "nonsense" in answer["error"]["message"]


def test_an_answer_ends_where_a_pattern_matches(server: ServerProcess) -> None:
    body = {"prompt": "1, 2, 3, 4, ", "max_tokens": 60, "seed": 1, "ignore_eos": True}
    free = continued(server, body.pop("prompt"), **body)["text"]
    pattern = re.escape(free[10:14])
    cut = continued(server, "1, 2, 3, 4, ", **body, stop_regex=[pattern], priority=3)
    end = re.search(pattern, free)
    assert end is not None
    assert (cut["finish_reason"], cut["text"]) == ("stop", free[: end.start()])
