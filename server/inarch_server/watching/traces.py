"""OpenTelemetry traces: a span for each request, with its wait, prefill and decode below it.

The spans of a request are made when it is over, from the times that are taken anyway: a token costs
nothing. Names and attributes follow OpenTelemetry's conventions for HTTP and for generative AI.
This file is imported only if traces are asked for; it needs the extra `inarch[otel]`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from opentelemetry import trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.trace import SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from inarch.sampling import SamplingParams
from inarch.version import __version__
from inarch_server.answering.answers import Answers
from inarch_server.watching.account import Account

OPERATIONS = {
    "/v1/chat/completions": "chat",
    "/v1/completions": "text_completion",
    "/v1/embeddings": "embeddings",
    "/v1/responses": "chat",
    "/v1/messages": "chat",
    "/api/chat": "chat",
}
OTHER_OPERATION = "generate_content"
# Names of sampling parameters in the conventions, for those that are set.
SAMPLING = {
    "max_tokens": "gen_ai.request.max_tokens",
    "temperature": "gen_ai.request.temperature",
    "top_p": "gen_ai.request.top_p",
    "top_k": "gen_ai.request.top_k",
    "frequency_penalty": "gen_ai.request.frequency_penalty",
    "presence_penalty": "gen_ai.request.presence_penalty",
    "seed": "gen_ai.request.seed",
    "stop": "gen_ai.request.stop_sequences",
}


def otlp_exporter(endpoint: str) -> SpanExporter:
    """Sends to a collector that speaks OTLP over HTTP; `endpoint` is its base URL."""
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    return OTLPSpanExporter(endpoint=endpoint.rstrip("/") + "/v1/traces")


class Traces:
    def __init__(self, exporter: SpanExporter, model: str) -> None:
        resource = Resource.create({"service.name": "inarch", "service.version": __version__})
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("inarch", __version__)
        self._model = model

    def close(self) -> None:
        """Send what has not been sent; blocks until that is done, or was given up."""
        self._provider.shutdown()

    def __call__(self, account: Account) -> None:
        if account.method == "GET" and account.answers is None:
            return
        operation = OPERATIONS.get(account.route, OTHER_OPERATION)
        parent = TraceContextTextMapPropagator().extract(
            {name.lower(): value for name, value in account.headers.items()}
        )
        span = self._tracer.start_span(
            f"{operation} {self._model}" if account.answers else f"POST {account.route}",
            context=parent,
            kind=SpanKind.SERVER,
            attributes=dict(_http(account)),
            start_time=account.unix_ns(account.received_s),
        )
        if account.answers is not None:
            span.set_attribute("gen_ai.operation.name", operation)
            span.set_attributes(dict(_generation(account, account.answers, self._model)))
            self._children(span, account, account.answers)
        if account.error is not None and not 400 <= account.status < 500:
            _fail(span, account.error)
        span.end(account.unix_ns(account.ended_s))

    def _children(self, span: trace.Span, account: Account, answers: Answers) -> None:
        watch = answers.stopwatch
        if watch.sent_s is None or watch.first_token_s is None or watch.last_token_s is None:
            return
        begun_s = min(watch.sent_s + (watch.queued_s or 0.0), watch.first_token_s)
        context = trace.set_span_in_context(span)
        for name, start_s, end_s in (
            ("queue", watch.sent_s, begun_s),
            ("prefill", begun_s, watch.first_token_s),
            ("decode", watch.first_token_s, watch.last_token_s),
        ):
            start = account.unix_ns(start_s)
            child = self._tracer.start_span(name, context=context, start_time=start)
            child.end(account.unix_ns(end_s))


def _http(account: Account) -> Iterator[tuple[str, Any]]:
    yield "http.request.method", account.method
    yield "http.route", account.route
    yield "http.response.status_code", account.status
    yield "inarch.request.id", account.id


def _generation(account: Account, answers: Answers, model: str) -> Iterator[tuple[str, Any]]:
    usage, params = answers.usage(), answers.params[0]
    yield "gen_ai.provider.name", "inarch"
    yield "gen_ai.request.model", model
    yield "gen_ai.response.model", model
    yield "gen_ai.response.id", answers.ids[0]
    yield "gen_ai.response.finish_reasons", account.finish_reasons
    yield "gen_ai.usage.input_tokens", usage["prompt_tokens"]
    yield "gen_ai.usage.output_tokens", usage["completion_tokens"]
    cached = usage["prompt_tokens_details"]["cached_tokens"]
    yield "gen_ai.usage.cache_read.input_tokens", cached
    if answers.choices > 1:
        yield "gen_ai.request.choice.count", answers.choices
    first = answers.stopwatch.first_token_s
    if first is not None:
        yield "gen_ai.response.time_to_first_chunk", first - account.received_s
    default = SamplingParams()
    for field, name in SAMPLING.items():
        value = getattr(params, field)
        if value != getattr(default, field):
            yield name, value


def _fail(span: trace.Span, error: Mapping[str, Any]) -> None:
    """What the server did not manage, also when a stream had begun; not what a client did wrong."""
    kind = error["code"] or error["type"]
    span.set_attribute("error.type", str(kind))
    span.set_status(Status(StatusCode.ERROR, str(kind)))
