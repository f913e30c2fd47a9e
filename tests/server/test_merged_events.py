"""However late a client takes its stream, and however many tokens an event then holds, it gets the
same answer: no token, character or log-probability is lost, doubled or out of order."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from inarch.engine.frontend import Frontend
from inarch.engine.messages import TokenOutput
from inarch.engine.outputs import RequestOutput
from inarch.errors import InarchError
from inarch.sampling import SamplingParams, Terms
from inarch_server.answering.answers import Answers
from inarch_server.answering.prompts import Prompt
from inarch_server.answering.reading import Reader, Reading
from inarch_server.answering.sse import Events
from inarch_server.native.protocol import GenerateRequest
from inarch_server.native.results import Results
from inarch_server.openai.chat_events import ChatEvents
from inarch_server.openai.chat_protocol import ChatRequest
from inarch_server.openai.completions import CompletionEvents, Wording
from inarch_server.openai.completions_protocol import CompletionRequest
from inarch_server.openai.envelope import Envelope
from inarch_server.watching.metrics import Metrics
from inarch_server.watching.stopwatch import Stopwatch

from .standin import EOS, StandIn

SAMPLES = 3
WORDS = ["a", "stop", " ", "é", "💡", "\n", "st"]
STREAM = {"stream": True, "stream_options": {"include_usage": True}}
CHAT = ChatRequest(
    messages=[{"role": "user", "content": "x"}], logprobs=True, top_logprobs=1, **STREAM
)
COMPLETION = CompletionRequest(prompt="x", logprobs=1, echo=None, **STREAM)
NATIVE = GenerateRequest(text="x", return_logprob=True, top_logprobs_num=1, stream=True)

Message = list[tuple[int, int]]  # what a step says: (sample, token)


class Scripted:
    """An engine that says what it is told to, through the real text half."""

    def __init__(self) -> None:
        standin = StandIn()
        self.tokenizer = standin.tokenizer
        self._text = Frontend(standin.tokenizer, standin.info, 0)
        self._begun: set[int] = set()

    def begin(
        self,
        ids: Sequence[int],
        params: SamplingParams,
        listener: Callable[[RequestOutput | InarchError], None],
        *,
        request_id: str,
        terms: Terms,
    ) -> str:
        self._listener = listener
        opened = self._text.open(ids, params, request_id=request_id)
        self._handles = [message.handle for message in opened]
        return request_id

    def end(self, request_id: str) -> None: ...

    def say(self, message: Message) -> bool:
        """Deliver one step's tokens; whether there was news for the client in them."""
        news = TokenOutput(handles=[], tokens=[])
        for index, (sample, token) in enumerate(message):
            news.handles.append(self._handles[sample])
            news.tokens.append(token)
            news.logprobs[index] = (-0.1 * token, [-0.1 * token], [token], [])
            if sample not in self._begun:
                self._begun.add(sample)
                news.cached[index] = 0
            if token == EOS:
                news.finish[index] = "stop"
        outputs, _ = self._text.receive(news)
        for output in outputs:
            self._listener(output)
        return bool(outputs)


@st.composite
def steps(draw: st.DrawFn) -> list[Message]:
    """Three answers cut into tokens of one byte and shuffled together into steps."""
    texts = [draw(st.lists(st.sampled_from(WORDS), max_size=6)) for _ in range(SAMPLES)]
    left = [[*"".join(words).encode(), EOS] for words in texts]
    said: Message = []
    while any(left):
        sample = draw(st.sampled_from([i for i, tokens in enumerate(left) if tokens]))
        said.append((sample, left[sample].pop(0)))
    cuts = sorted(draw(st.sets(st.integers(1, len(said)))) | {0, len(said)})
    return [said[start:end] for start, end in pairwise(cuts)]


async def events(
    script: list[Message], taken: set[int], make: Callable[[Answers, Any], Events]
) -> list[dict[str, Any]]:
    """The events of a client that takes what there is after the steps in `taken`, and at the end."""
    engine = Scripted()
    params = SamplingParams(n=SAMPLES, logprobs=1, stop=("stop",))
    stopwatch = Stopwatch(Metrics(), 0.0)
    prompts = [Prompt(list(b"x"), "x")]
    with Answers(engine, ["a"], prompts, [params], stopwatch) as answers:  # type: ignore[arg-type]
        wording, found = make(answers, engine.tokenizer), []
        for number, message in enumerate(script):
            if engine.say(message) and number in taken:
                found += [wording.of(piece) for piece in await answers.take()]
        while pieces := await answers.take():
            found += [wording.of(piece) for piece in pieces]
        *blocks, done, rest = b"".join([*found, wording.end()]).decode().split("\n\n")
        assert (done, rest) == ("data: [DONE]", "")
        return [json.loads(block.removeprefix("data: ")) for block in blocks]


def chat(answers: Answers, tokenizer: Any) -> Events:
    reader = Reader(Reading(), answers)
    return ChatEvents(Envelope("id", "model", 0), answers, CHAT, reader, tokenizer)


def completion(answers: Answers, tokenizer: Any) -> Events:
    wording = Wording(COMPLETION, answers.prompts, tokenizer)
    return CompletionEvents(Envelope("id", "model", 0), answers, COMPLETION, wording)


def native(answers: Answers, tokenizer: Any) -> Events:
    return Results(answers, NATIVE.logprobs(1), tokenizer, listed=False, with_text=False)


def whole(found: list[dict[str, Any]], index: int) -> dict[str, Any]:
    """One choice of OpenAI's events, put together as a client does."""
    choices = [c for event in found for c in event["choices"] if c["index"] == index]
    merged: dict[str, Any] = {"text": "", "logprobs": []}
    for choice in choices:
        assert "finish_reason" not in merged, "an event after the last one"
        merged["text"] += choice["delta"]["content"] if "delta" in choice else choice["text"]
        shape = choice["logprobs"]
        lists = [shape["content"]] if "content" in shape else shape.values()
        merged["logprobs"] += zip(*lists, strict=True)
        if choice["finish_reason"]:
            merged["finish_reason"] = choice["finish_reason"]
    roles = ["role" in choice.get("delta", {}) for choice in choices]
    assert not any(roles[1:])
    return merged


@settings(deadline=None, max_examples=60)
@given(script=steps(), taken=st.sets(st.integers(0, 60)))
def test_openai_streams_say_the_same_however_their_tokens_are_merged(
    script: list[Message], taken: set[int]
) -> None:
    for make in (chat, completion):
        every = asyncio.run(events(script, set(range(len(script))), make))
        some = asyncio.run(events(script, taken, make))
        at_end = asyncio.run(events(script, set(), make))
        assert len(at_end) == SAMPLES + 1  # one event a choice, and usage
        for index in range(SAMPLES):
            answer = whole(every, index)
            assert answer == whole(some, index) == whole(at_end, index)
            said = bytes(t for m in script for s, t in m if s == index and t != EOS).decode()
            assert answer["text"] == said.partition("stop")[0]
            assert answer["finish_reason"] == "stop"
        assert every[-1]["usage"] == some[-1]["usage"] == at_end[-1]["usage"]


@settings(deadline=None, max_examples=40)
@given(script=steps(), taken=st.sets(st.integers(0, 60)))
def test_the_last_native_event_of_a_sample_holds_all_of_it_however_tokens_are_merged(
    script: list[Message], taken: set[int]
) -> None:
    def last(found: list[dict[str, Any]]) -> dict[int, dict[str, Any]]:
        for event in found:
            del event["meta_info"]["e2e_latency"]
        return {event["index"]: event for event in found}

    every = last(asyncio.run(events(script, set(range(len(script))), native)))
    some = last(asyncio.run(events(script, taken, native)))
    assert every == some
    for result in every.values():
        tokens = [token for _, token, _ in result["meta_info"]["output_token_logprobs"]]
        assert tokens == result["output_ids"]
        assert len(tokens) == result["meta_info"]["completion_tokens"]
