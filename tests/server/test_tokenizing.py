"""/v1/tokenize and /v1/detokenize: the tokenizer of the served model, over HTTP."""

from __future__ import annotations

from typing import Any

import pytest

from .harness import Server, messages
from .standin import EOS, byte_tokenizer
from .talking import WEATHER, talker


@pytest.mark.parametrize("prefix", ["", "/v1"])
def test_a_text_goes_to_tokens_and_back(server: Server, prefix: str) -> None:
    found = server.post(f"{prefix}/tokenize", {"prompt": "Hé"}).json
    assert found == {"tokens": list("Hé".encode()), "count": 3, "max_model_len": 2048}
    assert server.post(f"{prefix}/detokenize", {"tokens": found["tokens"]}).json == {"text": "Hé"}


def test_several_texts_go_at_once(server: Server) -> None:
    found = server.post("/v1/tokenize", {"prompt": ["a", "bc"]}).json
    assert (found["tokens"], found["count"]) == ([[97], [98, 99]], [1, 2])
    assert server.post("/v1/detokenize", {"tokens": found["tokens"]}).json == {"text": ["a", "bc"]}


def test_special_tokens_come_and_go_as_asked(server: Server) -> None:
    server.engine.tokenizer = byte_tokenizer(begins=True)
    assert server.post("/v1/tokenize", {"prompt": "a"}).json["tokens"] == [EOS, 97]
    body: dict[str, Any] = {"prompt": "a", "add_special_tokens": False}
    assert server.post("/v1/tokenize", body).json["tokens"] == [97]
    body = {"tokens": [EOS, 97]}
    assert server.post("/v1/detokenize", body).json == {"text": "a"}
    body["skip_special_tokens"] = False
    assert server.post("/v1/detokenize", body).json == {"text": "</s>a"}


def test_a_conversation_has_the_tokens_that_chat_would_give_it() -> None:
    body = {"messages": messages("Hi"), "tools": [WEATHER]}
    with Server(talker()) as server:
        found = server.post("/v1/tokenize", body).json
        server.post("/v1/chat/completions", body)
        assert found["tokens"] == server.engine.asked[-1][0]
    assert found["count"] == len(found["tokens"])


def test_the_text_of_a_conversation_is_told_too() -> None:
    with Server(talker()) as server:
        body = {"messages": messages("Hi"), "return_text": True}
        found = server.post("/v1/tokenize", body).json
        again = server.post(
            "/v1/detokenize", {"tokens": found["tokens"], "skip_special_tokens": False}
        )
    assert "Hi" in found["text"] != "Hi"
    assert again.json["text"] == found["text"]


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/v1/tokenize", {}, "prompt"),
        ("/v1/tokenize", {"prompt": "a", "messages": messages("b")}, "prompt"),
        ("/v1/tokenize", {"prompt": 3}, "prompt"),
        ("/v1/tokenize", {"messages": []}, "messages"),
        ("/v1/detokenize", {}, "tokens"),
        ("/v1/detokenize", {"tokens": [257]}, "tokens"),
        ("/v1/detokenize", {"tokens": [[1], [-1]]}, "tokens[1]"),
        ("/v1/detokenize", {"tokens": ["a"]}, "tokens[0]"),
    ],
)
def test_what_cannot_be_is_refused_by_name(
    server: Server, path: str, body: dict[str, Any], param: str
) -> None:
    refused = server.post(path, body)
    assert (refused.status, refused.error["param"]) == (400, param), refused.body
