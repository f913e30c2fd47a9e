"""The words of the language: functions that make expressions."""

from __future__ import annotations

import json
from collections.abc import Sequence as Listed
from typing import Any

from inarch.errors import InvalidRequestError
from inarch.grammar import Grammar
from inarch.lang.choices import ChoicesMethod, token_length_normalized
from inarch.lang.expressions import (
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

# What each dtype allows. White space is bounded: a model may write it for ever.
DTYPES = {
    "int": r"[+-]?[0-9]{1,18}",
    "float": r"[+-]?[0-9]{1,18}(\.[0-9]{1,18})?",
    "bool": r"True|False",
    "str": r'"[^"\\\n]*"',
}


def gen(
    name: str | None = None,
    max_tokens: int | None = None,
    *,
    choices: Listed[str] | None = None,
    choices_method: ChoicesMethod = token_length_normalized,
    stop: str | Listed[str] | None = None,
    stop_token_ids: Listed[int] | None = None,
    stop_regex: str | Listed[str] | None = None,
    dtype: str | type | None = None,
    regex: str | None = None,
    json_schema: str | dict[str, Any] | type | None = None,
    ebnf: str | None = None,
    return_logprob: bool | None = None,
    top_logprobs_num: int | None = None,
    **sampling: Any,
) -> Expression:
    """A part that the model writes, kept as the variable `name`.

    sampling: more fields of SamplingParams: min_tokens, n, temperature, top_p, top_k, min_p, seed,
    ignore_eos, penalties. json_schema: a schema, its text, or a pydantic class; with the class,
    `state[name]` is an object of it. return_logprob: see `state.get_meta_info(name)`. Raises
    InvalidRequestError for values that contradict each other.
    """
    if choices is not None:
        return select(name, choices, choices_method=choices_method)
    grammar = _grammar(dtype, regex, json_schema, ebnf)
    logprobs = top_logprobs_num if top_logprobs_num is not None else 0 if return_logprob else None
    stated = {
        "max_tokens": max_tokens,
        "stop": _several(stop),
        "stop_regex": _several(stop_regex),
        "stop_token_ids": None if stop_token_ids is None else tuple(stop_token_ids),
        "grammar": grammar,
        "logprobs": logprobs,
        **sampling,
    }
    unknown = set(stated) - set(SAMPLING)
    if unknown:
        raise InvalidRequestError(
            f"gen takes no {', '.join(sorted(unknown))}; it takes {', '.join(SAMPLING)}",
            param=min(unknown),
        )
    given = {key: value for key, value in stated.items() if value is not None}
    return Gen(name, given, json_schema if isinstance(json_schema, type) else None)


SAMPLING = (
    "max_tokens", "min_tokens", "n", "temperature", "top_p", "top_k", "min_p", "seed",
    "frequency_penalty", "presence_penalty", "repetition_penalty", "logit_bias", "ignore_eos",
    "stop", "stop_regex", "stop_token_ids", "grammar", "logprobs", "skip_special_tokens",
)  # fmt: skip


def gen_int(name: str | None = None, **sampling: Any) -> Expression:
    """A whole number, as text."""
    return gen(name, dtype=int, **sampling)


def gen_string(name: str | None = None, **sampling: Any) -> Expression:
    """A text in double quotes."""
    return gen(name, dtype=str, **sampling)


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


def image(source: str | bytes) -> Expression:
    """A picture: a path, a URL or the bytes of a file."""
    return Image(source)


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


def _several(value: str | Listed[str] | None) -> tuple[str, ...] | None:
    if value is None:
        return None
    return (value,) if isinstance(value, str) else tuple(value)


def _grammar(
    dtype: str | type | None,
    regex: str | None,
    json_schema: str | dict[str, Any] | type | None,
    ebnf: str | None,
) -> Grammar | None:
    given = {"dtype": dtype, "regex": regex, "json_schema": json_schema, "ebnf": ebnf}
    named = [name for name, value in given.items() if value is not None]
    if len(named) > 1:
        raise InvalidRequestError(
            f"gen takes one of {' and '.join(named)}, not both", param=named[1]
        )
    if dtype is not None:
        name = dtype if isinstance(dtype, str) else dtype.__name__
        if name not in DTYPES:
            raise InvalidRequestError(
                f"dtype must be one of {', '.join(DTYPES)}, got {name}", param="dtype"
            )
        return Grammar(kind="regex", source=DTYPES[name])
    if regex is not None:
        return Grammar(kind="regex", source=regex)
    if ebnf is not None:
        return Grammar(kind="ebnf", source=ebnf)
    return None if json_schema is None else Grammar(kind="json_schema", source=_schema(json_schema))


def _schema(given: str | dict[str, Any] | type) -> str:
    if isinstance(given, str):
        return given
    if isinstance(given, dict):
        return json.dumps(given)
    if not hasattr(given, "model_json_schema"):
        raise InvalidRequestError(
            f"json_schema takes a schema or a pydantic class, not {given.__name__}",
            param="json_schema",
        )
    return json.dumps(given.model_json_schema())
