"""The words of the language: functions that make expressions."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence as Listed
from dataclasses import replace
from typing import Any, Literal

from inarch.errors import InvalidRequestError
from inarch.lang.choices import ChoicesMethod, token_length_normalized
from inarch.lang.expressions import (
    MODELS_OWN,
    Expression,
    Gen,
    Image,
    Role,
    RoleBegin,
    RoleEnd,
    Select,
    Sequence,
    parts_of,
)
from inarch.lang.tools import Tool, made_tools
from inarch.lang.words import sampling_fields


def gen(
    name: str | None = None,
    max_tokens: int | None = None,
    *,
    choices: Listed[str] | None = None,
    choices_method: ChoicesMethod | None = None,
    tools: Listed[Tool | Callable[..., Any]] | None = None,
    tool_choice: Literal["auto", "required"] = "auto",
    json_schema: str | dict[str, Any] | type | None = None,
    lora: str | None = None,
    **sampling: Any,
) -> Expression:
    """A part that the model writes, kept as the variable `name`.

    max_tokens: 128 if neither `gen` nor `run` says. sampling: the words in words.py: min_tokens, n,
    stop, stop_regex, temperature, top_p, top_k, min_p, seed, ignore_eos, penalties, dtype, regex,
    ebnf, return_logprob (see `state.get_meta_info(name)`). json_schema: a schema, its text, or a
    pydantic class; with the class, `state[name]` is an object of it. tools: functions that the
    model may call: each call is run, its result told to the model, until it answers without one.
    lora: the adapter that it is written with, where what runs the program has adapters.
    Raises InvalidRequestError for values that contradict each other.
    """
    if choices is not None:
        if others := [
            word for word, value in {**sampling, "lora": lora}.items() if value is not None
        ]:
            temperature = sampling.get("temperature")
            if others != ["temperature"] or temperature:
                raise InvalidRequestError(
                    f"choices are compared, not drawn: {min(others)} does not go with them",
                    param=min(others),
                )
        return select(name, choices, choices_method=choices_method or token_length_normalized)
    if choices_method is not None:
        raise InvalidRequestError("choices_method needs choices", param="choices")
    fields = sampling_fields({"max_tokens": max_tokens, "json_schema": json_schema, **sampling})
    if tools and "grammar" in fields:
        raise InvalidRequestError(
            "an answer with tools is held to how calls are written: leave the grammar out and parse"
            " the answer in a gen of its own",
            param="tools",
        )
    model = json_schema if isinstance(json_schema, type) else None
    return Gen(name, fields, model, None, made_tools(tools or ()), tool_choice, lora)


def gen_int(name: str | None = None, max_tokens: int | None = None, **sampling: Any) -> Expression:
    """A whole number, as text."""
    return gen(name, max_tokens, dtype=int, **sampling)


def gen_string(
    name: str | None = None, max_tokens: int | None = None, **sampling: Any
) -> Expression:
    """A text in double quotes."""
    return gen(name, max_tokens, dtype=str, **sampling)


def separate_reasoning(content: Expression, model_type: str | None = None) -> Expression:
    """What the model writes in `content`, its reasoning apart: in NAME_reasoning_content.

    model_type: the format, such as "qwen3" or "deepseek-r1"; None: the one of the model. A server
    separates by its own --reasoning-parser.
    """
    parts = [
        replace(part, reasoning=model_type or MODELS_OWN) if isinstance(part, Gen) else part
        for part in parts_of(content)
    ]
    return Sequence(tuple(parts))


def select(
    name: str | None = None,
    choices: Listed[str] = (),
    temperature: float = 0.0,
    choices_method: ChoicesMethod = token_length_normalized,
) -> Expression:
    """One of the choices, kept as the variable `name`. Raises InvalidRequestError."""
    if temperature != 0:
        raise InvalidRequestError(
            f"select takes the best choice, at temperature 0, not {temperature:g}; to draw among "
            "choices use gen(regex='a|b|c')",
            param="temperature",
        )
    return Select(name, tuple(choices), choices_method)


def image(source: Any) -> Expression:
    """A picture in a message: a path, a URL, the bytes of a file, or a PIL image."""
    return Image(source)


def video(path: str, num_frames: int = 0) -> Expression:
    """Raises InvalidRequestError: nothing that runs programs is given videos yet."""
    raise InvalidRequestError(
        f"no video is read yet ({path}): give some of its frames by image(...)", param="video"
    )


def system(content: Expression | str | None = None) -> Expression:
    return _message("system", content)


def user(content: Expression | str | None = None) -> Expression:
    return _message("user", content)


def assistant(content: Expression | str | None = None) -> Expression:
    return _message("assistant", content)


def system_begin() -> Expression:
    return RoleBegin("system")


def system_end() -> Expression:
    return RoleEnd("system")


def user_begin() -> Expression:
    return RoleBegin("user")


def user_end() -> Expression:
    return RoleEnd("user")


def assistant_begin() -> Expression:
    return RoleBegin("assistant")


def assistant_end() -> Expression:
    return RoleEnd("assistant")


def _message(role: Role, content: Expression | str | None) -> Expression:
    inside = () if content is None else tuple(parts_of(content))
    return Sequence((RoleBegin(role), *inside, RoleEnd(role)))
