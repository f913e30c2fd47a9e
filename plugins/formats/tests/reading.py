"""What the tests of formats share: a parser's deltas, put together."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from inarch.parsing import Arguments, Call, Content, Delta, Parser, Reasoning, Tool

WEATHER = Tool(
    "get_weather",
    {
        "type": "object",
        "properties": {
            "city": {"type": "string"},
            "days": {"type": "integer"},
            "metric": {"type": "boolean"},
            "tags": {"type": "array", "items": {"type": "string"}},
            "near": {"type": "object", "properties": {"lat": {"type": "number"}}},
        },
        "required": ["city"],
    },
)
TIME = Tool("get_time", {"type": "object", "properties": {}})
TOOLS = (WEATHER, TIME)


@dataclass
class Answer:
    """A whole answer. order: its parts as they came, for what lies between what."""

    content: str = ""
    reasoning: str = ""
    calls: list[tuple[str, str]] = field(default_factory=list)  # name and arguments
    ids: list[str | None] = field(default_factory=list)
    order: list[tuple[str, str]] = field(default_factory=list)  # neighbours of a kind are joined


def deltas(parser: Parser, pieces: Iterable[str]) -> list[Delta]:
    found = [delta for piece in pieces for delta in parser.feed(piece)]
    return found + parser.end()


def assembled(found: Iterable[Delta]) -> Answer:
    answer = Answer()
    for delta in found:
        match delta:
            case Call(index, name, id):
                assert index == len(answer.calls), "calls are counted from 0"
                answer.calls.append((name, ""))
                answer.ids.append(id)
                kind, text = f"call {index}", name + " "
            case Arguments(index, text):
                assert index == len(answer.calls) - 1, "arguments are of the last call"
                name, before = answer.calls[index]
                answer.calls[index] = (name, before + text)
                kind = f"call {index}"
            case Content(text):
                answer.content += text
                kind = "content"
            case Reasoning(text):
                answer.reasoning += text
                kind = "reasoning"
        assert text, f"{delta} says nothing"
        if answer.order and answer.order[-1][0] == kind:
            kind, before = answer.order.pop()
            text = before + text
        answer.order.append((kind, text))
    return answer


def read(parser: Parser, text: str) -> Answer:
    return assembled(deltas(parser, [text]))
