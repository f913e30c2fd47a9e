"""Anthropic's API: /v1/messages, whole and streamed."""
