"""An answer of /v1/messages as it comes to be: deltas become blocks, and the events that tell of them.

Whole answers go the same way and leave the events out, so both always say the same.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from inarch.parsing import Arguments, Call, Content, Delta, Reasoning
from inarch_server.answering.reading import parsed_arguments

Event = dict[str, Any]
Block = dict[str, Any]

# Clients send reasoning back only if it is signed. This server trusts what it gets.
SIGNATURE = "unsigned"


class Blocks:
    """show_thinking: whether reasoning is told, or only that there was some."""

    def __init__(self, *, show_thinking: bool = True) -> None:
        self.blocks: list[Block] = []
        self._show_thinking = show_thinking
        self._open = False  # whether the last block is still being written
        self._arguments = ""  # of the call that is being written

    def add(self, deltas: Iterable[Delta]) -> list[Event]:
        events: list[Event] = []
        for delta in deltas:
            match delta:
                case Content(text):
                    events += self._switch({"type": "text", "text": ""})
                    self.blocks[-1]["text"] += text
                    events.append(self._delta("text_delta", text=text))
                case Reasoning(text):
                    events += self._switch({"type": "thinking", "thinking": "", "signature": ""})
                    if self._show_thinking:
                        self.blocks[-1]["thinking"] += text
                        events.append(self._delta("thinking_delta", thinking=text))
                case Call():
                    call = {"type": "tool_use", "id": delta.id, "name": delta.name}
                    events += [*self.close(), *self._begin({**call, "input": {}})]
                case Arguments(_, text):
                    self._arguments += text
                    events.append(self._delta("input_json_delta", partial_json=text))
        return events

    def close(self) -> list[Event]:
        """End the block that is being written, if there is one."""
        if not self._open:
            return []
        self._open = False
        block, events = self.blocks[-1], []
        match block["type"]:
            case "thinking":
                block["signature"] = SIGNATURE
                events.append(self._delta("signature_delta", signature=SIGNATURE))
            case "tool_use":
                block["input"], self._arguments = parsed_arguments(self._arguments), ""
        return [*events, {"type": "content_block_stop", "index": len(self.blocks) - 1}]

    def _switch(self, block: Block) -> list[Event]:
        """Go on with the block that is being written if it is such a one, else begin `block`."""
        if self._open and self.blocks[-1]["type"] == block["type"]:
            return []
        return [*self.close(), *self._begin(block)]

    def _begin(self, block: Block) -> list[Event]:
        self.blocks.append(block)
        self._open = True
        index = len(self.blocks) - 1
        return [{"type": "content_block_start", "index": index, "content_block": dict(block)}]

    def _delta(self, kind: str, **fields: str) -> Event:
        index = len(self.blocks) - 1
        return {"type": "content_block_delta", "index": index, "delta": {"type": kind, **fields}}
