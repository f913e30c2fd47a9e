"""Python's literals become the JSON that means the same. Python itself is the oracle."""

from __future__ import annotations

import ast
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inarch_formats.python_text import copy_literal
from inarch_formats.reader import MalformedError, Reader


def converted(source: str) -> str:
    """JSON of a literal, fed character by character with something behind it."""
    reader, taken = Reader(), []
    steps = copy_literal(reader, taken.append)
    for character in source + ")":
        reader.rest += character
        if next(steps, steps) is steps:
            break
    assert reader.rest in ("", ")"), "what stands behind the literal is left unread"
    return "".join(taken)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(-1e9, 1e9) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip


@given(value=VALUES)
@settings(max_examples=100, deadline=None)
def test_what_python_writes_is_read_back(value):
    assert json.loads(converted(repr(value))) == value


@pytest.mark.parametrize(
    "source",
    [
        '"""a "b" ""c"""',
        "'''it's\n'''",
        "''",
        '""',
        r"'\x41\u00e9\U0001f600\\\'\a\0\q'",
        "'a\\\nb'",
        "1_000",
        ".5",
        "-0x10",
        "{'a': [1, 2,], }",
        "[ ]",
    ],
)
@pytest.mark.filterwarnings("ignore:invalid escape sequence:DeprecationWarning")
def test_other_ways_to_write_a_literal(source):
    assert json.loads(converted(source)) == ast.literal_eval(source)


def test_tuples_are_lists_and_words_of_json_are_understood():
    assert converted("(1, true, null)") == "[1, true, null]"


@pytest.mark.parametrize("number", ["1e999", "-0.5E-3", "1" + 5000 * "0"])
def test_numbers_of_json_are_left_as_they_are(number):
    assert converted(number) == number


def test_halves_of_a_character_join_as_in_json():
    assert json.loads(converted(r"'\ud83d\ude00'")) == "\U0001f600"


@pytest.mark.parametrize("source", ["city", "{1: 2}", "[1 2]", "1_0e999", "[" * 99, r"'\uzzzz'"])
def test_what_is_no_literal_is_refused(source):
    with pytest.raises(MalformedError):
        converted(source)
