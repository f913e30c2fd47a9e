"""Reading a stream, and one request against a server."""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inarch.bench.client import Endpoint, Reply, Target, error_text, open_session, send
from inarch.bench.record import Record
from inarch.bench.workload import BenchRequest, Prompt


def stream(*events: Any, done: bool = True, end: str = "\n\n") -> bytes:
    lines = [f"data: {json.dumps(event)}{end}" for event in events]
    return ("".join(lines) + (f"data: [DONE]{end}" if done else "")).encode()


def read(data: bytes) -> Reply:
    reply = Reply()
    reply.feed(data, 1.0)
    reply.close()
    return reply


def text(piece: str) -> dict[str, Any]:
    return {"choices": [{"index": 0, "text": piece, "finish_reason": None}]}


def delta(**fields: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": fields, "finish_reason": None}]}


USAGE = {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}}


@given(st.lists(st.integers(0, 400), max_size=8))
def test_a_stream_reads_the_same_wherever_the_packets_are_cut(cuts: list[int]) -> None:
    data = b": a comment\n\n" + stream(text("so"), text("ä\n"), USAGE, end="\r\n\r\n")
    borders = sorted({0, len(data), *(min(cut, len(data)) for cut in cuts)})
    reply = Reply()
    for number, (start, stop) in enumerate(itertools.pairwise(borders)):
        reply.feed(data[start:stop], float(number))
    reply.close()
    assert reply.error is None
    assert reply.done
    assert len(reply.text_s) == 2
    assert reply.usage is not None
    assert reply.usage.completion_tokens == 2


def test_the_role_and_the_end_of_a_chat_answer_are_not_text() -> None:
    header, end = delta(role="assistant", content=""), delta()
    end["choices"][0]["finish_reason"] = "length"
    empty_end = delta(content="")
    empty_end["choices"][0]["finish_reason"] = "stop"
    events = (header, delta(content="a"), delta(content="b"), end, empty_end, USAGE)
    assert len(read(stream(*events)).text_s) == 2


def test_reasoning_is_text() -> None:
    events = (delta(reasoning_content="hm"), delta(reasoning="hm"), delta(content="yes"))
    assert len(read(stream(*events)).text_s) == 3


def test_a_token_whose_text_is_held_back_counts() -> None:
    assert len(read(stream(text("a"), text(""), text("ö"))).text_s) == 3
    assert len(read(stream(delta(content="a"), delta(content=""))).text_s) == 2


def test_the_last_of_several_usage_reports_holds() -> None:
    early = {**text("a"), "usage": {"prompt_tokens": 3, "completion_tokens": 1}}
    usage = read(stream(early, text("b"), USAGE)).usage
    assert usage is not None
    assert usage.completion_tokens == 2


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (stream(text("a"), done=False), "the stream ended early"),
        (b"", "the stream ended early"),
        (stream(USAGE), "the answer holds no text"),
        (
            stream(text("a"), {"error": {"message": "out of pages", "code": 500}}),
            "error in the stream: out of pages",
        ),
        (b"data: {broken\n\n", "unreadable event {broken"),
        (b'data: {"choices": 5}\n\n', "unreadable event"),
    ],
)
def test_a_stream_that_is_no_answer_is_an_error(data: bytes, error: str) -> None:
    message = read(data).error
    assert message is not None
    assert error in message


def test_a_stream_without_an_error_may_say_so() -> None:
    assert read(stream({**text("a"), "error": None})).error is None


@pytest.mark.parametrize(
    "body",
    [
        b'{"error": {"message": "no such model", "code": 404}}',
        b'{"object": "error", "message": "no such model"}',
        b'{"detail": "no such model"}',
        b'{"error": "no such model"}',
        b"no such\n  model",
    ],
)
def test_the_message_of_an_error_body_is_found_where_servers_put_it(body: bytes) -> None:
    assert error_text(body) == "no such model"


def ask(
    url: str,
    prompt: Prompt = "so it is",
    endpoint: Endpoint = "completions",
    body: dict[str, Any] | None = None,
    timeout_s: float = 30.0,
) -> Record:
    target = Target(url, endpoint, {"model": "stub", **(body or {})}, {}, timeout_s)

    async def run() -> Record:
        async with open_session(target) as session:
            request = BenchRequest(4, prompt, 3, 8)
            return await send(session, target, request, time.perf_counter(), Reply())

    return asyncio.run(run())


def test_a_record_holds_the_servers_counts_and_the_clients_times(
    start_stub: Callable[..., Any],
) -> None:
    stub = start_stub(first_delay_s=0.05, gap_s=0.01, tokens_per_event=3)
    record = ask(stub.url)
    assert record.ok
    assert (record.index, record.input_tokens, record.output_tokens) == (4, 7, 8)
    assert len(record.text_s) == 3  # 3 + 3 + 2 tokens
    # The stub sleeps 50 ms before its first piece of text, and 10 ms between pieces; clocks differ.
    assert record.ttft_s >= 0.045
    assert record.e2e_s >= 0.060
    assert list(record.text_s) == sorted(record.text_s)


def test_without_token_counts_events_are_counted_and_the_record_says_so(
    start_stub: Callable[..., Any],
) -> None:
    record = ask(start_stub(sends_usage=False).url)
    assert record.ok
    assert not record.counted
    assert (record.input_tokens, record.output_tokens) == (3, 8)


@pytest.mark.parametrize(
    ("prompt", "endpoint", "expected"),
    [
        ("hello", "completions", {"prompt": "hello"}),
        ((5, 6), "completions", {"prompt": [5, 6]}),
        ("hello", "chat", {"messages": [{"role": "user", "content": "hello"}]}),
        ([{"role": "system", "content": "x"}], "chat",
         {"messages": [{"role": "system", "content": "x"}]}),
    ],
)  # fmt: skip
def test_a_prompt_is_sent_as_its_endpoint_wants_it(
    start_stub: Callable[..., Any], prompt: Prompt, endpoint: Endpoint, expected: dict[str, Any]
) -> None:
    stub = start_stub()
    assert ask(stub.url, prompt, endpoint).ok
    assert stub.bodies == [{"model": "stub", "max_tokens": 8, **expected}]


def test_a_field_set_to_none_is_left_out(start_stub: Callable[..., Any]) -> None:
    stub = start_stub()
    ask(stub.url, body={"ignore_eos": None, "top_p": 0.5})
    assert stub.bodies == [{"model": "stub", "max_tokens": 8, "top_p": 0.5, "prompt": "so it is"}]


def test_a_refused_request_is_recorded_with_the_servers_message(
    start_stub: Callable[..., Any],
) -> None:
    record = ask(start_stub(refuse=lambda body: "the prompt is too long").url)
    assert not record.ok
    assert record.error == "HTTP 400: the prompt is too long"


def test_an_answer_that_does_not_come_is_recorded_as_a_timeout(
    start_stub: Callable[..., Any],
) -> None:
    record = ask(start_stub(hang_after=0).url, timeout_s=0.2)
    assert record.error == "no complete answer within 0.2 s (--timeout)"


def test_a_server_that_is_not_there_is_recorded() -> None:
    record = ask("http://127.0.0.1:1")
    assert record.error is not None
    assert "127.0.0.1:1" in record.error
