"""Where Anthropic's and Ollama's clients expect their APIs to be."""

from __future__ import annotations

from collections.abc import Sequence

from inarch_server import anthropic_messages, ollama_answers, ollama_models
from inarch_server.anthropic_protocol import CountTokensRequest, MessagesRequest
from inarch_server.ollama_models import ShowRequest
from inarch_server.ollama_protocol import OllamaChatRequest, OllamaGenerateRequest
from inarch_server.route import Route

ANTHROPIC_ROUTES: Sequence[Route] = (
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
)

OLLAMA_ROUTES: Sequence[Route] = (
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
    Route(
        "POST",
        "/api/show",
        ollama_models.show,
        "What is known of a model",
        "OllamaModel",
        ShowRequest,
    ),
    Route("GET", "/api/version", ollama_models.version, "Of the API", "Version"),
)
