"""What an answer is held to: the response format, the calls of tools, or either of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import msgspec

from inarch.errors import InvalidRequestError
from inarch.formats import Formats
from inarch.grammar import Grammar
from inarch.parsing import Choice, Tool

if TYPE_CHECKING:
    from inarch.engine.async_engine import AsyncEngine
    from inarch.engine.tokenizer import Tokenizer
    from inarch_server.conversation import Conversation


def hold(
    engine: AsyncEngine, asked: Conversation, given: Grammar | None, prompt_end: str
) -> Grammar | None:
    """The grammar of an answer. `given`: one that the client spelled out beside all this.

    Raises InvalidRequestError for what contradicts itself, or cannot be held.
    """
    if given is not None and asked.answer is not None:
        raise InvalidRequestError(
            f"{asked.name('answer')} and {given.kind} both say what the answer may be: send one",
            param=asked.name("answer"),
        )
    answer = asked.answer or given
    if not asked.tools or asked.choice is None:
        grammar = answer
    else:
        grammar = _with_tools(engine, asked, asked.choice, answer)
    if grammar is None:
        return None
    return msgspec.structs.replace(
        grammar, after=reasoning_ahead(engine.tokenizer, engine.formats, prompt_end)
    )


def _with_tools(
    engine: AsyncEngine, asked: Conversation, choice: Choice, answer: Grammar | None
) -> Grammar | None:
    if answer is None or choice.kind != "auto":  # a call is sure: nothing else will be said
        return tool_grammar(engine, asked.tools, choice, asked.name("tools"))
    surely = replace(choice, kind="required")
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


def reasoning_ahead(tokenizer: Tokenizer, formats: Formats, prompt_end: str) -> tuple[int, ...]:
    """The tokens that end the reasoning which comes before the answer; () if none comes."""
    reasoning = formats.reasoning
    if reasoning is None or prompt_end.rstrip().endswith(reasoning.end):
        return ()
    return tuple(tokenizer.encode(reasoning.end, add_special_tokens=False))
