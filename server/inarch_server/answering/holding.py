"""What an answer is held to: the response format, the calls of tools, or either of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import msgspec

from inarch.errors import InvalidRequestError
from inarch.grammar import Grammar
from inarch.parsing import ToolFormat
from inarch_server.answering.closing import closed

if TYPE_CHECKING:
    from inarch.engine.async_engine import AsyncEngine
    from inarch_server.answering.conversation import Conversation


def hold(engine: AsyncEngine, asked: Conversation, answer: Grammar | None) -> Grammar | None:
    """The grammar of what the model says next. `answer`: of an answer in which no tool is called.

    Raises InvalidRequestError for what contradicts itself, or cannot be held.
    """
    if not asked.tools or asked.choice is None:
        return None if answer is None else checked(engine, answer, asked.name("answer"))
    form = engine.formats.tools
    if form is None:
        raise InvalidRequestError(
            "this server looks for no calls (--tool-call-parser none): send tool_choice none, or"
            " leave the tools out",
            param=asked.name("tools"),
        )
    tools = [replace(tool, parameters=closed(tool.parameters)) for tool in asked.tools]
    if answer is not None and asked.choice.kind == "auto":
        calls = form.grammar(tools, replace(asked.choice, kind="required"))
        return checked(engine, _either(form, calls, answer, asked), asked.name("answer"))
    grammar = form.grammar(tools, asked.choice)
    if asked.choice.kind == "auto" and grammar.kind not in engine.info.grammar_kinds:
        return None  # calls are read, and arguments are as good as the model is
    return checked(engine, grammar, asked.name("choice"))


def checked(engine: AsyncEngine, grammar: Grammar, called: str) -> Grammar:
    """Raises InvalidRequestError if nothing here can hold an answer to such a grammar."""
    if grammar.kind not in engine.info.grammar_kinds:
        raise InvalidRequestError(
            f"{called} needs an engine for grammars of the kind {grammar.kind}, and this server has"
            " none: pip install llguidance, or xgrammar, and start it again",
            param=called,
        )
    return grammar


def _either(form: ToolFormat, calls: Grammar, answer: Grammar, asked: Conversation) -> Grammar:
    """Calls, or an answer."""
    if form.reasons or calls.kind != "structural_tag" or answer.kind not in AS_FORMAT:
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


def behind_reasoning(
    engine: AsyncEngine, prompt: str, grammar: Grammar, *, calls: bool
) -> tuple[str, Grammar]:
    """Hold what comes behind the reasoning alone. The prompt gets the marker that begins it.

    Whether a model reasons would else be its own choice, and an answer without reasoning be free.
    calls: the grammar is one of calls, which may have reasoning in it already.
    """
    reasoning, end = engine.formats.reasoning, prompt.rstrip()
    if reasoning is None or end.endswith(reasoning.end):
        return prompt, grammar
    if calls and engine.formats.tools is not None and engine.formats.tools.reasons:
        return prompt, grammar
    if not end.endswith(reasoning.begin):
        prompt += reasoning.begin
    after = tuple(engine.tokenizer.encode(reasoning.end, add_special_tokens=False))
    return prompt, msgspec.structs.replace(grammar, after=after)
