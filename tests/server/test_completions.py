"""/v1/completions: prompts of every shape, echo, and the older form of log-probabilities."""

from __future__ import annotations

import pytest

from .harness import Server

COMPLETIONS = "/v1/completions"


def ids(text: str) -> list[int]:
    return list(text.encode())


@pytest.mark.parametrize(
    ("prompt", "texts"),
    [
        ("one", ["one"]),
        (["one", "two"], ["one", "two"]),
        (ids("one"), ["one"]),
        ([ids("one"), ids("two")], ["one", "two"]),
    ],
    ids=["text", "texts", "token ids", "lists of token ids"],
)
def test_a_prompt_has_four_shapes(server: Server, prompt: object, texts: list[str]) -> None:
    with server.openai() as client:
        answer = client.completions.create(model="standin", prompt=prompt)
        streamed = [""] * len(texts)
        for chunk in client.completions.create(model="standin", prompt=prompt, stream=True):
            streamed[chunk.choices[0].index] += chunk.choices[0].text
    assert answer.id.startswith("cmpl-")
    assert answer.object == "text_completion"
    assert [(c.index, c.text, c.finish_reason) for c in answer.choices] == [
        (i, text, "stop") for i, text in enumerate(texts)
    ]
    assert answer.usage.prompt_tokens == 3 * len(texts)
    assert streamed == texts


def test_a_request_may_be_named(server: Server) -> None:
    assert server.post(COMPLETIONS, {"prompt": "one", "rid": "mine"}).json["id"] == "mine"


def test_samples_of_several_prompts_are_numbered_prompt_by_prompt(server: Server) -> None:
    body = {"prompt": ["one", "two"], "n": 2, "stream": True}
    texts = [""] * 4
    for event in server.post(COMPLETIONS, body).events:
        texts[event["choices"][0]["index"]] += event["choices"][0]["text"]
    assert texts == ["one", "one", "two", "two"]
    whole = server.post(COMPLETIONS, body | {"stream": False}).json
    assert [c["text"] for c in whole["choices"]] == texts
    assert whole["usage"]["prompt_tokens"] == 6
    assert whole["usage"]["completion_tokens"] == 16


def test_an_answer_has_16_tokens_unless_said_otherwise(server: Server) -> None:
    choice = server.post(COMPLETIONS, {"prompt": "x" * 40}).json["choices"][0]
    assert (choice["text"], choice["finish_reason"]) == ("x" * 16, "length")


@pytest.mark.parametrize("prompt", ["one", ids("one")], ids=["text", "token ids"])
@pytest.mark.parametrize("stream", [False, True])
def test_echo_puts_the_prompt_before_the_answer(
    server: Server, prompt: object, stream: bool
) -> None:
    body = {"prompt": prompt, "echo": True, "stream": stream}
    answer = server.post(COMPLETIONS, body)
    parts = answer.events if stream else [answer.json]
    assert "".join(part["choices"][0]["text"] for part in parts) == "oneone"


@pytest.mark.parametrize("stream", [False, True])
def test_logprobs_are_four_parallel_lists(server: Server, stream: bool) -> None:
    body = {"prompt": "one", "logprobs": 2, "stream": stream}
    answer = server.post(COMPLETIONS, body)
    parts = [p["choices"][0]["logprobs"] for p in (answer.events if stream else [answer.json])]
    joined = {name: [x for part in parts for x in part[name]] for name in parts[0]}
    assert joined["tokens"] == ["o", "n", "e", "</s>"]
    assert joined["token_logprobs"] == [-0.5] * 4
    assert joined["text_offset"] == [0, 1, 2, 3]
    assert joined["top_logprobs"][0] == {"o": -0.5, "\n": -9999}


def test_best_of_equal_to_n_is_harmless(server: Server) -> None:
    assert server.post(COMPLETIONS, {"prompt": "one", "n": 2, "best_of": 2}).status == 200
