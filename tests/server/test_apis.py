"""Each API refuses in its own words, and its own clients raise what they should."""

from __future__ import annotations

import anthropic
import ollama
import pytest

from inarch.errors import InarchError, InvalidRequestError

from .anthropic_talk import ASK, MESSAGES, client, events
from .harness import Server, messages
from .standin import StandIn
from .test_ollama import client as ollama_client

CHAT = "/api/chat"
HI = {"model": "standin", "messages": messages("Hi")}


@pytest.mark.parametrize(
    ("crash", "status", "kind", "raised"),
    [
        (InvalidRequestError("full", status=503, code="overloaded"), 529, "overloaded_error", 529),
        (InvalidRequestError("late", status=504, code="timeout"), 504, "timeout_error", 504),
        (InvalidRequestError("not you", status=403), 403, "permission_error", 403),
        (InvalidRequestError("soon", status=503, code="server_stopping"), 503, "api_error", 503),
        (InvalidRequestError("slower", status=429), 429, "rate_limit_error", 429),
        (InarchError("the device is on fire"), 500, "api_error", 500),
        (ZeroDivisionError("secret"), 500, "api_error", 500),
    ],
)
def test_anthropics_errors_have_its_types(
    server: Server, crash: Exception, status: int, kind: str, raised: int
) -> None:
    server.engine.crash = crash
    for stream in (False, True):
        answer = server.post(MESSAGES, ASK | {"stream": stream})
        assert (answer.status, answer.json["type"]) == (status, "error")
        assert answer.error["type"] == kind
        assert "secret" not in answer.error["message"]
    with client(server) as cli, pytest.raises(anthropic.APIStatusError) as caught:
        cli.messages.create(**ASK)
    assert caught.value.status_code == raised
    assert caught.value.type == kind


def test_what_is_wrong_with_a_request_is_an_error_of_both_clients(server: Server) -> None:
    with client(server) as cli:
        with pytest.raises(anthropic.BadRequestError, match=r"messages\[0\].role") as wrong:
            cli.messages.create(**ASK | {"messages": [{"role": "king", "content": "x"}]})
        with pytest.raises(anthropic.NotFoundError, match="'claude' is not served here") as other:
            cli.messages.create(**ASK | {"model": "claude"})
        named = cli.messages.with_raw_response.create(
            **ASK, extra_headers={"X-Request-Id": "mine-1"}
        )
    assert (wrong.value.type, other.value.type) == ("invalid_request_error", "not_found_error")
    assert wrong.value.request_id
    assert named.headers["request-id"] == "mine-1"
    with pytest.raises(ollama.ResponseError, match=r"messages\[0\].role") as caught:
        ollama_client(server)._request(
            ollama.ChatResponse,
            "POST",
            CHAT,
            json={**HI, "messages": [{"role": "king"}], "stream": False},
        )
    assert caught.value.status_code == 400


def test_an_error_within_a_stream_is_raised_by_both_clients(server: Server) -> None:
    server.engine.fail_after = 2
    with (
        client(server) as cli,
        cli.messages.stream(**ASK) as stream,
        pytest.raises(anthropic.APIStatusError, match="on fire"),
    ):
        list(stream)
    *_, last = events(server, ASK)
    assert (last["type"], last["error"]["type"]) == ("error", "api_error")
    parts = ollama_client(server).chat(**HI, stream=True)
    with pytest.raises(ollama.ResponseError, match="on fire"):
        list(parts)


def test_keys_come_in_either_header() -> None:
    with Server(StandIn(), api_key="s3cret") as server:
        for headers in ({"x-api-key": "s3cret"}, {"Authorization": "Bearer s3cret"}):
            assert server.post(MESSAGES, ASK, **headers).status == 200
        for headers in ({}, {"x-api-key": "wrong"}, {"x-api-key": "Bearer s3cret"}):
            refused = server.post(MESSAGES, ASK, **headers)
            assert (refused.status, refused.error["type"]) == (401, "authentication_error")
            assert refused.json["type"] == "error"
        # A wrong key of the usual header is not made good by another one.
        wrong = {"Authorization": "Bearer wrong", "x-api-key": "s3cret"}
        assert server.post(MESSAGES, ASK, **wrong).status == 401
        with client(server, "s3cret") as cli:
            assert cli.messages.create(**ASK).content
        with client(server, "wrong") as cli, pytest.raises(anthropic.AuthenticationError):
            cli.messages.create(**ASK)
        for path in ("/api/tags", "/api/version", "/api/nowhere"):
            refused = server.get(path)
            assert refused.status == 401
            assert "an API key is needed" in refused.json["error"]
        key = {"Authorization": "Bearer s3cret"}
        with ollama.Client(host=server.url, headers=key) as ollama_cli:
            assert ollama_cli.chat(**HI).done


def test_unknown_paths_and_methods_are_refused_in_the_words_of_their_api(server: Server) -> None:
    for path, status in (("/v1/messages/batches", 404), (MESSAGES, 405)):
        answer = server.get(path)
        assert (answer.status, answer.json["type"]) == (status, "error")
    for path, status in (("/api/embed", 404), (CHAT, 405)):
        answer = server.get(path)
        assert answer.status == status
        assert isinstance(answer.json["error"], str)
    assert server.get("/v1/messagesx").error["code"] == "not_found"  # nobody's: OpenAI's words
    assert server.get(MESSAGES).headers["Allow"] == "POST"


def test_no_body_and_a_huge_one_are_refused_in_the_words_of_their_api(server: Server) -> None:
    assert "it is empty" in server.post(MESSAGES, b"").error["message"]
    assert "it is empty" in server.post(CHAT, b"").json["error"]
    huge = b'{"prompt": "' + b"x" * (40 << 20) + b'"}'
    assert server.post(MESSAGES, huge).error["type"] == "request_too_large"
    assert "32 MiB" in server.post(CHAT, huge).json["error"]
