"""A response as it comes to be: deltas become output items, and the events that tell of them.

Whole answers go the same way and leave the events out, so both always say the same.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence
from typing import Any

from inarch.parsing import Arguments, Call, Content, Delta, Reasoning
from inarch_server.openai.responses.items import Item

Event = dict[str, Any]


class Output:
    """The output items of one response. What it returns are events without sequence numbers."""

    def __init__(self) -> None:
        self.items: list[Item] = []
        self._open = False  # whether the last item is still being written

    def add(self, deltas: Iterable[Delta], logprobs: Sequence[dict[str, Any]] = ()) -> list[Event]:
        """`logprobs`: of the tokens of this piece, if they are wanted."""
        events: list[Event] = []
        for delta in deltas:
            match delta:
                case Content(text):
                    events += self._switch("message")
                    events += self._text(text, logprobs)
                    logprobs = ()
                case Reasoning(text):
                    events += self._switch("reasoning")
                    events += self._text(text, ())
                case Call():
                    events += [*self._close("completed"), *self._begin(_call(delta))]
                case Arguments():
                    self.items[-1]["arguments"] += delta.text
                    events.append(self._event("function_call_arguments.delta", delta=delta.text))
        if logprobs and self._open and self.items[-1]["type"] == "message":
            events += self._text("", logprobs)  # of tokens whose text is held back, or has none
        return events

    def end(self, status: str) -> list[Event]:
        """status: "completed" or "incomplete". An answer that says nothing is an empty message."""
        events = self._switch("message") if not self.items else []
        return events + self._close(status)

    def _switch(self, kind: str) -> list[Event]:
        if self._open and self.items[-1]["type"] == kind:
            return []
        item = _message() if kind == "message" else _reasoning()
        events = [*self._close("completed"), *self._begin(item)]
        events.append(self._event("content_part.added", content_index=0, part=_part(kind)))
        item["content"].append(_part(kind))
        return events

    def _begin(self, item: Item) -> list[Event]:
        self.items.append(item)
        self._open = True
        shown = {**item, "content": []} if "content" in item else dict(item)
        return [self._event("output_item.added", item=shown)]

    def _text(self, text: str, logprobs: Sequence[dict[str, Any]]) -> list[Event]:
        (part,) = self.items[-1]["content"]
        part["text"] += text
        fields: dict[str, Any] = {"content_index": 0, "delta": text}
        if part["type"] == "output_text":
            part["logprobs"] += logprobs
            fields["logprobs"] = list(logprobs)
        return [self._event(f"{part['type']}.delta", **fields)]

    def _close(self, status: str) -> list[Event]:
        if not self._open:
            return []
        self._open = False
        item = self.items[-1]
        item["status"] = status
        if item["type"] == "function_call":
            done = self._event(
                "function_call_arguments.done", arguments=item["arguments"], name=item["name"]
            )
            return [done, self._event("output_item.done", item=dict(item))]
        (part,) = item["content"]
        fields = {"logprobs": part["logprobs"]} if part["type"] == "output_text" else {}
        return [
            self._event(f"{part['type']}.done", content_index=0, text=part["text"], **fields),
            self._event("content_part.done", content_index=0, part=dict(part)),
            self._event("output_item.done", item=dict(item)),
        ]

    def _event(self, kind: str, /, **fields: Any) -> Event:
        """An event about the last item."""
        event: Event = {"type": f"response.{kind}", "output_index": len(self.items) - 1}
        if "item" not in fields:
            event["item_id"] = self.items[-1]["id"]
        return event | fields


def _name(prefix: str) -> str:
    return f"{prefix}_{uuid.uuid4().hex}"


def _message() -> Item:
    return {
        "id": _name("msg"),
        "type": "message",
        "role": "assistant",
        "status": "in_progress",
        "content": [],
    }


def _part(kind: str) -> dict[str, Any]:
    if kind == "reasoning":
        return {"type": "reasoning_text", "text": ""}
    return {"type": "output_text", "text": "", "annotations": [], "logprobs": []}


def _reasoning() -> Item:
    return {
        "id": _name("rs"),
        "type": "reasoning",
        "summary": [],
        "content": [],
        "status": "in_progress",
    }


def _call(call: Call) -> Item:
    return {
        "id": _name("fc"),
        "type": "function_call",
        "call_id": call.id,
        "name": call.name,
        "arguments": "",
        "status": "in_progress",
    }
