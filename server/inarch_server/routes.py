"""The routes of the server, in one table: the application and /openapi.json are made from it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass

from aiohttp import web

from inarch_server import (
    anthropic_messages,
    decisions,
    info,
    ollama_answers,
    ollama_models,
    responses,
    tokenizing,
)
from inarch_server.anthropic_protocol import CountTokensRequest, MessagesRequest
from inarch_server.body import Body
from inarch_server.chat_protocol import ChatRequest
from inarch_server.decisions_protocol import DecisionRequest
from inarch_server.native import generate
from inarch_server.native_protocol import GenerateRequest
from inarch_server.ollama_models import ShowRequest
from inarch_server.ollama_protocol import OllamaChatRequest, OllamaGenerateRequest
from inarch_server.openai_chat import chat_completions
from inarch_server.openai_completions import completions
from inarch_server.protocol import CompletionRequest
from inarch_server.responses_protocol import ResponsesRequest
from inarch_server.tokenizing import DetokenizeRequest, TokenizeRequest

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True)
class Route:
    """One path with what is sent to it and what comes back.

    answer: name of the schema of its JSON in openapi_answers, or a media type if it is no JSON.
    streams: the body's `stream` may make it answer piece by piece. also: further paths
    and methods that do the same.
    """

    method: str
    path: str
    handler: Handler
    summary: str
    answer: str
    body: type[Body] | None = None
    streams: bool = False
    also: Sequence[tuple[str, str]] = ()

    @property
    def ways(self) -> Iterator[tuple[str, str]]:
        """Method and path."""
        yield self.method, self.path
        yield from self.also


ROUTES: Sequence[Route] = (
    Route("GET", "/", info.page, "A page to chat on", "text/html"),
    Route("GET", "/health", info.health, "Whether a token can be made", "Status"),
    Route("GET", "/health_generate", info.health_generate, "Make a token to find out", "Status"),
    Route("GET", "/metrics", info.metrics, "Numbers for Prometheus", "text/plain"),
    Route("GET", "/v1/models", info.models, "The models that are served", "Models"),
    Route("GET", "/v1/models/{id:.+}", info.model, "One model", "Model"),
    Route(
        "POST",
        "/v1/chat/completions",
        chat_completions,
        "Answer a conversation",
        "ChatCompletion",
        ChatRequest,
        streams=True,
    ),
    Route(
        "POST",
        "/v1/completions",
        completions,
        "Continue texts",
        "Completion",
        CompletionRequest,
        streams=True,
    ),
    Route(
        "POST",
        "/v1/responses",
        responses.create,
        "Answer a conversation, and keep it",
        "Response",
        ResponsesRequest,
        streams=True,
    ),
    Route("GET", "/v1/responses/{id}", responses.retrieve, "A response again", "Response"),
    Route("DELETE", "/v1/responses/{id}", responses.delete, "Forget a response", "Deleted"),
    Route("POST", "/v1/responses/{id}/cancel", responses.cancel, "Always refused", "Response"),
    Route(
        "POST",
        "/v1/messages",
        anthropic_messages.messages,
        "Answer a conversation, in Anthropic's words",
        "AnthropicMessage",
        MessagesRequest,
        streams=True,
    ),
    Route(
        "POST",
        "/v1/messages/count_tokens",
        anthropic_messages.count_tokens,
        "Tokens of a conversation",
        "TokenCount",
        CountTokensRequest,
    ),
    Route(
        "POST",
        "/api/chat",
        ollama_answers.chat,
        "Answer a conversation, in Ollama's words",
        "OllamaChat",
        OllamaChatRequest,
        streams=True,
    ),
    Route(
        "POST",
        "/api/generate",
        ollama_answers.generate,
        "Answer a prompt, in Ollama's words",
        "OllamaGenerated",
        OllamaGenerateRequest,
        streams=True,
    ),
    Route("GET", "/api/tags", ollama_models.tags, "The models that are served", "OllamaModels"),
    Route("GET", "/api/ps", ollama_models.ps, "The models that run", "OllamaModels"),
    Route("POST", "/api/show", ollama_models.show, "One model", "OllamaModel", ShowRequest),
    Route("GET", "/api/version", ollama_models.version, "Of the API", "Version"),
    Route(
        "POST",
        "/v1/decisions",
        decisions.decisions,
        "Answer questions with probabilities",
        "Decision",
        DecisionRequest,
    ),
    Route(
        "POST",
        "/v1/tokenize",
        tokenizing.tokenize,
        "Token ids of a text or a conversation",
        "Tokens",
        TokenizeRequest,
        also=(("POST", "/tokenize"),),
    ),
    Route(
        "POST",
        "/v1/detokenize",
        tokenizing.detokenize,
        "Text of token ids",
        "Text",
        DetokenizeRequest,
        also=(("POST", "/detokenize"),),
    ),
    Route(
        "POST",
        "/generate",
        generate,
        "SGLang's native request",
        "Generated",
        GenerateRequest,
        streams=True,
        also=(("PUT", "/generate"),),
    ),
)
