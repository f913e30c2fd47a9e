"""The routes of the server, in one table: the application and /openapi.json are made from it."""

from __future__ import annotations

from collections.abc import Sequence

from inarch_server import decisions, info, live, page, responses, tokenizing
from inarch_server.chat_protocol import ChatRequest
from inarch_server.decisions_protocol import DecisionRequest
from inarch_server.foreign_routes import ANTHROPIC_ROUTES, OLLAMA_ROUTES
from inarch_server.native_routes import NATIVE_ROUTES
from inarch_server.openai_chat import chat_completions
from inarch_server.openai_completions import completions
from inarch_server.protocol import CompletionRequest
from inarch_server.responses_protocol import ResponsesRequest
from inarch_server.route import Route
from inarch_server.tokenizing import DetokenizeRequest, TokenizeRequest

ROUTES: Sequence[Route] = (
    Route("GET", "/", page.page, "A page to chat and to watch", "text/html"),
    Route("GET", "/static/{name}", page.static, "What the page is made of", "text/javascript"),
    Route("GET", "/live", live.live, "What runs now", "Live"),
    Route("GET", "/kernels", live.kernels, "The kernel of each op, and why", "Kernels"),
    Route("GET", "/cache_tree", live.cache_tree, "The prefix tree in outline", "CacheTree"),
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
    *ANTHROPIC_ROUTES,
    *OLLAMA_ROUTES,
    *NATIVE_ROUTES,
)
