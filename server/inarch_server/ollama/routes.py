"""Where Ollama's clients expect its API to be."""

from __future__ import annotations

from collections.abc import Sequence

from inarch_server.http.route import Route
from inarch_server.ollama import answers, models
from inarch_server.ollama.models import ShowRequest
from inarch_server.ollama.protocol import OllamaChatRequest, OllamaGenerateRequest

ROUTES: Sequence[Route] = (
    Route(
        "POST",
        "/api/chat",
        answers.chat,
        "Answer a conversation, in Ollama's words",
        "OllamaChat",
        OllamaChatRequest,
        streams=True,
    ),
    Route(
        "POST",
        "/api/generate",
        answers.generate,
        "Answer a prompt, in Ollama's words",
        "OllamaGenerated",
        OllamaGenerateRequest,
        streams=True,
    ),
    Route("GET", "/api/tags", models.tags, "The models that are served", "OllamaModels"),
    Route("GET", "/api/ps", models.ps, "The models that run", "OllamaModels"),
    Route(
        "POST",
        "/api/show",
        models.show,
        "What is known of a model",
        "OllamaModel",
        ShowRequest,
    ),
    Route("GET", "/api/version", models.version, "Of the API", "Version"),
)
