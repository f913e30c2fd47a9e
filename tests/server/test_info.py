"""Keys, models and health."""

from __future__ import annotations

import asyncio

import openai
import pytest

from inarch.errors import EngineDeadError
from inarch_server.watching import health
from inarch_server.watching.metrics import Metrics

from .harness import Server, messages
from .standin import StandIn


def test_models_lists_the_served_one_with_its_context(server: Server) -> None:
    with server.openai() as client:
        (model,) = client.models.list().data
        assert client.models.retrieve("standin") == model
        with pytest.raises(openai.NotFoundError, match="'gpt-4' is not served here"):
            client.models.retrieve("gpt-4")
    assert (model.id, model.object, model.owned_by) == ("standin", "model", "inarch")
    assert model.max_model_len == 2048


def test_a_model_name_may_hold_slashes() -> None:
    with Server(StandIn(name="org/model")) as server:
        assert server.get("/v1/models/org/model").json["id"] == "org/model"


OURS = (
    "/v1/models",
    "/metrics",
    "/health_generate",
    "/live",
    "/kernels",
    "/cache_tree",
    "/nowhere",
)


def test_with_a_key_only_health_and_the_page_are_open() -> None:
    with Server(StandIn(), api_key="s3cret") as server:
        assert server.get("/").status == 200
        assert server.get("/static/style.css").status == 200
        for path in OURS:
            answer = server.get(path)
            assert (answer.status, answer.error["code"]) == (401, "invalid_api_key")
        for header in ("s3cret", "Bearer wrong", "Bearer s3cret2", "Bearer \xe9"):
            answer = server.post("/generate", {"text": "x"}, Authorization=header)
            assert answer.status == 401, header
            assert answer.error["type"] == "authentication_error"
        assert server.engine.asked == []
        assert server.get("/health").status == 200
        with server.openai("s3cret") as client:
            client.chat.completions.create(model="standin", messages=messages("Hi"))
        with server.openai("wrong") as client, pytest.raises(openai.AuthenticationError):
            client.models.list()


def test_health_makes_a_token_to_be_sure_but_not_after_every_token(server: Server) -> None:
    assert server.get("/health").json == {"status": "ok"}
    assert len(server.engine.asked) == 1
    assert server.get("/health").status == 200
    assert len(server.engine.asked) == 1
    assert server.get("/health_generate").status == 200
    assert len(server.engine.asked) == 2


def test_a_token_of_any_request_answers_for_the_engine(server: Server) -> None:
    server.post("/generate", {"text": "one"})
    assert server.get("/health").status == 200
    assert len(server.engine.asked) == 1


def test_health_is_503_when_the_engine_is_dead(server: Server) -> None:
    assert server.get("/health").status == 200
    server.engine.alive = False
    answer = server.get("/health")
    assert (answer.status, answer.error["code"]) == (503, "engine_dead")


def test_health_is_503_when_no_token_comes(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "PROBE_TIMEOUT_S", 0.1)
    server.engine.delay_s = 60.0
    answer = server.get("/health")
    assert answer.status == 503
    assert "made no token in 0.1 s" in answer.error["message"]
    server.engine.delay_s = 0.0
    assert server.get("/health").status == 200


def test_a_first_token_may_take_as_long_as_compiling_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a server waits for before it lets clients in."""
    monkeypatch.setattr(health, "PROBE_TIMEOUT_S", 0.01)
    engine = StandIn()
    engine.delay_s = 0.2
    starting = health.Health(engine, Metrics())  # type: ignore[arg-type]
    asyncio.run(starting.first())
    with pytest.raises(EngineDeadError, match=r"no token in 0\.01 s"):
        asyncio.run(starting.check(fresh_s=0.0))


def test_health_is_503_when_a_token_fails(server: Server) -> None:
    server.engine.fail_after = 0
    assert "on fire" in server.get("/health").error["message"]
