"""What other people's servers are asked, and how often."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

import inarch.lang as sgl
from inarch.errors import InvalidRequestError
from inarch.lang import Runtime, State

from .stand_in import Answer, Body, StandIn

pytestmark = pytest.mark.timeout(60)
CARD = "Name: Ann\nAge: 31\nJob: baker"


@sgl.function(num_api_spec_tokens=64)
def card(s: State) -> None:
    s += sgl.user("Make up somebody.")
    s += sgl.assistant("Name:" + sgl.gen("name", stop="\n") + "\nAge:" + sgl.gen("age", stop="\n"))
    s += sgl.user("Thanks.")
    s += sgl.assistant(sgl.gen("end"))


@sgl.function(num_api_spec_tokens=64)
def plain_card(s: State) -> None:
    s += "Make up somebody.\nName:" + sgl.gen("name", stop="\n")
    assert s["name"] == " Ann"  # reading does not wait for the message's end
    s += "\nAge:" + sgl.gen("age", stop=["b", "\n"]) + "\nJob:" + sgl.gen("job", stop="\n")


def chats(card_text: str) -> Callable[[Body], str]:
    return lambda body: card_text if len(body["messages"]) == 1 else "You are welcome."


def test_one_call_writes_all_gens_of_a_message() -> None:
    with StandIn(chats(CARD)) as server:
        backend = sgl.OpenAI("any", base_url=server.url)
        state = card.run(backend=backend, temperature=0.5)
        assert (state["name"], state["age"], state["end"]) == (" Ann", " 31", "You are welcome.")
        assert state.messages()[1]["content"] == "Name: Ann\nAge: 31"
        assert len(server.bodies) == 2
        assert backend.token_usage.completion_tokens == 2 * 3
        backend.token_usage.reset()
        assert backend.token_usage.prompt_tokens == 0
    first, second = server.bodies
    assert first["messages"] == [{"role": "user", "content": "Make up somebody."}]
    assert (first["max_tokens"], first["temperature"]) == (64, 0.5)
    assert "stop" not in first
    assert second["messages"][1]["content"] == "Name: Ann\nAge: 31"
    assert state.get_meta_info("name")["completion_tokens"] == 3
    assert state.get_meta_info("age")["completion_tokens"] == 0
    assert state.get_meta_info("age")["finish_reason"] == {"type": "stop", "matched": "\n"}


def test_calls_one_after_the_other_share_a_connection() -> None:
    with StandIn(chats(CARD)) as server:
        for model in ("any", "other"):
            card.run(backend=sgl.OpenAI(model, base_url=server.url))
        assert (len(server.bodies), server.connections) == (4, 1)


SCRIPT = """
import inarch.lang as sgl

@sgl.function
def plain(s):
    s += "Name:" + sgl.gen("name")

print(plain.run(backend=sgl.OpenAI("any", False, base_url={url!r}))["name"])
"""


def test_a_process_ends_quietly_with_connections_open() -> None:
    with StandIn(lambda body: " Ann") as server:
        script = [sys.executable, "-X", "dev", "-c", SCRIPT.format(url=server.url)]
        ended = subprocess.run(script, capture_output=True, text=True, timeout=60, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, " Ann\n", "")


def test_plain_text_is_written_ahead_too() -> None:
    with StandIn(lambda _: CARD.removeprefix("Name:")) as server:
        backend = sgl.OpenAI("any-instruct", base_url=server.url)
        state = plain_card.run(backend=backend)
    assert (state["age"], state["job"]) == (" 31", " baker")
    assert state.text().endswith(CARD)
    assert [body["prompt"] for body in server.bodies] == ["Make up somebody.\nName:"]


def alone(body: Body) -> str:
    """A model that keeps to no form, but continues a message one part at a time."""
    if "stop" not in body:
        return "Sure! " + CARD if len(body["messages"]) == 1 else "You are welcome."
    return {"Name:": " Bob", "Name: Bob\nAge:": " 9"}[body["messages"][-1]["content"]]


@pytest.mark.parametrize(("words", "tries"), [({}, 3), ({"seed": 1}, 1), ({"temperature": 0}, 1)])
def test_a_model_that_says_other_things_is_asked_again_and_then_gen_by_gen(
    words: dict[str, Any], tries: int
) -> None:
    with StandIn(alone) as server:
        state = card.run(backend=sgl.OpenAI("any", base_url=server.url), **words)
    assert (state["name"], state["age"]) == (" Bob", " 9")
    assert len(server.bodies) == 2 * (tries + 1) + 1


def test_what_the_program_says_differently_is_asked_for_anew() -> None:
    def written(body: Body) -> Answer:
        return (" Ann\nJob: b", "length") if body["prompt"].endswith("Name:") else (" 9", "stop")

    @sgl.function(num_api_spec_tokens=4)
    def other(s: State) -> None:
        s += "Name:" + sgl.gen("name", stop="\n") + "\nAge:" + sgl.gen("age", stop="\n")

    with StandIn(written) as server:
        state = other.run(backend=sgl.OpenAI("any-instruct", base_url=server.url))
    assert (state["name"], state["age"]) == (" Ann", " 9")
    assert [body["prompt"] for body in server.bodies] == ["Name:", "Name: Ann\nAge:"]


def test_a_gen_that_was_cut_off_is_asked_for_alone() -> None:
    def written(body: Body) -> Answer:
        return (" Annab", "length") if "stop" not in body else (" Annabel", "stop")

    with StandIn(written) as server:

        @sgl.function(num_api_spec_tokens=4)
        def short(s: State) -> None:
            s += "Name:" + sgl.gen("name", stop="\n")

        assert short.run(backend=sgl.OpenAI("x-instruct", base_url=server.url, is_chat_model=False),
                         temperature=0)["name"] == " Annabel"  # fmt: skip
    assert len(server.bodies) == 2


@pytest.mark.parametrize("more", [{"max_tokens": 4}, {"regex": "a"}, {"n": 2}, {"lora": "a"}])
def test_a_gen_that_says_more_of_its_end_has_a_call_of_its_own(more: dict[str, Any]) -> None:
    @sgl.function(num_api_spec_tokens=64)
    def held(s: State) -> None:
        s += "Name:" + sgl.gen("name", stop="\n") + "\nAge:" + sgl.gen("age", stop="\n", **more)

    with StandIn(lambda body: CARD[5:] if "stop" not in body else " 7") as server:
        backend = sgl.OpenAI("any-instruct", base_url=server.url)
        if "n" in more:  # the stand-in writes one
            with pytest.raises(sgl.ProgramError, match="before it was complete"):
                held.run(backend=backend)
        else:
            assert held.run(backend=backend)["age"] == " 7"
    assert len(server.bodies) == 2
    assert server.bodies[1]["stop"] == ["\n"]


def test_other_sampling_is_asked_for_anew() -> None:
    @sgl.function(num_api_spec_tokens=64)
    def cooler(s: State) -> None:
        s += "Name:" + sgl.gen("name", stop="\n")
        s += "\nAge:" + sgl.gen("age", stop="\n", temperature=0.1)

    with StandIn(lambda body: CARD[5:] if body["prompt"].endswith("Name:") else " 7") as server:
        state = cooler.run(backend=sgl.OpenAI("any-instruct", base_url=server.url))
    assert (state["name"], state["age"]) == (" Ann", " 7")
    assert server.bodies[1]["temperature"] == 0.1


def test_an_engine_is_asked_as_ever(runtime: Runtime) -> None:
    @sgl.function(num_api_spec_tokens=64)
    def two(s: State) -> None:
        s += "One" + sgl.gen("a", stop="e") + sgl.gen("b", max_tokens=2, ignore_eos=True)

    assert two.run(temperature=0)["a"] == two.bind().run(temperature=0, backend=runtime)["a"]
    with pytest.raises(InvalidRequestError, match="num_api_spec_tokens must be 1 or more"):
        sgl.function(num_api_spec_tokens=0)(lambda s: None)


def test_an_adapter_goes_where_the_api_has_it(runtime: Runtime) -> None:
    @sgl.function
    def adapted(s: State) -> None:
        s += sgl.user("Hi") + sgl.assistant(sgl.gen("a", 4, lora="poet"))

    with StandIn(lambda _: "ok") as server:
        adapted.run(backend=sgl.OpenAI("any", base_url=server.url))
        assert server.bodies[0]["lora_path"] == "poet"
        refusals = {
            runtime: "the engine has no adapters yet, so no 'poet'",
            sgl.Anthropic("any", base_url=server.url): "has no adapters",
        }
        for backend, told in refusals.items():
            with pytest.raises(sgl.ProgramError, match=rf"{told}.*in adapted"):
                adapted.run(backend=backend)
    assert len(server.bodies) == 1
    with pytest.raises(InvalidRequestError, match="lora does not go with them"):
        sgl.gen("a", choices=["x"], lora="poet")


def test_azure_has_its_own_address_and_header() -> None:
    with StandIn(lambda _: "ok") as server:
        backend = sgl.OpenAI(
            model_name="mine", is_azure=True, azure_endpoint=f"{server.url}/",
            api_version="2024-10-21", api_key="secret",
        )  # fmt: skip

        @sgl.function
        def asks(s: State) -> None:
            s += sgl.user("Hi") + sgl.assistant(sgl.gen("a"))

        assert asks.run(backend=backend)["a"] == "ok"
    assert server.paths == ["/openai/deployments/mine/chat/completions?api-version=2024-10-21"]
    headers = {name.lower(): value for name, value in server.headers[0].items()}
    assert headers["api-key"] == "secret"
    assert "authorization" not in headers
    assert re.match("application/json", headers["content-type"])
