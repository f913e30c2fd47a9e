"""Routes that read the text of an answer that somebody else has: its reasoning, its calls."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from inarch.errors import ConfigError, InvalidRequestError
from inarch.formats import Formats, choose_formats, parse
from inarch.parsing import Arguments, Call, Content, Reasoning, Template, Tool
from inarch.plugins import load_plugins
from inarch_server.http.body import Body, read_body
from inarch_server.http.encoding import json_response
from inarch_server.service import SERVICE


class Function(Body):
    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None


class ToolOf(Body):
    function: Function


class ParseRequest(Body):
    text: str
    tools: list[ToolOf]
    tool_call_parser: str | None = None  # the served model's by default


class SeparateRequest(Body):
    text: str
    reasoning_parser: str | None = None


async def parse_function_call(request: web.Request) -> web.Response:
    """{"normal_text", "calls": [{"name", "parameters", "tool_index"}]}, parameters as JSON text."""
    body = await read_body(request, ParseRequest)
    formats = _formats(request, tools=body.tool_call_parser)
    tools = [
        Tool(one.function.name, one.function.parameters or {}, one.function.description or "")
        for one in body.tools
    ]
    text, calls = "", dict[int, dict[str, Any]]()
    for delta in parse(Formats(tools=formats.tools).open_parser(tools), body.text):
        match delta:
            case Content():
                text += delta.text
            case Call():
                calls[delta.index] = {
                    "name": delta.name,
                    "parameters": "",
                    "tool_index": delta.index,
                }
            case Arguments():
                calls[delta.index]["parameters"] += delta.text
    return json_response({"normal_text": text, "calls": list(calls.values())})


async def separate_reasoning(request: web.Request) -> web.Response:
    """{"reasoning_text", "text"}"""
    body = await read_body(request, SeparateRequest)
    formats = _formats(request, reasoning=body.reasoning_parser)
    deltas = parse(Formats(reasoning=formats.reasoning).open_parser(), body.text)
    return json_response(
        {
            "reasoning_text": "".join(d.text for d in deltas if isinstance(d, Reasoning)),
            "text": "".join(d.text for d in deltas if isinstance(d, Content)),
        }
    )


def _formats(
    request: web.Request, *, tools: str | None = None, reasoning: str | None = None
) -> Formats:
    if tools is None and reasoning is None:
        return request.app[SERVICE].engine.formats
    try:
        return choose_formats(
            load_plugins(), Template("", ""), tool_call_parser=tools, reasoning_parser=reasoning
        )
    except ConfigError as error:
        param = "tool_call_parser" if tools is not None else "reasoning_parser"
        raise InvalidRequestError(str(error), param=param) from None
