"""What may be said of sampling, in SGLang's words, and what SamplingParams makes of it.

`gen` and `run` take the same words: those of a `gen` hold for it alone, those of `run` for every `gen`
that sets none of its own.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from inarch.errors import InvalidRequestError
from inarch.grammar import Grammar

# As much as a call writes that says nothing of it, so that a model which never ends leaves room.
MAX_TOKENS = 128

FIELDS = (
    "max_tokens", "min_tokens", "n", "temperature", "top_p", "top_k", "min_p", "seed",
    "frequency_penalty", "presence_penalty", "repetition_penalty", "logit_bias", "ignore_eos",
    "stop", "stop_regex", "stop_token_ids", "skip_special_tokens",
)  # fmt: skip
SAME = {"max_new_tokens": "max_tokens", "min_new_tokens": "min_tokens"}
LOGPROBS = ("return_logprob", "top_logprobs_num", "logprob_start_len", "return_text_in_logprobs")
GRAMMARS = ("dtype", "regex", "json_schema", "ebnf")
WORDS = (*FIELDS, *SAME, *LOGPROBS, *GRAMMARS)

# What each dtype allows. White space is bounded: a model may write it for ever.
DTYPES = {
    "int": r"[+-]?[0-9]{1,18}",
    "float": r"[+-]?[0-9]{1,18}(\.[0-9]{1,18})?",
    "bool": r"True|False",
    "str": r'"[^"\\\n]*"',
}


def sampling_fields(words: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of SamplingParams. Raises InvalidRequestError for words that are unknown or contradict
    each other."""
    given = {word: value for word, value in words.items() if value is not None}
    if unknown := sorted(set(given) - set(WORDS)):
        raise InvalidRequestError(
            f"gen takes no {', '.join(unknown)}; it takes {', '.join(WORDS)}", param=unknown[0]
        )
    fields = {SAME.get(word, word): given[word] for word in (*FIELDS, *SAME) if word in given}
    for word in ("stop", "stop_regex"):
        if isinstance(fields.get(word), str):
            fields[word] = (fields[word],)
    for word in ("stop", "stop_regex", "stop_token_ids"):
        if word in fields:
            fields[word] = tuple(fields[word])
    grammar = _grammar({word: given[word] for word in GRAMMARS if word in given})
    return fields | _logprobs(given) | ({} if grammar is None else {"grammar": grammar})


def _logprobs(given: Mapping[str, Any]) -> dict[str, int]:
    """The texts of tokens are told anyway, so return_text_in_logprobs asks for nothing more."""
    top = given.get("top_logprobs_num")
    if not given.get("return_logprob", top is not None):
        return {}
    start = given.get("logprob_start_len", -1)
    of_prompt = {"prompt_logprobs": top or 0, "logprob_start": start} if start >= 0 else {}
    return {"logprobs": top or 0, **of_prompt}


def _grammar(given: Mapping[str, Any]) -> Grammar | None:
    if len(given) > 1:
        first, second, *_ = given
        raise InvalidRequestError(f"gen takes one of {first} and {second}, not both", param=second)
    match dict(given):
        case {"dtype": dtype}:
            name = dtype if isinstance(dtype, str) else getattr(dtype, "__name__", repr(dtype))
            if name not in DTYPES:
                raise InvalidRequestError(
                    f"dtype must be one of {', '.join(DTYPES)}, got {name}", param="dtype"
                )
            return Grammar(kind="regex", source=DTYPES[name])
        case {"regex": source}:
            return Grammar(kind="regex", source=source)
        case {"ebnf": source}:
            return Grammar(kind="ebnf", source=source)
        case {"json_schema": schema}:
            return Grammar(kind="json_schema", source=_schema(schema))
    return None


def _schema(given: str | dict[str, Any] | type) -> str:
    if isinstance(given, str):
        return given
    if isinstance(given, dict):
        return json.dumps(given)
    if not hasattr(given, "model_json_schema"):
        name = getattr(given, "__name__", repr(given))
        raise InvalidRequestError(
            f"json_schema takes a schema or a pydantic class, not {name}", param="json_schema"
        )
    return json.dumps(given.model_json_schema())
