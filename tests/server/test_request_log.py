"""One line of JSON for every request that is over, and nothing in it that was said."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from inarch.config import EngineConfig
from inarch.errors import ConfigError

from .harness import Server, eventually, messages
from .standin import StandIn


class Lines(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage())

    def next(self) -> dict[str, Any]:
        eventually(lambda: bool(self.texts))
        line: dict[str, Any] = json.loads(self.texts.pop(0))
        return line


@pytest.fixture
def lines() -> Iterator[Lines]:
    handler, log = Lines(), logging.getLogger("inarch.requests")
    log.addHandler(handler)
    yield handler
    log.handlers.clear()


def test_a_request_is_a_line_of_times_tokens_and_parameters(lines: Lines) -> None:
    with Server(StandIn(), log_requests=True) as server:
        body = {"messages": messages("sesame"), "seed": 7, "stop": "zz", "n": 2, "temperature": 0.5}
        server.post("/v1/chat/completions", body, **{"X-Request-Id": "my-id"})
        line = lines.next()
    assert (line["id"], line["route"], line["status"]) == ("my-id", "/v1/chat/completions", 200)
    assert line["prompt_tokens"] == len("user: sesame\nassistant: ")
    assert line["completion_tokens"] == 2 * (line["prompt_tokens"] + 1)
    assert line["finish_reasons"] == ["stop", "stop"]
    assert 0 <= line["queued_seconds"] <= line["first_token_seconds"] <= line["seconds"]
    assert line["sampling"] == [{"temperature": 0.5, "seed": 7, "n": 2, "stop": ["zz"]}]
    assert "error" not in line


def test_nothing_that_was_said_is_logged_unless_asked_for(lines: Lines) -> None:
    body, wrong = {"prompt": "sesame", "max_tokens": 50}, {"prompt": "x", "seed": "sesame"}
    with Server(StandIn(), log_requests=True) as server:
        server.post("/v1/completions", body)
        server.post("/v1/completions", wrong)
        eventually(lambda: len(lines.texts) == 2)
        assert "sesame" not in "".join(lines.texts)
        lines.texts.clear()
    with Server(StandIn(), log_requests=True, log_request_text=True) as server:
        server.post("/v1/completions", body)
        line = lines.next()
        assert (line["prompts"], line["answers"]) == (["sesame"], ["sesame"])
        server.post("/v1/completions", wrong)
        assert "sesame" in lines.next()["error"]["message"]


def test_refusals_and_failures_are_logged_with_their_kind(lines: Lines) -> None:
    with Server(StandIn(), log_requests=True) as server:
        server.post("/v1/completions", {"prompt": "x", "top_p": 7})
        line = lines.next()
        assert (line["status"], line["error"]["param"]) == (400, "top_p")
        assert "sampling" not in line
        server.engine.fail_after = 2
        server.post("/v1/completions", {"prompt": "sesame", "stream": True})
        line = lines.next()
        assert (line["status"], line["error"]["code"]) == (200, "generation_failed")
        assert line["finish_reasons"] == ["abort"]


def test_looking_at_the_server_is_not_logged(lines: Lines) -> None:
    with Server(StandIn(), log_requests=True) as server:
        for path in ("/health", "/metrics", "/live", "/v1/models", "/nowhere"):
            server.get(path)
        server.post("/generate", {"text": "x"})
        assert lines.next()["route"] == "/generate"


def test_no_line_is_logged_by_default(lines: Lines) -> None:
    with Server(StandIn()) as server:
        server.post("/generate", {"text": "x"})
        server.get("/health")
    assert lines.texts == []


def test_text_without_a_log_is_a_mistake() -> None:
    with pytest.raises(ConfigError, match="--log-request-text needs --log-requests"):
        EngineConfig(log_request_text=True)
