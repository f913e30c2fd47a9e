"""Runs programs on a server that speaks Anthropic's API: theirs, ours, or anybody's."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any

import msgspec

from inarch.errors import InarchError, InvalidRequestError
from inarch.lang.choices import Scored
from inarch.lang.executors.executor import Piece, Wanted
from inarch.lang.executors.http import Connection, cut_off
from inarch.lang.transcript import Message, Transcript
from inarch.sampling import SamplingParams

VERSION = "2023-06-01"  # of the API
KNOWN = {"max_tokens": "max_tokens", "temperature": "temperature", "top_p": "top_p",
         "top_k": "top_k", "stop": "stop_sequences"}  # fmt: skip


class Anthropic:
    """model_name: as the server calls it. api_key: else of the environment variable
    ANTHROPIC_API_KEY."""

    no_pictures = ""
    writes_ahead = False  # an open message is continued, and prompts can be cached

    def __init__(
        self,
        model_name: str,
        *,
        base_url: str = "https://api.anthropic.com",
        api_key: str | None = None,
    ) -> None:
        self._model, self._url = model_name, f"{base_url.rstrip('/')}/v1/messages"
        key = api_key or os.environ.get("ANTHROPIC_API_KEY")
        self._http = Connection(
            {"anthropic-version": VERSION, **({"x-api-key": key} if key else {})}
        )

    def defaults(self) -> Mapping[str, Any]:
        return {}  # the server has its own for what is not sent

    async def generate(self, transcript: Transcript, wanted: Wanted) -> AsyncGenerator[Piece, None]:
        if wanted.tools:
            raise InvalidRequestError("tools run on Runtime, Engine, RuntimeEndpoint and OpenAI")
        if wanted.lora is not None:
            raise InvalidRequestError(
                "Anthropic's API has no adapters: leave lora out", param="lora"
            )
        body = {
            **_messages(transcript),
            **_fields(wanted.params),
            "model": self._model,
            "stream": True,
        }
        usage: dict[str, Any] = {}
        reason = None
        async for event in self._http.events(self._url, body):
            usage |= (event.get("message") or event).get("usage") or {}
            delta = event.get("delta") or {}
            reason = delta.get("stop_reason") or reason
            thought = delta.get("thinking", "") if wanted.reasoning is not None else ""
            if delta.get("text") or thought:
                yield Piece(delta.get("text", ""), reasoning=thought)
        if reason is None:
            raise cut_off(self._url)
        yield Piece("", meta=_meta(reason, usage))

    async def prepare(self, transcript: Transcript) -> None:
        """Such a server remembers what it likes; it is not asked to."""

    async def score(
        self, transcript: Transcript, choices: Sequence[str], unconditional: bool
    ) -> list[Scored]:
        raise InarchError(
            "select needs the log-probabilities of given text, which Anthropic's API does not tell:"
            " run it on RuntimeEndpoint or Runtime"
        )


def _messages(transcript: Transcript) -> dict[str, Any]:
    """Plain text is what a user says; an open message is the beginning of the answer."""
    if not transcript.chat:
        return {"messages": [{"role": "user", "content": transcript.content}]}
    if transcript.role != "assistant":
        raise InvalidRequestError("gen() belongs in a message of the assistant: assistant(gen())")
    said = transcript.messages
    system = "\n\n".join(message.content for message in said if message.role == "system")
    messages = [_as_dict(message) for message in said if message.role != "system"]
    if transcript.content:
        messages.append({"role": "assistant", "content": transcript.content})
    return {"messages": messages, **({"system": system} if system else {})}


def _as_dict(message: Message) -> dict[str, Any]:
    if not message.pictures:
        return message.as_dict()
    content = [
        {"type": "text", "text": part} if isinstance(part, str) else part.for_anthropic()
        for part in message.parts()
    ]
    return {"role": message.role, "content": content}


def _fields(params: SamplingParams) -> dict[str, Any]:
    stated = msgspec.to_builtins(params)  # leaves defaults out
    if unknown := sorted(set(stated) - set(KNOWN)):
        raise InvalidRequestError(
            f"Anthropic's API knows no {', '.join(unknown)}: leave it out, or run on Runtime",
            param=unknown[0],
        )
    return {KNOWN[name]: value for name, value in stated.items()}


def _meta(reason: str, usage: Mapping[str, Any]) -> dict[str, Any]:
    """Their input tokens are those that no cache had."""
    parts = ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")
    return {
        "finish_reason": {"type": reason},
        "prompt_tokens": sum(usage.get(part) or 0 for part in parts),
        "completion_tokens": usage.get("output_tokens"),
        "cached_tokens": usage.get("cache_read_input_tokens"),
    }
