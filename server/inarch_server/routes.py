"""The routes of the server, in one table: the application and /openapi.json are made from it."""

from __future__ import annotations

from collections.abc import Sequence

from inarch_server import page
from inarch_server.anthropic.routes import ROUTES as ANTHROPIC
from inarch_server.decisions.decide import decisions
from inarch_server.decisions.protocol import DecisionRequest
from inarch_server.encoding.routes import ROUTES as ENCODING
from inarch_server.http.route import Route
from inarch_server.native.routes import ROUTES as NATIVE
from inarch_server.ollama.routes import ROUTES as OLLAMA
from inarch_server.openai.routes import ROUTES as OPENAI
from inarch_server.watching import info, live

ROUTES: Sequence[Route] = (
    Route("GET", "/", page.page, "A page to chat and to watch", "text/html"),
    Route("GET", "/static/{name}", page.static, "What the page is made of", "text/javascript"),
    Route("GET", "/live", live.live, "What runs now", "Live"),
    Route("GET", "/kernels", live.kernels, "The kernel of each op, and why", "Kernels"),
    Route("GET", "/cache_tree", live.cache_tree, "The prefix tree in outline", "CacheTree"),
    Route("GET", "/health", info.health, "Whether a token can be made", "Status"),
    Route("GET", "/health_generate", info.health_generate, "Make a token to find out", "Status"),
    Route("GET", "/metrics", info.metrics, "Numbers for Prometheus", "text/plain"),
    *OPENAI,
    Route(
        "POST",
        "/v1/decisions",
        decisions,
        "Answer questions with probabilities",
        "Decision",
        DecisionRequest,
    ),
    *ENCODING,
    *ANTHROPIC,
    *OLLAMA,
    *NATIVE,
)
