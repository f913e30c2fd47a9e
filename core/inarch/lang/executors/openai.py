"""Runs programs on a server that speaks OpenAI's API: ours, or anybody's.

Prompts are text or messages here; an open message is continued where the server can do that, which is
an extension of the API that ours and other open servers share.
"""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from inarch.engine.text.tool_prompt import described
from inarch.errors import InarchError, InvalidRequestError
from inarch.lang.choices import Scored
from inarch.lang.executors.executor import Piece, Wanted
from inarch.lang.executors.http import Connection, cut_off
from inarch.lang.tools import CallMade
from inarch.lang.transcript import Transcript
from inarch.sampling import SamplingParams

# What everybody's API knows; the rest are extensions of open servers, sent where they are set.
STANDARD = (
    "max_tokens", "temperature", "top_p", "n", "seed", "stop", "frequency_penalty",
    "presence_penalty", "logit_bias",
)  # fmt: skip
EXTENSIONS = (
    "min_tokens", "top_k", "min_p", "repetition_penalty", "stop_regex", "stop_token_ids",
    "ignore_eos", "skip_special_tokens",
)  # fmt: skip


@dataclass
class TokenUsage:
    """What the server has counted, of all calls since the last `reset`."""

    prompt_tokens: int = 0
    completion_tokens: int = 0

    def reset(self) -> None:
        self.prompt_tokens = self.completion_tokens = 0

    def add(self, usage: Mapping[str, Any]) -> None:
        self.prompt_tokens += usage.get("prompt_tokens") or 0
        self.completion_tokens += usage.get("completion_tokens") or 0


class OpenAI:
    """model_name: as the server calls it. is_chat_model=False: plain text goes to /completions.

    api_key: else of the environment variable OPENAI_API_KEY. is_azure: model_name is a deployment
    of the resource at azure_endpoint; the key is else of AZURE_OPENAI_API_KEY.
    """

    no_pictures = ""
    writes_ahead = True

    def __init__(
        self,
        model_name: str,
        is_chat_model: bool | None = None,
        *,
        base_url: str = "https://api.openai.com/v1",
        api_key: str | None = None,
        is_azure: bool = False,
        azure_endpoint: str = "",
        api_version: str = "2024-10-21",
    ) -> None:
        instructed = "instruct" in model_name  # as OpenAI names those that take plain text
        self._chat_only = not instructed if is_chat_model is None else is_chat_model
        self._model, self._url, self._query = model_name, base_url.rstrip("/"), ""
        if is_azure:
            self._url = f"{azure_endpoint.rstrip('/')}/openai/deployments/{model_name}"
            self._query = f"?api-version={api_version}"
            key = api_key or os.environ.get("AZURE_OPENAI_API_KEY")
            self._http = Connection({"api-key": key} if key else {})
        else:
            key = api_key or os.environ.get("OPENAI_API_KEY")
            self._http = Connection({"Authorization": f"Bearer {key}"} if key else {})
        self.token_usage = TokenUsage()

    def defaults(self) -> Mapping[str, Any]:
        return {}  # the server has its own for what is not sent

    async def generate(self, transcript: Transcript, wanted: Wanted) -> AsyncGenerator[Piece, None]:
        route, prompt = _prompt(transcript, self._model, chat_only=self._chat_only)
        url = f"{self._url}{route}{self._query}"
        body = {
            **prompt,
            **_fields(wanted.params),
            "model": self._model,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        if wanted.tools:
            body["tools"] = [described(tool.described) for tool in wanted.tools]
            body["tool_choice"] = "required" if wanted.required else "auto"
        if wanted.lora is not None:
            body["lora_path"] = wanted.lora
        answer = _Answer(wanted)
        async for event in self._http.events(url, body):
            for piece in answer.read(event):
                yield piece
        self.token_usage.add(answer.usage)
        if not answer.complete(wanted.params.n):
            raise cut_off(url)
        for piece in answer.ends():
            yield piece

    async def prepare(self, transcript: Transcript) -> None:
        """Such a server remembers what it likes; it is not asked to."""

    async def score(
        self, transcript: Transcript, choices: Sequence[str], unconditional: bool
    ) -> list[Scored]:
        raise InarchError(
            "select needs the log-probabilities of given text, which OpenAI's API does not tell: run"
            " it on RuntimeEndpoint or Runtime, or use gen(regex='a|b|c') where the server knows it"
        )


class _Answer:
    """What the events of one request have said so far."""

    def __init__(self, wanted: Wanted) -> None:
        self._reasons: dict[int, str] = {}
        self.usage: dict[str, Any] = {}  # as the server counts
        self._calls: dict[int, dict[str, str]] = {}
        self._reasoning = wanted.reasoning is not None

    def read(self, event: Mapping[str, Any]) -> list[Piece]:
        self.usage = event.get("usage") or self.usage
        pieces = []
        for choice in event.get("choices", ()):
            index, delta = choice["index"], choice.get("delta") or choice
            if reason := choice.get("finish_reason"):
                self._reasons[index] = reason
            for call in delta.get("tool_calls") or ():
                self._call(call)
            reasoning = (delta.get("reasoning_content") or "") if self._reasoning else ""
            text = delta.get("content") or delta.get("text") or ""
            if text or reasoning:
                pieces.append(Piece(text, index, reasoning=reasoning))
        return pieces

    def _call(self, call: Mapping[str, Any]) -> None:
        made = self._calls.setdefault(call.get("index", 0), {"id": "", "name": "", "arguments": ""})
        made["id"] += call.get("id") or ""
        function = call.get("function") or {}
        made["name"] += function.get("name") or ""
        made["arguments"] += function.get("arguments") or ""

    def complete(self, samples: int) -> bool:
        return len(self._reasons) == samples

    def ends(self) -> list[Piece]:
        calls = tuple(CallMade(**self._calls[index]) for index in sorted(self._calls))
        return [
            Piece("", index, _meta(reason, self.usage), calls=calls if index == 0 else ())
            for index, reason in sorted(self._reasons.items())
        ]


def _prompt(transcript: Transcript, model: str, *, chat_only: bool) -> tuple[str, dict[str, Any]]:
    if not transcript.chat:
        if chat_only:
            raise InvalidRequestError(
                f"{model} takes messages: put text in user(...) and gen in assistant(...)"
            )
        return "/completions", {"prompt": transcript.content}
    if transcript.role != "assistant":
        raise InvalidRequestError("gen() belongs in a message of the assistant: assistant(gen())")
    return "/chat/completions", continued(transcript)


def continued(transcript: Transcript) -> dict[str, Any]:
    """The messages, of which the last may be the beginning of the answer."""
    messages = [message.as_dict() for message in transcript.messages]
    if not transcript.content:
        return {"messages": messages}
    messages.append({"role": "assistant", "content": transcript.content})
    return {"messages": messages, "continue_final_message": True, "add_generation_prompt": False}


def _fields(params: SamplingParams) -> dict[str, Any]:
    """What is set of the parameters, in the words of the API."""
    stated = msgspec.to_builtins(params)  # leaves defaults out
    fields = {name: stated[name] for name in (*STANDARD, *EXTENSIONS) if name in stated}
    if params.grammar is not None:
        fields |= _grammar(params.grammar.kind, params.grammar.source)
    if params.logprobs is not None:
        raise InvalidRequestError(
            "log-probabilities of generated tokens come from Runtime, Engine and RuntimeEndpoint",
            param="return_logprob",
        )
    return fields


def _grammar(kind: str, source: str) -> dict[str, Any]:
    if kind in ("regex", "ebnf"):
        return {kind: source}
    schema = {"name": "answer", "schema": msgspec.json.decode(source), "strict": True}
    return {"response_format": {"type": "json_schema", "json_schema": schema}}


def _meta(reason: str, usage: Mapping[str, Any]) -> dict[str, Any]:
    details = usage.get("prompt_tokens_details") or {}
    return {
        "finish_reason": {"type": reason},
        "prompt_tokens": usage.get("prompt_tokens"),
        "completion_tokens": usage.get("completion_tokens"),
        "cached_tokens": details.get("cached_tokens"),
    }
