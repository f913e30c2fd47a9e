"""Whatever fails, the error names the line of the program."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import inarch.lang as sgl
from inarch.errors import InvalidRequestError
from inarch.lang import Program, State

pytestmark = pytest.mark.timeout(60)


@sgl.function
def program(s: State, a: str) -> None:
    s += "x" + a + sgl.gen("y", max_tokens=1)


@sgl.function
def too_long(s: State, a: str) -> None:
    s += "word " * 5000
    s += a + sgl.gen("x", max_tokens=1)


def line_of(program: Program[Any], further: int = 0) -> str:
    """What the error says; further: lines behind that of the decorator."""
    code = program.func.__code__
    return f'test_places.py", line {code.co_firstlineno + further}, in {code.co_name})'


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: program.bind(b=1), "unexpected keyword argument 'b'; the program takes a, and"),
        (lambda: program.trace(b=1), "unexpected keyword argument 'b'"),
        (lambda: program.cache(b=1), "unexpected keyword argument 'b'"),
        (lambda: program.run("a", temprature=1), "unexpected keyword argument 'temprature'"),
        (lambda: program.run_batch([{"a": "1"}, {"b": "1"}]), "missing a required argument: 'a'"),
    ],
)
def test_wrong_arguments_name_the_program(call: Callable[[], object], message: str) -> None:
    with pytest.raises(sgl.ProgramError) as caught:
        call()
    assert message in str(caught.value)
    assert line_of(program) in str(caught.value)


def test_a_prefix_that_cannot_be_computed_names_the_program_and_spoils_no_batch() -> None:
    with pytest.raises(sgl.ProgramError, match="context length is 2048") as caught:
        too_long.cache()
    assert line_of(too_long) in str(caught.value)
    for state in too_long.run_batch([{"a": "1"}, {"a": "2"}]):
        assert line_of(too_long, 3) in str(state.error())


@sgl.function
def forks_fail(s: State) -> None:
    s += "a"
    forks = s.fork(2)
    forks += lambda i: sgl.gen("x", temperature=-1.0) if i else "b"
    forks.join()


@sgl.function
def tool_outside(s: State) -> None:
    s += sgl.user("a")
    s += "" + sgl.gen("x", tools=[print_it])


def print_it(x: int) -> None:
    """Print it."""


@sgl.function
def chooses_nothing(s: State) -> None:
    s += "x"
    s += sgl.select("x", ["a", ""])


@sgl.function
def adds_a_number(s: State) -> None:
    s += "x"
    s += 5  # type: ignore[arg-type]


@sgl.function
def calls_another(s: State) -> None:
    s += "x"
    tool_outside(s)


@pytest.mark.parametrize(
    ("failing", "place", "message"),
    [
        (forks_fail, line_of(forks_fail, 4), "temperature must be"),
        (tool_outside, line_of(tool_outside, 3), "called in a message of the assistant"),
        (chooses_nothing, line_of(chooses_nothing, 3), "none may be empty"),
        (adds_a_number, line_of(adds_a_number, 3), "not int"),
        (calls_another, line_of(tool_outside, 2), "begins behind plain text"),
    ],
)
def test_a_failing_line_is_named_alone_and_in_a_batch(
    failing: Program[Any], place: str, message: str
) -> None:
    with pytest.raises(sgl.ProgramError, match=message) as caught:
        failing.run()
    (state,) = failing.run_batch([{}])
    assert place in str(caught.value)
    assert str(state.error()) == str(caught.value)


def test_a_batch_is_of_dictionaries() -> None:
    with pytest.raises(InvalidRequestError, match="dictionaries of arguments, not of str"):
        program.run_batch(["a"])  # type: ignore[list-item]
