"""Where OpenAI's clients expect its API to be."""

from __future__ import annotations

from collections.abc import Sequence

from inarch_server.http.route import Route
from inarch_server.openai import models
from inarch_server.openai.chat import chat_completions
from inarch_server.openai.chat_protocol import ChatRequest
from inarch_server.openai.completions import completions
from inarch_server.openai.completions_protocol import CompletionRequest
from inarch_server.openai.responses import handlers
from inarch_server.openai.responses.input_items import input_items
from inarch_server.openai.responses.protocol import ResponsesRequest

ROUTES: Sequence[Route] = (
    Route("GET", "/v1/models", models.models, "The models that are served", "Models"),
    Route("GET", "/v1/models/{id:.+}", models.model, "One model", "Model"),
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
        handlers.create,
        "Answer a conversation, and keep it",
        "Response",
        ResponsesRequest,
        streams=True,
    ),
    Route("GET", "/v1/responses/{id}", handlers.retrieve, "A response again", "Response"),
    Route("DELETE", "/v1/responses/{id}", handlers.delete, "Forget a response", "Deleted"),
    Route(
        "GET", "/v1/responses/{id}/input_items", input_items, "What it was asked with", "ItemList"
    ),
    Route("POST", "/v1/responses/{id}/cancel", handlers.cancel, "Always refused", "Response"),
)
