"""Keys, models, health, metrics and the page."""

from __future__ import annotations

import openai
import pytest
from prometheus_client import CollectorRegistry, Histogram, generate_latest

from inarch_server import health
from inarch_server.metrics import Times

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


def test_with_a_key_only_health_and_the_page_are_open() -> None:
    with Server(StandIn(), api_key="s3cret") as server:
        assert server.get("/").status == 200
        for path in ("/v1/models", "/metrics", "/health_generate", "/nowhere"):
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


def test_health_is_503_when_a_token_fails(server: Server) -> None:
    server.engine.fail_after = 0
    assert "on fire" in server.get("/health").error["message"]


def lines(server: Server) -> dict[str, float]:
    answer = server.get("/metrics")
    assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    pairs = (line.rsplit(" ", 1) for line in answer.body.decode().splitlines() if line[0] != "#")
    return {name: float(value) for name, value in pairs}


def test_metrics_count_requests_tokens_and_times(server: Server) -> None:
    server.post("/v1/completions", {"prompt": "one"})
    server.post("/v1/completions", {"prompt": ""})
    server.post("/v1/no/such/thing", {})
    found = lines(server)
    assert found['inarch_requests_total{endpoint="/v1/completions",status="200"}'] == 1
    assert found['inarch_requests_total{endpoint="/v1/completions",status="400"}'] == 1
    assert found['inarch_requests_total{endpoint="unknown",status="404"}'] == 1
    assert found["inarch_prompt_tokens_total"] == 3
    assert found["inarch_generation_tokens_total"] == 4
    assert found["inarch_time_to_first_token_seconds_count"] == 1
    assert found["inarch_inter_token_seconds_count"] == 3
    assert found["inarch_request_seconds_count"] == 1
    assert found["inarch_running_requests"] == 0
    assert (found["inarch_kv_pages_used"], found["inarch_kv_pages_total"]) == (3, 64)
    assert found["inarch_engine_alive"] == 1


def test_metrics_still_answer_when_the_engine_does_not(server: Server) -> None:
    server.engine.alive = False
    assert lines(server)["inarch_engine_alive"] == 0


def test_the_page_brings_everything_along(server: Server) -> None:
    page = server.get("/")
    assert page.headers["Content-Type"].startswith("text/html")
    assert "default-src 'none'" in page.headers["Content-Security-Policy"]
    text = page.body.decode()
    assert "/v1/chat/completions" in text
    assert "http://" not in text.replace("http://www.w3.org/2000/svg", "")
    assert "https://" not in text


def test_times_are_shown_as_prometheus_shows_its_own_histograms() -> None:
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    bounds = (0.001, 0.25, 1, 2.5)
    times = Times("some_seconds", "Some time", bounds, ours)
    histogram = Histogram("some_seconds", "Some time", buckets=bounds, registry=theirs)
    for seconds, count in ((0.0001, 3), (0.25, 1), (0.26, 2), (99.0, 1)):
        times.observe(seconds, count)
        for _ in range(count):
            histogram.observe(seconds)

    def shown(registry: CollectorRegistry) -> dict[str, float]:
        pairs = (line.rsplit(" ", 1) for line in generate_latest(registry).decode().splitlines())
        return {name: pytest.approx(float(value)) for name, value in pairs if name[0] == "s"}

    expected = {k: v for k, v in shown(theirs).items() if "_created" not in k}
    assert shown(ours) == expected
