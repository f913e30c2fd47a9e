"""Programs in the words that SGLang's users write them in, each word where they have it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal

import pytest
from pydantic import BaseModel

import inarch.lang as sgl
from inarch import Engine
from inarch.errors import InvalidRequestError
from inarch.lang import Runtime, State
from inarch.lang.words import sampling_fields

pytestmark = pytest.mark.timeout(120)


@sgl.function
def use_a_tool(s: State, question: str) -> None:
    s += "To find out: " + question + ", "
    s += "take a " + sgl.gen("tool", choices=["calculator", "telescope"]) + ". "
    if s["tool"] == "calculator":
        s += "Type" + sgl.gen("sum", max_tokens=4)
    else:
        s += "Look at" + sgl.gen("sky", max_tokens=4)


def test_arguments_go_by_place_and_choices_are_told_with_their_tokens() -> None:
    state = use_a_tool.run("2 + 3")
    assert ("sum" in state) == (state["tool"] == "calculator")
    meta = state.get_meta_info("tool")
    for choice, tokens in zip(
        ("calculator", "telescope"), meta["input_token_logprobs"], strict=True
    ):
        assert "".join(text for _, _, text in tokens) == choice
    assert len(meta["normalized_prompt_logprobs"]) == 2


def test_run_takes_the_words_of_gen() -> None:
    @sgl.function(num_api_spec_tokens=16)
    def lines(s: State, n: int) -> None:
        s += f"{n}: one, two, three" + sgl.gen("more", ignore_eos=True)

    state = lines.run(n=2, max_new_tokens=3, temperature=0, return_logprob=True)
    assert state.get_meta_info("more")["completion_tokens"] == 3
    assert len(state.get_meta_info("more")["output_token_logprobs"]) == 3
    whole = lines.run(n=2, max_new_tokens=12, temperature=0)["more"]
    stop = whole[3:5]
    assert (
        lines.run(n=2, max_new_tokens=12, temperature=0, stop=stop)["more"] == whole.split(stop)[0]
    )
    assert lines.run(n=2, temperature=0).get_meta_info("more")["completion_tokens"] == 128


def test_what_would_come_next_is_told_without_its_coming() -> None:
    @sgl.function
    def paths(s: State) -> None:
        s += sgl.user("What is the capital of France?") + sgl.assistant_begin()
        first = s.fork(1)[0]
        first += sgl.gen(
            "first", max_tokens=0, return_logprob=True, top_logprobs_num=3,
            return_text_in_logprobs=True,
        )  # fmt: skip
        assert first["first"] == ""
        likely = first.get_meta_info("first")["output_top_logprobs"][0]
        assert len(likely) == 3
        for fork, (_, _, text) in zip(s.fork(3), likely, strict=True):
            fork += text + sgl.gen("rest", max_tokens=8, temperature=0)
            assert str(fork)[len("ProgramState(") : -1].endswith(text + fork["rest"])
        s += likely[0][2] + sgl.gen("rest", max_tokens=32)

    state = paths.run(temperature=0)
    assert state.messages()[-1]["content"] == "The capital of France is Paris."


def test_log_probabilities_of_the_prompt_come_from_where_they_are_asked_for() -> None:
    @sgl.function
    def asked(s: State) -> None:
        s += "one two three" + sgl.gen("x", 1, return_logprob=True, logprob_start_len=0)

    meta = asked.run(temperature=0).get_meta_info("x")
    told = meta["input_token_logprobs"]
    assert len(told) == meta["prompt_tokens"]
    assert told[0][0] is None
    assert all(logprob < 0 for logprob, _, _ in told[1:])


def test_forks_are_entered_and_joined_and_a_copy_comes_back_as_a_list() -> None:
    @sgl.function
    def stages(s: State) -> None:
        s += "a "
        with s.fork(2) as forks:
            forks += "b" + sgl.gen("x", max_tokens=2)
        with s.copy() as other:
            other += sgl.gen("y", max_tokens=2)
        assert len(s["x"]) == 2
        assert len(s["y"]) == 1

    stages.run(temperature=0)


def test_what_forks_said_keeps_its_roles_when_it_is_appended() -> None:
    @sgl.function
    def debates(s: State) -> None:
        s += sgl.user("Speak.")
        forks = s.fork(2)
        forks += lambda i: sgl.assistant(f"I am {i}.") + sgl.user("Go on.")
        forks.join("concate_and_append")

    roles = [message["role"] for message in debates.run().messages()]
    assert roles == ["user", "assistant", "user", "assistant", "user"]


def test_a_variable_of_the_parent_is_known_in_forks_with_all_that_is_told_of_it() -> None:
    @sgl.function
    def inherits(s: State) -> None:
        s += "a" + sgl.gen("x", max_tokens=2, ignore_eos=True)
        fork = s.fork(1)[0]
        assert fork.get_meta_info("x")["completion_tokens"] == 2

    inherits.run()


def test_scopes_hold_what_is_said_inside_even_of_themselves() -> None:
    @sgl.function
    def nested(s: State) -> None:
        with s.var_scope("v"):
            s += "a"
            with s.var_scope("v"):
                s += "b"
            assert s["v"] == "b"
            s += "c"
        assert s["v"] == "abc"

    assert nested.run().text() == "abc"


def test_reasoning_is_kept_apart(runtime: Runtime) -> None:
    @sgl.function
    def thinks(s: State) -> None:
        s += sgl.user("What is 2 + 3?") + sgl.assistant_begin()
        thought = sgl.gen("answer", regex="<think>[a-z]{3}</think>[0-9]{2}", max_tokens=40)
        s += sgl.separate_reasoning(thought, model_type="qwen3") + sgl.assistant_end()

    state = thinks.run(stream=True, temperature=0)
    assert "".join(state.text_iter("answer")) == state["answer"]
    assert state["answer"].isdigit()
    assert len(state["answer_reasoning_content"]) == 3
    assert state.messages()[-1]["content"] == state["answer"]
    assert state["answer_reasoning_content"] not in state.text()


def test_an_unknown_format_of_reasoning_is_answered_with_the_known_ones() -> None:
    @sgl.function
    def thinks(s: State) -> None:
        s += "a" + sgl.separate_reasoning(sgl.gen("x", max_tokens=1), model_type="nobody")

    with pytest.raises(sgl.ProgramError, match=r"there is no such format; there are: .*qwen3"):
        thinks.run()


class Colour(BaseModel):
    name: Literal["red", "blue"]


@sgl.function
def everything(s: State) -> None:
    s += sgl.user("What is the capital of Italy?")
    s += sgl.assistant(sgl.gen("answer", max_tokens=32, return_logprob=True))
    forks = s.fork(2)
    forks += sgl.user("Which?") + sgl.assistant(sgl.select("which", ["one", "two"]))
    forks.join()
    s += sgl.user("A colour?") + sgl.assistant(sgl.gen("colour", json_schema=Colour))
    s += sgl.user("Again.") + sgl.assistant(sgl.gen("several", n=2, max_tokens=4, seed=1))


def test_an_engine_of_this_process_says_the_same(engine: Engine) -> None:
    mine = everything.run_batch([{}] * 4, backend=engine, temperature=0)
    other = everything.run(temperature=0)
    for state in mine:
        assert state["answer"] == "The capital of Italy is Rome."
        for name in ("which", "colour", "several"):
            assert state[name] == other[name]
    with pytest.raises(sgl.ProgramError, match="temperature must be"):
        everything.run(backend=engine, temperature=-1.0)
    assert everything.run(backend=engine, temperature=0)["answer"] == other["answer"]


def test_caches_are_flushed_and_engines_tell_of_themselves(engine: Engine) -> None:
    state = everything.run(temperature=0)
    assert state.get_meta_info("colour")["cached_tokens"] > 0
    sgl.flush_cache()
    assert everything.run(temperature=0).get_meta_info("answer")["cached_tokens"] == 0
    assert sgl.get_server_info()["vocab_size"] == engine.info.vocab_size
    assert sgl.get_server_info(engine)["page_tokens"] > 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"choices": ["a"], "temperature": 0.7}, "temperature does not go with them"),
        ({"choices": ["a"], "max_tokens": 1, "stop": "x"}, "stop does not go with them"),
        ({"choices": [1]}, "all of them text"),
        ({"json_schema": 5}, "json_schema takes a schema or a pydantic class, not 5"),
    ],
)
def test_words_that_do_not_go_together_are_refused(words: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidRequestError, match=message):
        sgl.gen("x", **words)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs processes that fork")
def test_a_runtime_is_of_one_process(tmp_path: Path) -> None:
    told = tmp_path / "told"
    child = os.fork()
    if child == 0:
        try:
            use_a_tool.run("a")
        except BaseException as error:
            told.write_text(str(error))
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    assert "started in another process" in told.read_text()


def test_one_stop_string_is_one_however_many_letters_it_has() -> None:
    found = sampling_fields({"stop": "ab", "stop_regex": ["c", "d"], "max_new_tokens": 3})
    assert found == {"max_tokens": 3, "stop": ("ab",), "stop_regex": ("c", "d")}
