"""Programs on servers: the native API, OpenAI's and Anthropic's, and one that breaks off."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any, Literal

import pytest

import inarch.lang as sgl
from inarch.lang import State
from inarch.lang.executors.executor import Executor
from inarch.lang.loop import submit

from .process import ServerProcess

PARIS, ROME = "The capital of France is Paris.", "The capital of Italy is Rome."


@pytest.fixture(scope="module")
def server() -> Iterator[ServerProcess]:
    with ServerProcess("--dtype", "float32") as server:
        yield server


@pytest.fixture(scope="module")
def url(server: ServerProcess) -> str:
    return f"http://127.0.0.1:{server.port}"


@pytest.fixture(scope="module")
def endpoint(url: str) -> sgl.RuntimeEndpoint:
    return sgl.RuntimeEndpoint(url)


@pytest.fixture(params=["native", "openai", "anthropic"])
def backend(request: pytest.FixtureRequest, url: str, endpoint: sgl.RuntimeEndpoint) -> Executor:
    model: str = endpoint._model
    return {
        "native": lambda: endpoint,
        "openai": lambda: sgl.OpenAI(model, base_url=f"{url}/v1"),
        "anthropic": lambda: sgl.Anthropic(model, base_url=url),
    }[request.param]()  # type: ignore[no-any-return]


@sgl.function
def capitals(s: State) -> None:
    s += sgl.system("You know all capitals.")
    s += sgl.user("What is the capital of France?")
    s += sgl.assistant(sgl.gen("first", max_tokens=32))
    s += sgl.user("What is the capital of Italy?")
    s += sgl.assistant("The capital" + sgl.gen("second", max_tokens=32, stop="."))


def test_a_conversation_is_the_same_through_every_api(backend: Executor) -> None:
    state = capitals.run(backend=backend, temperature=0, stream=True)
    assert "".join(state.text_iter("first")) == PARIS
    assert state["second"] == ROME.removeprefix("The capital").removesuffix(".")
    meta = state.get_meta_info("first")
    assert meta["completion_tokens"] > 4
    assert meta["prompt_tokens"] > 16


def test_what_a_server_refuses_names_the_line(backend: Executor) -> None:
    with pytest.raises(sgl.ProgramError, match=r"temperature.*in capitals"):
        capitals.run(backend=backend, temperature=-1.0)


@sgl.function
def exact(s: State) -> None:
    s += "The capital of France is "
    s += sgl.select("city", ["Paris.", "Rome."], choices_method=sgl.greedy_token_selection)
    s += sgl.gen("x", 4, regex="[a-z]{3}", return_logprob=True, top_logprobs_num=2)
    forks = s.fork(2)
    forks += sgl.gen("y", 2, n=2, seed=1, ignore_eos=True)
    forks.join()


def told(state: State) -> list[float]:
    """Log-probabilities of all choices, then of what was generated."""
    choices = state.get_meta_info("city")["input_token_logprobs"]
    entries = [*choices, state.get_meta_info("x")["output_token_logprobs"]]
    return [logprob for tokens in entries for logprob, _, _ in tokens]


def test_a_server_of_ours_tells_what_an_engine_tells(endpoint: sgl.RuntimeEndpoint) -> None:
    state = exact.run(backend=endpoint, temperature=0)
    with sgl.Runtime(dtype="float32") as runtime:
        other = exact.run(backend=runtime, temperature=0)
    assert state["x"].isalpha()
    assert (state["city"], state["x"]) == (other["city"], other["x"])
    assert told(state) == pytest.approx(told(other), abs=1e-3)
    assert len(state.get_meta_info("x")["output_top_logprobs"][0]) == 2
    assert [len(samples) for samples in state["y"]] == [2, 2]
    endpoint.flush_cache()
    assert endpoint.get_server_info()


@sgl.function
def turns(s: State) -> None:
    s += sgl.user("Write.")
    s += sgl.assistant(sgl.gen("first", 24, ignore_eos=True, seed=3))
    s += sgl.user("Go on.")
    s += sgl.assistant("Yes: " + sgl.gen("second", 4, ignore_eos=True, seed=3))


def test_what_the_model_wrote_stays_the_tokens_that_it_wrote(endpoint: sgl.RuntimeEndpoint) -> None:
    """So hot a model spells words as no tokenizer would."""
    state = turns.run(backend=endpoint, temperature=5.0)
    first, second = state.get_meta_info("first"), state.get_meta_info("second")
    again = submit(endpoint._tokenized(state["first"], special=False)).result()
    assert len(again) != first["completion_tokens"], "the test needs other tokens: another seed"
    before = first["prompt_tokens"] + first["completion_tokens"]
    assert second["cached_tokens"] > before - 16  # but for a page that is not full
    with sgl.Runtime(dtype="float32") as runtime:
        other = turns.run(backend=runtime, temperature=5.0)
    assert state.messages() == other.messages()
    assert second["prompt_tokens"] == other.get_meta_info("second")["prompt_tokens"]


Digit = Literal[1, 2, 3]  # a model as small as this may go on with digits for ever


def add(first: Digit, second: Digit) -> int:
    """Add two numbers."""
    return 5


def test_tools_are_called_over_the_chat_api(endpoint: sgl.RuntimeEndpoint) -> None:
    @sgl.function
    def sums(s: State) -> None:
        s += sgl.user("What is 2 + 3?")
        s += sgl.assistant(sgl.gen("sum", 64, tools=[add], tool_choice="required"))

    state = sums.run(backend=endpoint, temperature=0)
    (call, *_) = state.get_meta_info("sum")["tool_calls"]
    assert (call["name"], call["result"]) == ("add", "5")
    assert [message["role"] for message in state.messages()][:4] == [
        "user", "assistant", "tool", "assistant",
    ]  # fmt: skip


def test_reasoning_over_http_needs_messages(endpoint: sgl.RuntimeEndpoint) -> None:
    @sgl.function
    def thinks(s: State) -> None:
        s += "a" + sgl.separate_reasoning(sgl.gen("x", 4))

    with pytest.raises(sgl.ProgramError, match="of messages"):
        thinks.run(backend=endpoint)


class BreaksOff(BaseHTTPRequestHandler):
    """Answers with the beginning of a stream, and no more."""

    def do_POST(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b'data: {"choices": [{"index": 0, "delta": {"content": "The"}}]}\n\n')

    def log_message(self, *_: Any) -> None: ...


def test_a_server_that_breaks_off_or_is_not_there_is_an_error() -> None:
    with HTTPServer(("127.0.0.1", 0), BreaksOff) as broken:
        threading.Thread(target=broken.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{broken.server_port}"
        with pytest.raises(sgl.ProgramError, match="ended before it was complete"):
            capitals.run(backend=sgl.OpenAI("any", base_url=url))
        with pytest.raises(sgl.ProgramError, match="ended before it was complete"):
            capitals.run(backend=sgl.Anthropic("any", base_url=url))
        broken.shutdown()
    with pytest.raises(sgl.ProgramError, match=r"127\.0\.0\.1"):
        capitals.run(backend=sgl.OpenAI("any", base_url=url))
    with pytest.raises(sgl.InarchError, match=r"127\.0\.0\.1"):
        sgl.RuntimeEndpoint(url)
