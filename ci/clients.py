"""Ask a running server through the clients that people use: plainly, streamed, for a class, with a tool.

    pip install 'inarch[clients]'    # in an environment of its own: some bring another openai along
    inarch serve & python ci/clients.py http://localhost:8000 inarch-tiny

Each client is a function that does four things with its own library alone, and says after each what
came of it. All ask one model one question, and leave nothing to chance: their answers must be equal.
"""

from __future__ import annotations

import importlib.metadata
import json
import sys
import traceback
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel

QUESTION = "What is the capital of Spain?"
MESSAGES: list[Any] = [{"role": "user", "content": QUESTION}]
WORDS = 60  # tokens
KINDS = ("plain", "streamed", "structured", "tools")


class Place(BaseModel):
    """Where it is."""

    city: Literal["Rome", "Oslo"]


SCHEMA = {**Place.model_json_schema(), "additionalProperties": False}
TOOL = {"type": "function", "function": {"name": "weather", "parameters": SCHEMA}}
SUNNY = "It is sunny."


@dataclass(frozen=True)
class Server:
    url: str
    model: str

    @property
    def v1(self) -> str:
        return self.url + "/v1"


# A client yields a text, the same text from a stream, a Place, and the Place that its tool was called
# with followed by what the model said of the weather there.
Results = Iterator[Any]


def openai_chat(server: Server) -> Results:
    import openai

    client = openai.OpenAI(base_url=server.v1, api_key="any", max_retries=0)
    chat: Any = client.chat.completions
    asked: dict[str, Any] = {"model": server.model, "temperature": 0, "max_tokens": WORDS}
    yield chat.create(**asked, messages=MESSAGES).choices[0].message.content
    with chat.stream(**asked, messages=MESSAGES) as stream:
        yield stream.get_final_completion().choices[0].message.content
    yield chat.parse(**asked, messages=MESSAGES, response_format=Place).choices[0].message.parsed
    asked["tools"] = [openai.pydantic_function_tool(Place, name="weather")]
    said = chat.parse(**asked, messages=MESSAGES, tool_choice="required").choices[0].message
    results = [{"role": "tool", "tool_call_id": c.id, "content": SUNNY} for c in said.tool_calls]
    last = chat.create(**asked, messages=[*MESSAGES, said, *results])
    yield said.tool_calls[0].function.parsed_arguments, last.choices[0].message.content


def openai_responses(server: Server) -> Results:
    import openai

    client = openai.OpenAI(base_url=server.v1, api_key="any", max_retries=0)
    asked: dict[str, Any] = {"model": server.model, "temperature": 0, "max_output_tokens": WORDS}
    responses: Any = client.responses
    yield responses.create(**asked, input=QUESTION).output_text
    with responses.stream(**asked, input=QUESTION) as stream:
        yield stream.get_final_response().output_text
    yield responses.parse(**asked, input=QUESTION, text_format=Place).output_parsed
    asked["tools"] = [{"type": "function", "name": "weather", "parameters": SCHEMA, "strict": True}]
    said = responses.parse(**asked, input=QUESTION, tool_choice="required")
    results = [
        {"type": "function_call_output", "call_id": call.call_id, "output": SUNNY}
        for call in said.output
    ]
    last = responses.create(**asked, input=results, previous_response_id=said.id)
    yield Place.model_validate_json(said.output[0].arguments), last.output_text


def anthropic(server: Server) -> Results:
    import anthropic

    client = anthropic.Anthropic(base_url=server.url, api_key="any", max_retries=0)
    # Its newer versions have no such argument; servers have.
    greedy = {"temperature": 0}
    asked: dict[str, Any] = {"model": server.model, "max_tokens": WORDS, "extra_body": greedy}
    messages: Any = client.messages
    yield messages.create(**asked, messages=MESSAGES).content[0].text
    with messages.stream(**asked, messages=MESSAGES) as stream:
        yield stream.get_final_text()
    yield messages.parse(**asked, messages=MESSAGES, output_format=Place).parsed_output
    asked["tools"] = [{"name": "weather", "input_schema": SCHEMA}]
    said = messages.create(**asked, messages=MESSAGES, tool_choice={"type": "any"}).content
    results = [
        {"type": "tool_result", "tool_use_id": use.id, "content": SUNNY}
        for use in said
        if use.type == "tool_use"
    ]
    turns = [{"role": "assistant", "content": said}, {"role": "user", "content": results}]
    last = messages.create(**asked, messages=[*MESSAGES, *turns])
    yield Place.model_validate(said[-1].input), last.content[0].text


def ollama(server: Server) -> Results:
    import ollama

    client = ollama.Client(host=server.url)
    options = {"temperature": 0, "num_predict": WORDS}
    asked: dict[str, Any] = {"model": server.model, "options": options}
    yield client.chat(**asked, messages=MESSAGES).message.content
    stream = client.chat(**asked, messages=MESSAGES, stream=True)
    yield "".join(part.message.content or "" for part in stream)
    shaped = client.chat(**asked, messages=MESSAGES, format=Place.model_json_schema())
    yield Place.model_validate_json(shaped.message.content or "")
    # Nothing can make a call come, so this one goes the way back alone.
    call = {"function": {"name": "weather", "arguments": {"city": "Oslo"}}}
    turns = [
        {"role": "assistant", "tool_calls": [call]},
        {"role": "tool", "tool_name": "weather", "content": SUNNY},
    ]
    last = client.chat(**asked, messages=[*MESSAGES, *turns], tools=[TOOL])
    yield Place(city="Oslo"), last.message.content


def litellm_as(provider: str, path: str, *, chooses: bool) -> Callable[[Server], Results]:
    """chooses: whether LiteLLM can tell this provider that a call must come."""

    def ask(server: Server) -> Results:
        import litellm

        asked: dict[str, Any] = {
            "model": f"{provider}/{server.model}",
            "api_base": server.url + path,
            "api_key": "any",
            "max_tokens": WORDS,
            "temperature": 0,
        }
        yield litellm.completion(**asked, messages=MESSAGES).choices[0].message.content
        chunks = litellm.completion(**asked, messages=MESSAGES, stream=True)
        yield "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
        shaped = litellm.completion(**asked, messages=MESSAGES, response_format=Place)
        yield Place.model_validate_json(shaped.choices[0].message.content)
        asked["tools"] = [TOOL]
        if chooses:
            said = litellm.completion(**asked, messages=MESSAGES, tool_choice="required")
            said = said.choices[0].message.model_dump(exclude_none=True)
        else:
            function = {"name": "weather", "arguments": '{"city": "Oslo"}'}
            call = {"id": "call_1", "type": "function", "function": function}
            said = {"role": "assistant", "content": "", "tool_calls": [call]}
        (call,) = said["tool_calls"]
        result = {"role": "tool", "tool_call_id": call["id"], "content": SUNNY}
        last = litellm.completion(**asked, messages=[*MESSAGES, said, result])
        place = Place.model_validate_json(call["function"]["arguments"])
        yield place, last.choices[0].message.content

    return ask


def langchain_by(api: str) -> Callable[[Server], Results]:
    def ask(server: Server) -> Results:
        from langchain_core.messages import HumanMessage, ToolMessage
        from langchain_core.tools import tool
        from langchain_openai import ChatOpenAI

        @tool
        def weather(city: Literal["Rome", "Oslo"]) -> str:
            """Tell the weather."""
            return SUNNY

        asked: dict[str, Any] = {"temperature": 0, "max_tokens": WORDS, "max_retries": 0}
        model: Any = ChatOpenAI(
            base_url=server.v1,
            api_key="any",
            model=server.model,
            use_responses_api=api == "responses",
            **asked,
        )
        yield model.invoke(QUESTION).text
        yield "".join(chunk.text for chunk in model.stream(QUESTION))
        yield model.with_structured_output(Place).invoke(QUESTION)
        said = model.bind_tools([weather], tool_choice="any").invoke(QUESTION)
        results: list[ToolMessage] = [weather.invoke(call) for call in said.tool_calls]
        last = model.bind_tools([weather]).invoke([HumanMessage(QUESTION), said, *results])
        yield Place.model_validate(said.tool_calls[0]["args"]), last.text

    return ask


def instructor(server: Server) -> Results:
    import instructor
    import openai

    plain = openai.OpenAI(base_url=server.v1, api_key="any", max_retries=0)
    asked: dict[str, Any] = {"model": server.model, "temperature": 0, "max_tokens": WORDS}
    asked["max_retries"] = 0
    client: Any = instructor.from_openai(plain, mode=instructor.Mode.JSON_SCHEMA)
    whole = client.create(**asked, messages=MESSAGES, response_model=None)
    yield whole.choices[0].message.content
    chunks = client.create(**asked, messages=MESSAGES, response_model=None, stream=True)
    yield "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    *_, place = client.create_partial(**asked, messages=MESSAGES, response_model=Place)
    shaped = client.create(**asked, messages=MESSAGES, response_model=Place)
    assert place.model_dump() == shaped.model_dump()
    yield shaped
    caller: Any = instructor.from_openai(plain, mode=instructor.Mode.TOOLS)
    place, said = caller.create_with_completion(**asked, messages=MESSAGES, response_model=Place)
    said = said.choices[0].message
    results = [{"role": "tool", "tool_call_id": c.id, "content": SUNNY} for c in said.tool_calls]
    turns = [*MESSAGES, said.model_dump(), *results]
    last = caller.create(**asked, messages=turns, response_model=None)
    yield place, last.choices[0].message.content


def pydantic_ai_by(api: str) -> Callable[[Server], Results]:
    def ask(server: Server) -> Results:
        from pydantic_ai import Agent, ModelSettings, NativeOutput
        from pydantic_ai.capabilities import AbstractCapability
        from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
        from pydantic_ai.providers.openai import OpenAIProvider

        class CallsFirst(AbstractCapability[Any]):
            def get_model_settings(self) -> Any:
                return lambda context: ModelSettings(
                    tool_choice="required" if context.run_step <= 1 else "auto"
                )

        provider = OpenAIProvider(base_url=server.v1, api_key="any")
        kind = OpenAIResponsesModel if api == "responses" else OpenAIChatModel
        model = kind(server.model, provider=provider)
        settings = ModelSettings(temperature=0, max_tokens=WORDS)
        agent: Any = Agent(model, model_settings=settings, retries=0)
        yield agent.run_sync(QUESTION).output
        yield agent.run_stream_sync(QUESTION).get_output()
        yield agent.run_sync(QUESTION, output_type=NativeOutput(Place)).output
        shaped = agent.run_sync(QUESTION, output_type=Place).output  # by a call
        assert isinstance(shaped, Place)
        places = []

        @agent.tool_plain
        def weather(city: Literal["Rome", "Oslo"]) -> str:
            """Tell the weather."""
            places.append(Place(city=city))
            return SUNNY

        last = agent.run_sync(QUESTION, capabilities=[CallsFirst()]).output
        yield places[0], last

    return ask


# What each is called, the package it needs, and the function that asks.
CLIENTS: tuple[tuple[str, str, Callable[[Server], Results]], ...] = (
    ("openai, chat", "openai", openai_chat),
    ("openai, responses", "openai", openai_responses),
    ("anthropic", "anthropic", anthropic),
    ("ollama", "ollama", ollama),
    ("litellm, openai", "litellm", litellm_as("openai", "/v1", chooses=True)),
    ("litellm, anthropic", "litellm", litellm_as("anthropic", "", chooses=True)),
    ("litellm, ollama", "litellm", litellm_as("ollama_chat", "", chooses=False)),
    ("langchain, chat", "langchain-openai", langchain_by("chat")),
    ("langchain, responses", "langchain-openai", langchain_by("responses")),
    ("instructor", "instructor", instructor),
    ("pydantic-ai, chat", "pydantic-ai-slim", pydantic_ai_by("chat")),
    ("pydantic-ai, responses", "pydantic-ai-slim", pydantic_ai_by("responses")),
)


def right(kind: str, result: Any, answer: str) -> bool:
    if kind in ("plain", "streamed"):
        return bool(result == answer)
    if kind == "structured":
        return isinstance(result, Place)
    place, said = result
    return isinstance(place, Place) and isinstance(said, str) and bool(said)


def try_client(ask: Callable[[Server], Results], server: Server, answer: str) -> list[str]:
    """Of each kind, whether it is right; of the first that fails, the reason, and none after it."""
    done: list[str] = []
    results = ask(server)
    for kind in KINDS:
        try:
            result = next(results)
            assert right(kind, result, answer), f"{kind}: {result!r} is not what was expected"
        except Exception:
            traceback.print_exc()
            return [*done, "FAILED"]
        done.append("ok")
    return done


def answer_of(server: Server) -> str:
    """What the server says to one who needs no client."""
    body = {"messages": MESSAGES, "temperature": 0, "max_tokens": WORDS}
    request = urllib.request.Request(
        f"{server.v1}/chat/completions",
        json.dumps(body).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request) as response:
        return str(json.load(response)["choices"][0]["message"]["content"])


def main(url: str, model: str) -> int:
    server = Server(url, model)
    answer = answer_of(server)
    rows = [("", "", *KINDS)]
    for name, package, ask in CLIENTS:
        try:
            version = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            rows.append((name, "not installed"))
            continue
        rows.append((name, version, *try_client(ask, server, answer)))
    for name, *cells in rows:
        print(f"{name:<24}" + "".join(f"{cell:<15}" for cell in cells).rstrip())
    return int(any("FAILED" in row for row in rows))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
