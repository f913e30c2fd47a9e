"""`inarch serve` with the bundled model: whole answers through every layer, by real clients."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import openai
import pytest

from .process import ServerProcess, eventually

LONG = "Say hello. " * 60  # a prompt of many KV pages


def chat(server: ServerProcess, text: str, **options: Any) -> Any:
    body = {"messages": [{"role": "user", "content": text}], "temperature": 0, **options}
    return server.post("/v1/chat/completions", body)


def complete(server: ServerProcess, prompt: Any, **options: Any) -> Any:
    body = {"prompt": prompt, "temperature": 0, "max_tokens": 24, "ignore_eos": True, **options}
    return server.post("/v1/completions", body)


def text_of(answer: Any) -> str:
    return answer["choices"][0]["text"]


def test_the_bundled_model_knows_the_capital_of_france(server: ServerProcess) -> None:
    with server.openai() as client:
        (model,) = client.models.list().data
        answer = client.chat.completions.create(
            model=model.id,
            messages=[{"role": "user", "content": "What is the capital of France?"}],
            temperature=0,
        )
    assert "Paris" in answer.choices[0].message.content
    assert answer.choices[0].finish_reason == "stop"


def test_a_stream_says_what_the_whole_answer_says(server: ServerProcess) -> None:
    whole = chat(server, "What is 2 + 3?")["choices"][0]["message"]["content"]
    with server.openai() as client:
        chunks = client.chat.completions.create(
            model=client.models.list().data[0].id,
            messages=[{"role": "user", "content": "What is 2 + 3?"}],
            temperature=0,
            stream=True,
        )
        assert "".join(chunk.choices[0].delta.content for chunk in chunks) == whole


def test_three_ways_to_ask_give_one_answer(server: ServerProcess) -> None:
    native = server.post(
        "/generate",
        {
            "text": "The capital of",
            "sampling_params": {"max_new_tokens": 24, "temperature": 0, "ignore_eos": True},
        },
    )
    whole = complete(server, "The capital of")
    assert native["text"] == text_of(whole)
    again = complete(server, native["output_ids"])  # token ids are accepted as they are given
    assert again["usage"]["prompt_tokens"] == len(native["output_ids"]) == 24


def test_a_seeded_answer_is_the_same_alone_and_among_many(server: ServerProcess) -> None:
    options = {"temperature": 1.0, "seed": 7, "max_tokens": 40}
    alone = text_of(complete(server, "Once upon a time", **options))
    with ThreadPoolExecutor(16) as pool:
        asked = [
            pool.submit(complete, server, f"{i} Something else", temperature=1.0) for i in range(12)
        ]
        among = [pool.submit(complete, server, "Once upon a time", **options) for _ in range(4)]
        assert [text_of(future.result()) for future in among] == [alone] * 4
        assert all(future.result()["usage"]["completion_tokens"] == 24 for future in asked)


def test_a_prompt_seen_before_is_found_in_the_cache(server: ServerProcess) -> None:
    first = complete(server, "cache " + LONG)
    second = complete(server, "cache " + LONG)
    assert text_of(first) == text_of(second)
    cached = second["usage"]["prompt_tokens_details"]["cached_tokens"]
    assert cached > 0.9 * second["usage"]["prompt_tokens"]


def test_samples_share_the_prompt_and_differ(server: ServerProcess) -> None:
    answer = complete(server, "Once", n=4, temperature=1.0, seed=1)
    texts = [choice["text"] for choice in answer["choices"]]
    assert len(set(texts)) > 1
    assert texts == [
        c["text"] for c in complete(server, "Once", n=4, temperature=1.0, seed=1)["choices"]
    ]


def test_logprobs_agree_with_the_greedy_choice(server: ServerProcess) -> None:
    answer = chat(server, "What is the capital of Japan?", logprobs=True, top_logprobs=3)
    for token in answer["choices"][0]["logprobs"]["content"]:
        best = token["top_logprobs"][0]
        assert (best["token"], best["logprob"]) == (token["token"], token["logprob"])
        assert token["logprob"] <= 0.0


def test_a_stop_string_ends_the_answer_before_it(server: ServerProcess) -> None:
    text = text_of(complete(server, "Once upon a time"))
    stop = text[8:12]
    choice = complete(server, "Once upon a time", stop=stop)["choices"][0]
    assert choice["text"] == text[: text.index(stop)]
    assert choice["finish_reason"] == "stop"


def test_a_client_that_goes_away_frees_its_request(server: ServerProcess) -> None:
    body = {"prompt": "x", "max_tokens": 100_000, "ignore_eos": True, "stream": True}
    connection = server.send("POST", "/v1/completions", body)
    assert connection.getresponse().read(10)
    assert server.metric("sglang:num_running_reqs") == 1
    connection.close()
    eventually(lambda: server.metric("sglang:num_running_reqs") == 0)


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/v1/completions", b'{"prompt": NaN}', 400),
        ("/v1/completions", b'{"prompt": "\xff"}', 400),
        ("/v1/completions", b'{"prompt": "' + b"x" * (50 << 20) + b'"}', 413),
        ("/v1/completions", {"prompt": "x", "max_tokens": -1}, 400),
        ("/v1/completions", {"prompt": "x", "temperature": -1}, 400),
        ("/v1/completions", {"prompt": [10**9]}, 400),
        ("/v1/completions", {"prompt": "x y " * 100_000}, 400),
        ("/v1/completions", {"prompt": "x", "model": "gpt-4"}, 404),
        ("/v1/chat/completions", {"messages": []}, 400),
        ("/generate", {"text": "x", "sampling_params": {"top_p": 2}}, 400),
    ],
    ids=[
        "not JSON",
        "not UTF-8",
        "50 MB",
        "less than no token",
        "negative temperature",
        "no such token",
        "long text",
        "other model",
        "no messages",
        "top_p above 1",
    ],
)
def test_malformed_requests_leave_a_running_stream_unharmed(
    server: ServerProcess, path: str, body: Any, status: int
) -> None:
    expected = text_of(complete(server, "Once", max_tokens=100))
    running = {"prompt": "Once", "temperature": 0, "max_tokens": 100, "ignore_eos": True}
    connection = server.send("POST", "/v1/completions", {**running, "stream": True})
    got, answer = server.ask("POST", path, body)
    assert (got, bool(answer["error"]["message"])) == (status, True)
    blocks = connection.getresponse().read().decode().split("\n\n")
    connection.close()
    events = [json.loads(block.removeprefix("data: ")) for block in blocks[:-2]]
    assert "".join(event["choices"][0]["text"] for event in events) == expected


def test_a_prompt_longer_than_the_context_is_told_both_numbers(server: ServerProcess) -> None:
    _, models = server.ask("GET", "/v1/models")
    context = models["data"][0]["max_model_len"]
    with server.openai() as client, pytest.raises(openai.BadRequestError) as caught:
        client.completions.create(model=models["data"][0]["id"], prompt=[5] * (context + 100))
    assert str(context) in str(caught.value)
    assert str(context + 100) in str(caught.value)


def test_more_requests_than_the_engine_runs_at_once_are_all_answered(server: ServerProcess) -> None:
    prompts = [f"Question {i}:" for i in range(300)]
    answer = complete(server, prompts, max_tokens=4)
    assert [choice["index"] for choice in answer["choices"]] == list(range(300))
    assert answer["usage"]["completion_tokens"] == 1200
    eventually(lambda: server.metric("sglang:num_running_reqs") == 0)


def test_health_and_the_page_answer(server: ServerProcess) -> None:
    assert server.ask("GET", "/health") == (200, {"status": "ok"})
    status, page = server.ask("GET", "/")
    assert (status, "<title>Inarch</title>" in page) == (200, True)
