"""Traces as a collector receives them: spans, their times and parents, and what they tell."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from inarch.config import EngineConfig
from inarch.errors import ConfigError
from inarch_server import extras
from inarch_server.watching import traces

from .harness import Server, messages
from .standin import StandIn

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@pytest.fixture
def exporter(monkeypatch: pytest.MonkeyPatch) -> InMemorySpanExporter:
    exporter = InMemorySpanExporter()
    monkeypatch.setattr(traces, "otlp_exporter", lambda endpoint: exporter)
    return exporter


def serving(engine: StandIn) -> Server:
    return Server(engine, otlp_endpoint="http://nobody:4318")


def spans(exporter: InMemorySpanExporter) -> dict[str, ReadableSpan]:
    """By name; complete once the server has ended."""
    return {span.name: span for span in exporter.get_finished_spans()}


def test_a_request_is_a_span_with_its_wait_prefill_and_decode(
    exporter: InMemorySpanExporter,
) -> None:
    engine = StandIn()
    engine.delay_s = 0.01
    body = {
        "messages": messages("Hi"),
        "temperature": 0.5,
        "seed": 7,
        "stop": ["zz"],
        "stream": True,
    }
    with serving(engine) as server:
        server.post("/v1/chat/completions", body, traceparent=f"00-{TRACE}-{PARENT}-01")
    found = spans(exporter)
    assert set(found) == {"chat standin", "queue", "prefill", "decode"}
    root = found["chat standin"]
    assert root.context is not None
    assert root.parent is not None
    assert (f"{root.context.trace_id:032x}", f"{root.parent.span_id:016x}") == (TRACE, PARENT)
    expected: dict[str, Any] = {
        "http.route": "/v1/chat/completions",
        "http.response.status_code": 200,
        "gen_ai.operation.name": "chat",
        "gen_ai.request.model": "standin",
        "gen_ai.request.temperature": 0.5,
        "gen_ai.request.seed": 7,
        "gen_ai.request.stop_sequences": ("zz",),
        "gen_ai.response.finish_reasons": ("stop",),
        "gen_ai.usage.input_tokens": 20,
        "gen_ai.usage.output_tokens": 21,
    }
    assert root.attributes is not None
    assert expected.items() <= dict(root.attributes).items()
    assert "gen_ai.request.top_p" not in root.attributes
    times = [root.start_time]
    for name in ("queue", "prefill", "decode"):
        span = found[name]
        assert span.parent is not None
        assert span.parent.span_id == root.context.span_id
        times += [span.start_time, span.end_time]
    times.append(root.end_time)
    assert times == sorted(times)  # type: ignore[type-var]
    assert times[-1] - times[0] > 20 * 10_000_000  # type: ignore[operator]


def test_nothing_that_was_said_is_in_a_span(exporter: InMemorySpanExporter) -> None:
    with serving(StandIn()) as server:
        server.post("/v1/completions", {"prompt": "sesame"})
        server.post("/v1/completions", {"prompt": "x", "seed": "sesame"})
    assert len(exporter.get_finished_spans()) == 5
    assert "sesame" not in "".join(span.to_json() for span in exporter.get_finished_spans())


def test_what_the_server_failed_at_is_an_error_and_what_the_client_did_wrong_is_not(
    exporter: InMemorySpanExporter,
) -> None:
    engine = StandIn()
    with serving(engine) as server:
        server.post("/v1/completions", {"prompt": ""})
        engine.fail_after = 2
        server.post("/v1/completions", {"prompt": "x" * 9, "stream": True})
    found = spans(exporter)
    assert found["POST /v1/completions"].status.is_unset
    failed = found["text_completion standin"]
    assert failed.attributes is not None
    assert failed.status.status_code.name == "ERROR"
    assert failed.attributes["error.type"] == "generation_failed"
    assert failed.attributes["gen_ai.response.finish_reasons"] == ("abort",)


def test_a_client_that_does_not_want_its_trace_kept_is_heard(
    exporter: InMemorySpanExporter,
) -> None:
    with serving(StandIn()) as server:
        server.post("/generate", {"text": "x"}, traceparent=f"00-{TRACE}-{PARENT}-00")
        server.post("/generate", {"text": "x"}, traceparent="nonsense")
        server.get("/health")
    assert [span.name for span in exporter.get_finished_spans()].count(
        "generate_content standin"
    ) == 1


class Collector(http.server.BaseHTTPRequestHandler):
    received: list[tuple[str, ExportTraceServiceRequest]]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Content-Encoding") == "gzip":
            import gzip

            body = gzip.decompress(body)
        self.received.append((self.path, ExportTraceServiceRequest.FromString(body)))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def collector() -> Iterator[http.server.HTTPServer]:
    Collector.received = []
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Collector) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_spans_reach_a_collector_before_the_server_has_ended(
    collector: http.server.HTTPServer,
) -> None:
    endpoint = f"http://127.0.0.1:{collector.server_address[1]}/"
    with Server(StandIn(), otlp_endpoint=endpoint) as server:
        server.post("/v1/completions", {"prompt": "one"})
    ((path, request),) = Collector.received
    assert path == "/v1/traces"
    (resource,) = request.resource_spans
    about = {pair.key: pair.value.string_value for pair in resource.resource.attributes}
    assert about["service.name"] == "inarch"
    names = [span.name for scope in resource.scope_spans for span in scope.spans]
    assert sorted(names) == ["decode", "prefill", "queue", "text_completion standin"]


def test_a_missing_package_is_told_before_a_model_is_loaded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(extras, "OTLP", ("opentelemetry.no_such_thing",))
    extras.check_extras(EngineConfig())
    with pytest.raises(ConfigError, match=r"not installed .*pip install 'inarch\[otel\]'"):
        extras.check_extras(EngineConfig(otlp_endpoint="http://localhost:4318"))
