"""Programs that call the language as SGLang's published examples do (examples/frontend_language, its
tutorial, its benchmarks): each use of a word that they have, in programs of our own."""

from __future__ import annotations

import asyncio
import json
import re
from typing import Any

import pytest

import inarch.lang as sgl
from inarch.lang import (
    Runtime,
    assistant,
    assistant_begin,
    assistant_end,
    function,
    gen,
    select,
    system,
    user,
)

from .stand_in import StandIn

pytestmark = pytest.mark.timeout(60)
SHORT = {"temperature": 0, "max_new_tokens": 6}

# What `import sglang as sgl` offers to programs, but for these:
LEFT_OUT = {
    "LiteLLM": "one more client of many vendors' APIs, most of which speak OpenAI's: OpenAI(base_url)",
    "VertexAI": "Gemini speaks OpenAI's API too: OpenAI('gemini-...', base_url=...)",
    "global_config": "no settings hide in a global here: run(backend=...), num_threads=...",
}
OFFERED = [
    *("Engine", "Runtime", "RuntimeEndpoint", "Anthropic", "LiteLLM", "OpenAI", "VertexAI"),
    *("function", "gen", "gen_int", "gen_string", "select", "image", "video", "separate_reasoning"),
    *("system", "system_begin", "system_end", "user", "user_begin", "user_end"),
    *("assistant", "assistant_begin", "assistant_end", "set_default_backend", "flush_cache"),
    *("greedy_token_selection", "token_length_normalized", "unconditional_likelihood_normalized"),
    *("get_server_info", "global_config", "__version__"),
]


def test_every_name_is_there_or_left_out_for_a_reason() -> None:
    missing = {name for name in OFFERED if not hasattr(sgl, name)}
    assert missing == set(LEFT_OUT)
    assert set(OFFERED) - missing <= set(sgl.__all__)


@function
def asks_twice(s, first, second):
    s += system("You know capitals.")
    s += user(first)
    s += assistant(gen("answer_1", max_tokens=16))
    with s.user():
        s += second
    s += assistant_begin()
    s += "Well: " + gen("answer_2", max_tokens=16, stop=["\n", "Q:"])
    s += assistant_end()
    return s


def test_a_function_is_called_like_one_and_streams() -> None:
    state = asks_twice("What is the capital of France?", "And of Italy?", temperature=0)
    roles = [message["role"] for message in state.messages()]
    assert roles == ["system", "user", "assistant", "user", "assistant"]
    streamed = asks_twice(
        first="What is the capital of France?", second="And of Italy?", temperature=0, stream=True
    )
    assert "".join(streamed.text_iter(var_name="answer_2")) == state["answer_2"]

    async def heard() -> str:
        again = asks_twice.run("Who?", "What is the capital of Italy?", stream=True)
        return "".join([part async for part in again.text_async_iter(var_name="answer_1")])

    assert asyncio.run(heard())


def test_branches_begin_in_an_assistants_message() -> None:
    @function
    def tips(s):
        s += assistant("Two tips: 1. Eat. 2. Sleep.\n\n")
        forks = s.fork(2)
        for i, f in enumerate(forks):
            f += assistant(f"Tip {i + 1}:\n" + gen("tip", max_tokens=6, stop="\n\n"))
        s += assistant("Tip 1:" + forks[0]["tip"] + "\n")
        s += assistant("Tip 2:" + forks[1]["tip"] + "\n")
        s += assistant("In short:\n" + gen("summary", max_tokens=6))

    state = tips(temperature=0)
    assert [message["role"] for message in state.messages()] == ["assistant"] * 4
    assert isinstance(state["summary"], str)


def test_a_tree_is_searched_level_by_level_and_joined_from_its_leaves() -> None:
    def grown(s, words, name):
        s += user(words)
        forks = s.fork(2)
        forks += assistant(gen(name, max_tokens=3, temperature=0.3, ignore_eos=True))
        return forks

    @function
    def search(s, question):
        plans = grown(s, "Plan: " + question, "plan")
        joined = [plans, *(grown(plan, "Now do it.", "answer") for plan in plans)]
        for forks in reversed(joined):
            forks.join()

    batch = [{"question": f"What is 2 + {i}?"} for i in range(3)]
    states = search.run_batch(batch, temperature=0, num_threads=2, progress_bar=True)
    for state in states:
        assert [len(answers) for answers in state["answer"]] == [2, 2]
        assert all(isinstance(plan, str) for plan in state["plan"])


def test_each_fork_chooses_and_answers() -> None:
    @function
    def samples(s, question, n):
        s += "Question: " + question + "\n"
        forks = s.fork(n)
        forks += "Reasoning:" + gen("reasoning", stop="\n") + "\n"
        forks += "Tool:" + gen("tool", choices=["calculator", "browser"]) + "\n"
        forks += "Answer:" + gen("answer", stop="\n") + "\n"
        forks.join()

    state = samples.run(question="5 + 2?", n=3, temperature=1.0, max_new_tokens=5)
    assert len(state["reasoning"]) == len(state["answer"]) == 3
    assert set(state["tool"]) <= {"calculator", "browser"}


def test_text_is_held_to_regular_expressions_and_types() -> None:
    address = r"((25[0-5]|2[0-4]\d|[01]?\d\d?).){3}(25[0-5]|2[0-4]\d|[01]?\d\d?)"
    card = r"""\{\n    "name": "[\w\d\s]{1,8}",\n    "size": [0-9]{1,2}\.[0-9]{0,2}\n\}"""

    @function
    def held(s, name):
        s += "The address: " + gen("address", temperature=0, regex=address) + "\n"
        s += name + " as JSON: " + gen("card", max_tokens=64, regex=card) + "\n"
        with s.var_scope("json_output"):
            s += "{\n"
            s += '  "hours": ' + sgl.gen_int("hours") + ",\n"
            s += '  "true": ' + gen(dtype=int) + "\n"
            s += "}"
        s += gen("sure", dtype=bool)

    state = held.run(name="A wand", temperature=0)
    assert re.fullmatch(address, state["address"])
    assert re.fullmatch(card, state["card"])
    assert json.loads(state["json_output"])["hours"] == int(state["hours"])
    state["sure"] = state["sure"] == "True"
    assert state["sure"] in (True, False)


def test_a_calculator_that_the_program_calls_itself() -> None:
    @function
    def calculates(s, lhs, rhs):
        s += f"calculate(1+2)=3\nThe answer is calculate({lhs}*{rhs}"
        s += gen("more", max_tokens=2, stop=")") + ") = "
        with s.var_scope("answer"):
            s += str(lhs * rhs)

    assert int(calculates(lhs=257, rhs=983, temperature=0)["answer"]) == 257 * 983


def test_a_loop_goes_on_until_the_model_chooses_to_finish() -> None:
    @function
    def acts(s, question):
        s += "Question: " + question + "\n"
        for i in range(1, 4):
            s += f"Thought {i}:" + gen(stop=[".", "\n"]) + ".\n"
            s += f"Action {i}: " + select(f"action_{i}", ["Search", "Finish"])
            if s[f"action_{i}"] == "Finish":
                break
            s += " [" + gen(stop="]") + "].\n"
        s += gen("answer", stop="]")

    assert isinstance(acts.run(question="Who made Linux?", **SHORT)["answer"], str)


def test_statements_are_read_side_by_side_and_appended() -> None:
    @function
    def reads(s, question, *contexts):
        s += "Remember:\n"
        forks = s.fork(len(contexts))
        forks += lambda i: f"Statement {i}: " + contexts[i] + "\n"
        forks.join(mode="concate_and_append")
        s += "Question: " + question + gen("answer", max_tokens=4)

    text = reads.run("Who?", "Ann is old.", "Bob is young.", temperature=0).text()
    assert "Statement 0: Ann is old.\nStatement 1: Bob is young.\nQuestion: Who?" in text


def test_least_lengths_times_and_the_function_itself_are_told() -> None:
    @function
    def long(s):
        s += user("What is the capital of France?")
        s += assistant(gen("answer", min_tokens=24, max_tokens=30))

    meta = long.run(temperature=0, return_logprob=True).get_meta_info("answer")
    assert meta["completion_tokens"] >= 24
    assert meta["e2e_latency"] > 0
    assert long.func.__name__ == "long"


def test_reasoning_is_separated_in_a_message_that_was_begun() -> None:
    @function
    def thinks(s, question):
        s += user(question)
        s += assistant_begin()
        s += sgl.separate_reasoning(gen("answer", max_tokens=12), model_type="qwen3")
        s += assistant_end()

    state = thinks("What is the capital of France?")
    assert isinstance(state["answer_reasoning_content"], str)


@function
def image_qa(s, image_path, question):
    s += user(sgl.image(image_path) + question)
    s += assistant(gen("answer"))


def test_pictures_go_to_apis_and_are_refused_by_engines(runtime: Runtime) -> None:
    with StandIn(lambda _: "A cat.") as server:
        backend = sgl.OpenAI(model_name="eyes", base_url=server.url, api_key="none")
        state = image_qa.run(
            image_path="https://example.org/cat.jpg", question="What is it?",
            max_new_tokens=64, stream=True, backend=backend,
        )  # fmt: skip
        assert "".join(state.text_iter("answer")) == "A cat."
        assert server.bodies[0]["max_tokens"] == 64
    with pytest.raises(sgl.ProgramError, match=r"read no pictures.*in image_qa"):
        image_qa.run(image_path="https://example.org/cat.jpg", question="What?", backend=runtime)


def test_anthropics_old_form_is_plain_text() -> None:
    @function
    def few_shot(s, question):
        s += "\n\nHuman: Capital of France?\n\nAssistant: Paris\n"
        s += "\n\nHuman: " + question + "\n\n\nAssistant:" + gen("answer", temperature=0)

    with StandIn(lambda _: " Rome") as server:
        batch = [{"question": "Italy?"}, {"question": "Latium?"}]
        backend = sgl.Anthropic("any", base_url=server.url)
        states = few_shot.run_batch(batch, backend=backend)
    assert [state["answer"].strip().lower() for state in states] == ["rome", "rome"]
    assert server.bodies[0]["messages"][0]["role"] == "user"


def test_one_fork_a_document_then_a_summary_of_all() -> None:
    @function
    def sweeps(s, context, documents, question):
        s += context + "\n" + "Research question: " + question + "\n\n"
        names = list(documents)
        forks = s.fork(len(names))
        for i, name in enumerate(names):
            forks[i] += f"--- {name} ---\n{documents[name]}\n"
            forks[i] += gen(f"analysis_{name}", max_tokens=4, stop="\n\n", temperature=0.3)
        for i, name in enumerate(names):
            s += f"\n[{name}] " + forks[i][f"analysis_{name}"]
        s += "\nPick:" + gen("pick", max_tokens=4, temperature=0.2)

    state = sweeps.run(context="Chips.", documents={"A": "big", "B": "small"}, question="Which?")
    assert isinstance(state["pick"], str)

    @function
    def replaces(s: Any) -> None:
        s.fork(2)[0] = s

    with pytest.raises(sgl.ProgramError, match=r"not replaced.*in replaces"):
        replaces()


def test_n_samples_are_a_list_and_the_next_answer_is_not() -> None:
    @function
    def draws(s, question):
        s += user(question)
        s += assistant(gen("answer_1", max_tokens=4, n=2))
        s += user("Go on.")
        s += assistant(gen("answer_2", max_tokens=4))

    for state in draws.run_batch([{"question": "One?"}, {"question": "Two?"}]):
        assert isinstance(state["answer_1"], list)
        assert len(state["answer_1"]) == 2
        assert isinstance(state["answer_2"], str)


def test_what_a_state_added_itself_may_be_added_as_an_expression() -> None:
    @function
    def says(s: Any) -> None:
        s += s.system("Be brief.")
        s += s.user("Hi.")
        s += assistant("Hello.")

    assert [message["content"] for message in says().messages()] == ["Be brief.", "Hi.", "Hello."]
