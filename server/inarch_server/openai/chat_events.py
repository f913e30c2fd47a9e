"""A chat completion as it streams: pieces of an answer as OpenAI's chunks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from inarch.parsing import Arguments, Call, Content, Delta, Reasoning
from inarch_server.answering import logprobs
from inarch_server.answering.answers import Answers, Piece
from inarch_server.answering.reading import Reader
from inarch_server.openai.chat_protocol import ChatRequest
from inarch_server.openai.envelope import Envelope, OpenAIEvents

if TYPE_CHECKING:
    from inarch.engine.text.tokenizer import Tokenizer


class ChatEvents(OpenAIEvents):
    """The first event of a choice names the role; the last one has its finish_reason."""

    kind = "chat.completion.chunk"

    def __init__(
        self,
        envelope: Envelope,
        answers: Answers,
        body: ChatRequest,
        reader: Reader,
        tokenizer: Tokenizer,
    ) -> None:
        super().__init__(envelope, answers, body.stream_options)
        self._reader, self._tokenizer = reader, tokenizer
        self._with_logprobs = bool(body.logprobs)
        self._stream_reasoning = body.stream_reasoning is not False
        self._reasoned: dict[int, str] = {}  # what waits for the end of reasoning, by choice
        self._begun: set[int] = set()

    def usage(self) -> dict[str, Any]:
        return self._reader.usage()

    def choice(self, piece: Piece) -> dict[str, Any]:
        reason = piece.finish_reason
        delta: dict[str, Any]
        if self._reader.plain:
            delta = {"content": piece.text}
        else:
            said = self._reader.read(piece)
            delta, reason = self._delta(piece, said.deltas), said.finish_reason
        if piece.index not in self._begun:
            self._begun.add(piece.index)
            delta = {"role": "assistant", **delta}
        shown = logprobs.chat(self._tokenizer, piece.logprobs) if self._with_logprobs else None
        return {"index": piece.index, "delta": delta, "logprobs": shown, "finish_reason": reason}

    def _delta(self, piece: Piece, deltas: Sequence[Delta]) -> dict[str, Any]:
        if not self._stream_reasoning:
            deltas = self._reasoning_as_one(piece, deltas)
        worded: dict[str, Any] = {}
        for delta in deltas:
            match delta:
                case Content(text):
                    worded["content"] = worded.get("content", "") + text
                case Reasoning(text):
                    text = worded.get("reasoning", "") + text
                    worded |= {"reasoning_content": text, "reasoning": text}
                case Call() | Arguments():
                    _add_call(worded.setdefault("tool_calls", []), delta)
        return worded

    def _reasoning_as_one(self, piece: Piece, deltas: Sequence[Delta]) -> Sequence[Delta]:
        """Hold reasoning back until something else comes, or the answer ends."""
        new = "".join(delta.text for delta in deltas if isinstance(delta, Reasoning))
        waiting = self._reasoned.pop(piece.index, "") + new
        others = [delta for delta in deltas if not isinstance(delta, Reasoning)]
        if others or piece.finish_reason is not None:
            return [Reasoning(waiting), *others] if waiting else others
        self._reasoned[piece.index] = waiting
        return []


def _add_call(calls: list[dict[str, Any]], delta: Call | Arguments) -> None:
    """One entry a call: what is new of it, with its id and name where it begins."""
    if isinstance(delta, Call):
        function = {"name": delta.name, "arguments": ""}
        calls.append(
            {"index": delta.index, "id": delta.id, "type": "function", "function": function}
        )
    elif calls and calls[-1]["index"] == delta.index:
        calls[-1]["function"]["arguments"] += delta.text
    else:
        calls.append({"index": delta.index, "function": {"arguments": delta.text}})
