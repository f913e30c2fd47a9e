"""Programs on the bundled model: what they say, what they read, and how they fail."""

from __future__ import annotations

import threading
from typing import Any, Literal

import pytest
from pydantic import BaseModel

import inarch.lang as sgl
from inarch.errors import InarchError, InvalidRequestError
from inarch.lang import Runtime, State

FRANCE, ITALY = "What is the capital of France?", "What is the capital of Italy?"
PARIS, ROME = "The capital of France is Paris.", "The capital of Italy is Rome."


@sgl.function
def two_questions(s: State, first: str, second: str) -> None:
    s += sgl.user(first)
    s += sgl.assistant(sgl.gen("first", max_tokens=32))
    s += sgl.user(second)
    s += sgl.assistant(sgl.gen("second", max_tokens=32))


def test_a_conversation_has_its_answers_and_its_messages() -> None:
    state = two_questions.run(first=FRANCE, second=ITALY, temperature=0)
    assert (state["first"], state["second"]) == (PARIS, ROME)
    assert state.messages() == [
        {"role": "user", "content": FRANCE},
        {"role": "assistant", "content": PARIS},
        {"role": "user", "content": ITALY},
        {"role": "assistant", "content": ROME},
    ]
    assert state.text() == FRANCE + PARIS + ITALY + ROME


def test_roles_are_also_begun_and_ended_and_entered() -> None:
    @sgl.function
    def spelled(s: State) -> None:
        s += sgl.user_begin() + FRANCE + sgl.user_end()
        s += sgl.assistant_begin()
        s += sgl.gen("first", max_tokens=32)
        s += sgl.assistant_end()
        with s.user():
            s += ITALY
        with s.assistant():
            s += sgl.gen("second", max_tokens=32)

    expected = two_questions.run(first=FRANCE, second=ITALY, temperature=0)
    assert spelled.run(temperature=0).messages() == expected.messages()


def test_what_the_model_wrote_is_not_computed_again() -> None:
    state = two_questions.run(first="What is the capital of Spain?", second=ITALY, temperature=0)
    first, second = state.get_meta_info("first"), state.get_meta_info("second")
    said = first["prompt_tokens"] + first["completion_tokens"]
    assert second["cached_tokens"] > said - 16  # but for a page that is not full


def test_a_program_reads_what_the_model_says_and_decides() -> None:
    @sgl.function
    def decides(s: State, country: str) -> None:
        s += sgl.user(f"What is the capital of {country}?")
        s += sgl.assistant(sgl.gen("answer", max_tokens=32))
        s += sgl.user(FRANCE if "Rome" in s["answer"] else ITALY)
        s += sgl.assistant(sgl.gen("next", max_tokens=32))

    batch = [{"country": "Italy"}, {"country": "France"}]
    assert [s["next"] for s in decides.run_batch(batch, temperature=0)] == [PARIS, ROME]


def test_forks_go_on_alone_and_come_back_together() -> None:
    @sgl.function
    def forking(s: State) -> None:
        s += sgl.user("Name a colour, and say why you like it, in a few words please.")
        forks = s.fork(3)
        forks += lambda i: sgl.assistant(f"{i} " + sgl.gen("why", max_tokens=4, ignore_eos=True))
        forks.join()
        s += sgl.assistant("All: " + " / ".join(s["why"]))

    state = forking.run(temperature=0)
    assert len(state["why"]) == 3
    assert state.messages()[-1]["content"] == "All: " + " / ".join(state["why"])
    for meta in state.get_meta_info("why")["forks"]:
        assert meta["cached_tokens"] >= 16


def test_joining_can_append_what_the_forks_said() -> None:
    @sgl.function
    def appending(s: State) -> None:
        s += "one "
        forks = s.fork(2)
        forks += ["two ", "three "]
        forks.join("concate_and_append")

    assert appending.run().text() == "one two three "


def test_a_scope_names_the_text_inside() -> None:
    @sgl.function
    def scoped(s: State) -> None:
        s += "a "
        with s.var_scope("inner"):
            s += "b " + sgl.gen("c", max_tokens=2)
        s += " d"

    state = scoped.run(temperature=0)
    assert state["inner"] == "b " + state["c"]


def test_several_samples_are_a_list() -> None:
    @sgl.function
    def sampled(s: State) -> None:
        s += "Once" + sgl.gen("tail", n=3, max_tokens=9, seed=1, temperature=9.0)

    state = sampled.run()
    assert len(set(state["tail"])) == 3
    assert state.text() == "Once" + state["tail"][0]


class Person(BaseModel):
    name: Literal["Ann", "Bob"]
    age: int


def test_a_pydantic_class_in_gives_its_object_out() -> None:
    @sgl.function
    def typed(s: State) -> None:
        s += sgl.user("Who is Ann, who is 31?")
        s += sgl.assistant(sgl.gen("person", json_schema=Person, max_tokens=200))

    state = typed.run(temperature=0)
    person: Person = state.value("person", Person)
    assert isinstance(person.age, int)
    assert Person.model_validate_json(state.messages()[-1]["content"]) == person


@pytest.mark.parametrize(
    ("given", "kind"),
    [({"dtype": int}, int), ({"dtype": "float"}, float), ({"regex": "[0-9]{2}"}, int)],
)
def test_generated_text_is_held_to_a_type(given: dict[str, Any], kind: type) -> None:
    @sgl.function
    def number(s: State) -> None:
        s += sgl.user("What is 2 + 3?") + sgl.assistant(sgl.gen("n", max_tokens=24, **given))

    kind(number.run(temperature=1.0, seed=3)["n"])


def test_text_comes_as_it_is_written() -> None:
    state = two_questions.run(first=FRANCE, second=ITALY, temperature=0, stream=True)
    pieces = list(state.text_iter("second"))
    assert len(pieces) > 3
    assert "".join(pieces) == ROME
    assert "".join(state.text_iter()) == FRANCE + PARIS + ITALY + ROME


async def _streamed() -> list[Any]:
    state = two_questions.run(first=FRANCE, second=ITALY, temperature=0, stream=True)
    found = [part async for part in state.text_async_iter("second", return_meta_data=True)]
    other = await two_questions.run_async(first=ITALY, second=FRANCE, temperature=0)
    return [found, other["first"]]


def test_text_comes_in_an_event_loop_too() -> None:
    import asyncio

    found, first = asyncio.run(_streamed())
    assert "".join(text for text, _ in found) == ROME
    assert found[-1][1]["completion_tokens"] > 3
    assert first == ROME


def test_a_thousand_programs_need_no_thread_each() -> None:
    @sgl.function
    def reads(s: State, number: int) -> None:
        s += f"{number}:" + sgl.gen("a", max_tokens=1)
        s += f"{len(s['a'])}"

    before = threading.active_count()
    most = 0
    states = []
    batch = [{"number": number} for number in range(1000)]
    for state in reads.run_batch(batch, temperature=0, generator_style=True):
        most = max(most, threading.active_count())
        states.append(state)
    assert most <= before + 2
    assert [state.text().split(":")[0] for state in states] == [str(n) for n in range(1000)]


def test_a_batch_begins_alike_once() -> None:
    preamble = "These are the rules of the game, which every player has to know by heart. " * 3

    @sgl.function
    def game(s: State, move: str) -> None:
        s += preamble + "Move: " + move + sgl.gen("reply", max_tokens=1)

    assert game.trace().content == preamble + "Move: "
    states = game.run_batch([{"move": move} for move in "abc"])
    for state in states:
        meta = state.get_meta_info("reply")
        assert meta["cached_tokens"] > meta["prompt_tokens"] - 32


def test_a_failure_names_the_line_that_asked() -> None:
    @sgl.function
    def wrong(s: State) -> None:
        s += "text"
        s += sgl.gen("x", temperature=-1.0)

    with pytest.raises(InarchError, match=r"temperature must be .*test_programs.py.*in wrong"):
        wrong.run()


def test_a_failure_stays_with_its_program() -> None:
    @sgl.function
    def fails(s: State, temperature_of_it: float) -> None:
        s += "text" + sgl.gen("x", temperature=temperature_of_it, max_tokens=1)

    good, bad = fails.run_batch([{"temperature_of_it": 0.0}, {"temperature_of_it": -1.0}])
    assert good.error() is None
    assert "temperature" in str(bad.error())
    with pytest.raises(InarchError, match="temperature"):
        bad["x"]


def test_what_a_program_raises_is_told_with_its_line() -> None:
    @sgl.function
    def raises(s: State) -> None:
        s += "text"
        raise RuntimeError("no more")

    (state,) = raises.run_batch([{}])
    assert "no more" in str(state.error())
    assert "in raises" in str(state.error())
    with pytest.raises(RuntimeError, match="no more"):
        raises.run()


def test_an_unknown_variable_is_answered_with_the_known_ones() -> None:
    state = two_questions.run(first=FRANCE, second=ITALY, temperature=0)
    with pytest.raises(KeyError, match="'third'; set are: first, second"):
        state["third"]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: sgl.gen("x", dtype=int, regex="a"), "one of dtype and regex"),
        (lambda: sgl.gen("x", temprature=1), "gen takes no temprature"),
        (lambda: sgl.gen("x", dtype=list), "dtype must be one of int"),
        (lambda: sgl.select("x", []), "one choice or more"),
        (lambda: sgl.user("a") + 5, "not int"),
    ],
)
def test_a_wrong_expression_is_refused_where_it_is_written(wrong: Any, message: str) -> None:
    with pytest.raises(InvalidRequestError, match=message):
        wrong()


def test_messages_and_plain_text_do_not_mix(runtime: Runtime) -> None:
    @sgl.function
    def mixed(s: State) -> None:
        s += "plain"
        s += sgl.user("question")

    with pytest.raises(InarchError, match="behind plain text"):
        mixed.run(backend=runtime)
