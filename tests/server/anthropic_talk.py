"""Anthropic's own client on a server of the tests, and its streams as they go over the wire."""

from __future__ import annotations

import json
from typing import Any

import anthropic

from .harness import Server

MESSAGES = "/v1/messages"
ASK: dict[str, Any] = {
    "model": "standin",
    "max_tokens": 500,
    "messages": [{"role": "user", "content": "Hi"}],
}
WEATHER: dict[str, Any] = {
    "name": "weather",
    "description": "Tell the weather",
    "input_schema": {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
        "additionalProperties": False,
    },
}
CLOCK: dict[str, Any] = {"name": "clock", "input_schema": {"type": "object", "properties": {}}}


def client(server: Server, key: str = "any") -> anthropic.Anthropic:
    return anthropic.Anthropic(base_url=server.url, api_key=key, max_retries=0)


def events(server: Server, body: dict[str, Any]) -> list[dict[str, Any]]:
    """Those of a stream, each of which must be named by its type."""
    answer = server.post(MESSAGES, body | {"stream": True})
    assert answer.status == 200, answer.body
    assert answer.headers["Content-Type"] == "text/event-stream"
    *blocks, rest = answer.body.decode().split("\n\n")
    assert rest == ""
    found = []
    for block in blocks:
        name, data = block.split("\n")
        found.append(json.loads(data.removeprefix("data: ")))
        assert name == f"event: {found[-1]['type']}"
    return found


def put_together(found: list[dict[str, Any]]) -> dict[str, Any]:
    """The message of a stream, by what Anthropic's documentation says of its events: start, blocks one
    after the other, delta, stop, and pings anywhere."""
    first, *middle, delta, last = [event for event in found if event["type"] != "ping"]
    assert (first["type"], delta["type"], last["type"]) == (
        "message_start",
        "message_delta",
        "message_stop",
    )
    message = first["message"]
    assert message["content"] == []
    blocks: list[dict[str, Any]] = []
    is_open, arguments = False, ""
    for event in middle:
        match event["type"]:
            case "content_block_start":
                assert not is_open
                assert event["index"] == len(blocks)
                blocks.append(event["content_block"])
                is_open, arguments = True, ""
            case "content_block_delta":
                assert is_open
                assert event["index"] == len(blocks) - 1
                change = dict(event["delta"])
                kind, block = change.pop("type"), blocks[-1]
                ((field, text),) = change.items()
                assert kind == f"{'input_json' if field == 'partial_json' else field}_delta"
                if field == "partial_json":
                    arguments += text
                else:
                    block[field] += text
            case "content_block_stop":
                assert is_open
                is_open = False
                if blocks[-1]["type"] == "tool_use":
                    blocks[-1]["input"] = json.loads(arguments or "{}")
            case other:
                raise AssertionError(other)
    assert not is_open
    return {**message, "content": blocks, **delta["delta"], "usage": delta["usage"]}
