"""What an answer is held to: the response format, the calls of tools, or either of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import msgspec

from inarch.errors import InvalidRequestError
from inarch.grammar import Grammar
from inarch.parsing import Choice, ReasoningFormat, Tool

if TYPE_CHECKING:
    from inarch.engine.async_engine import AsyncEngine
    from inarch.engine.tokenizer import Tokenizer
    from inarch_server.conversation import Conversation


def hold(engine: AsyncEngine, asked: Conversation, answer: Grammar | None) -> Grammar | None:
    """The grammar of what the model says next. `answer`: of an answer in which no tool is called.

    Raises InvalidRequestError for what contradicts itself, or cannot be held.
    """
    if not asked.tools or asked.choice is None:
        return answer
    if answer is None or asked.choice.kind != "auto":  # a call is sure: nothing else will be said
        return tool_grammar(engine, asked.tools, asked.choice, asked.name("tools"))
    surely = replace(asked.choice, kind="required")
    return _either(tool_grammar(engine, asked.tools, surely, asked.name("tools")), answer, asked)


def _either(calls: Grammar, answer: Grammar, asked: Conversation) -> Grammar:
    """Calls, or an answer."""
    if calls.kind != "structural_tag" or answer.kind not in AS_FORMAT:
        raise InvalidRequestError(
            f"{asked.name('answer')} of kind {answer.kind} together with tools that may or may not be"
            " called cannot be held to; send tool_choice required or none, or leave one of them out",
            param=asked.name("answer"),
        )
    tag = msgspec.json.decode(calls.source)
    tag["format"] = {"type": "or", "elements": [AS_FORMAT[answer.kind](answer), tag["format"]]}
    return Grammar(kind="structural_tag", source=msgspec.json.encode(tag).decode())


# Each kind of grammar as a part of a structural tag.
AS_FORMAT: Mapping[str, Callable[[Grammar], dict[str, Any]]] = {
    "json_object": lambda _: {"type": "json_schema", "json_schema": {"type": "object"}},
    "json_schema": lambda answer: {
        "type": "json_schema",
        "json_schema": msgspec.json.decode(answer.source),
    },
    "regex": lambda answer: {"type": "regex", "pattern": answer.source},
    "ebnf": lambda answer: {"type": "grammar", "grammar": answer.source},
}


def tool_grammar(
    engine: AsyncEngine, tools: Sequence[Tool], choice: Choice, called: str
) -> Grammar:
    """What holds calls to the schemas of their tools."""
    form = engine.formats.tools
    if form is None:
        raise InvalidRequestError(
            "this server looks for no calls (--tool-call-parser none): send tool_choice none, or"
            " leave the tools out",
            param=called,
        )
    return form.grammar(tools, choice)


def behind_reasoning(
    tokenizer: Tokenizer, reasoning: ReasoningFormat | None, prompt: str, grammar: Grammar
) -> tuple[str, Grammar]:
    """Hold what comes behind the reasoning alone. The prompt gets the marker that begins it.

    Whether a model reasons would else be its own choice, and an answer without reasoning be free.
    """
    end = prompt.rstrip()
    if reasoning is None or end.endswith(reasoning.end):
        return prompt, grammar
    if not end.endswith(reasoning.begin):
        prompt += reasoning.begin
    after = tuple(tokenizer.encode(reasoning.end, add_special_tokens=False))
    return prompt, msgspec.structs.replace(grammar, after=after)
