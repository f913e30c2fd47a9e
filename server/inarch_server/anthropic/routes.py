"""Where Anthropic's clients expect its API to be."""

from __future__ import annotations

from collections.abc import Sequence

from inarch_server.anthropic import messages
from inarch_server.anthropic.protocol import CountTokensRequest, MessagesRequest
from inarch_server.http.route import Route

ROUTES: Sequence[Route] = (
    Route(
        "POST",
        "/v1/messages",
        messages.messages,
        "Answer a conversation, in Anthropic's words",
        "AnthropicMessage",
        MessagesRequest,
        streams=True,
    ),
    Route(
        "POST",
        "/v1/messages/count_tokens",
        messages.count_tokens,
        "Tokens of a conversation",
        "TokenCount",
        CountTokensRequest,
    ),
)
