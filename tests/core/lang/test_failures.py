"""Whatever goes wrong in a program, or around it, ends in an error that somebody hears; nothing hangs."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator

import pytest

import inarch.lang as sgl
from inarch.errors import InarchError, InvalidRequestError
from inarch.lang import Runtime, State

pytestmark = pytest.mark.timeout(60)
LONG = 2000  # tokens: seconds of work, if nobody stops it


def idle(runtime: Runtime) -> bool:
    """Whether the engine has nothing to do any more, within seconds."""
    from inarch.lang.loop import submit

    for _ in range(100):
        if submit(runtime.engine.stats()).result().running == 0:
            return True
        time.sleep(0.1)
    return False


@sgl.function
def endless(s: State, number: int = 0) -> None:
    s += f"{number}" + sgl.gen("text", max_tokens=LONG, ignore_eos=True)
    assert s["text"]


def test_a_variable_may_be_written_again() -> None:
    @sgl.function
    def twice(s: State) -> None:
        for _ in range(3):
            s += "a" + sgl.gen("x", max_tokens=2, ignore_eos=True)

    state = twice.run(temperature=0)
    assert state.text().endswith(state["x"])


def test_a_bug_in_a_choices_method_is_an_error() -> None:
    def broken(choices: object) -> sgl.ChoicesMethod:
        raise ZeroDivisionError("no choice")

    @sgl.function
    def choosing(s: State) -> None:
        s += "x" + sgl.select("y", ["a", "b"], choices_method=sgl.ChoicesMethod("broken", broken))  # type: ignore[arg-type]
        s += sgl.gen("never", max_tokens=1)

    with pytest.raises(sgl.ProgramError, match=r"ZeroDivisionError: no choice .*in choosing"):
        choosing.run()


def test_a_program_that_fails_stops_what_it_began(runtime: Runtime) -> None:
    @sgl.function
    def fails(s: State) -> None:
        s += "a" + sgl.gen("x", max_tokens=LONG, ignore_eos=True)
        for fork in s.fork(2):
            fork += sgl.gen("y", max_tokens=LONG, ignore_eos=True)
        raise ValueError("enough")

    (state,) = fails.run_batch([{}])
    assert "ValueError: enough" in str(state.error())
    with pytest.raises(sgl.ProgramError, match="enough"):
        state["x"]
    assert idle(runtime)


def test_leaving_a_batch_stops_it(runtime: Runtime) -> None:
    @sgl.function
    def quick_or_endless(s: State, tokens: int) -> None:
        s += "a" + sgl.gen("text", max_tokens=tokens, ignore_eos=True)
        assert s["text"]

    batch = [{"tokens": 1}, *[{"tokens": LONG}] * 3]
    states: Iterator[State] = quick_or_endless.run_batch(batch, generator_style=True)
    assert next(states)["text"]
    states.close()  # type: ignore[attr-defined]
    assert idle(runtime)


def test_cancelling_a_task_stops_its_program(runtime: Runtime) -> None:
    async def cancelled() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(endless.run_async(), 0.3)

    asyncio.run(cancelled())
    assert idle(runtime)


def test_an_interrupt_reaches_the_caller_of_a_batch(runtime: Runtime) -> None:
    @sgl.function
    def interrupted(s: State, number: int) -> None:
        s += "a" + sgl.gen("text", max_tokens=1 if number == 0 else LONG, ignore_eos=True)
        assert s["text"]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted.run_batch([{"number": number} for number in range(3)])
    with pytest.raises(KeyboardInterrupt):
        interrupted.run(number=0)
    assert idle(runtime)


def test_a_fork_that_fails_fails_its_program_unless_it_was_heard() -> None:
    @sgl.function
    def unread(s: State) -> None:
        s += "a"
        s.fork(1)[0].__iadd__(sgl.gen("x", temperature=-1.0))

    @sgl.function
    def handled(s: State) -> None:
        s += "a"
        fork = s.fork(1)[0]
        fork += sgl.gen("x", temperature=-1.0)
        try:
            fork["x"]
        except InarchError:
            s += "b"

    with pytest.raises(InarchError, match="temperature must be"):
        unread.run()
    assert handled.run().text() == "ab"


def test_a_fork_streams_to_its_end_inside_of_a_program() -> None:
    @sgl.function
    def streams(s: State) -> None:
        s += "a"
        fork = s.fork(1)[0]
        fork += "b" + sgl.gen("x", max_tokens=4, ignore_eos=True)
        assert "".join(fork.text_iter()) == "b" + fork["x"]
        assert "".join(s.text_iter()) == "a"

    streams.run(temperature=0)


def test_a_streaming_program_that_fails_tells_its_reader() -> None:
    @sgl.function
    def breaks(s: State) -> None:
        s += "a" + sgl.gen("x", max_tokens=3, ignore_eos=True)
        assert s["x"]
        raise RuntimeError("in the middle")

    heard: list[str] = []
    state = breaks.run(stream=True, temperature=0)
    with pytest.raises(sgl.ProgramError, match=r"in the middle.*in breaks"):
        heard.extend(state.text_iter())
    assert heard[0] == "a"


def test_a_streaming_program_is_read_before_it_has_said_anything() -> None:
    go = threading.Event()

    @sgl.function
    def slow(s: State) -> None:
        assert go.wait(10)
        s += "a" + sgl.gen("x", max_tokens=2, ignore_eos=True)

    state = slow.run(stream=True, temperature=0)
    threading.Timer(0.2, go.set).start()
    assert state["x"] in state.text()
    with pytest.raises(KeyError, match="no variable 'y'"):
        list(state.text_iter("y"))


def test_a_state_is_read_in_other_threads() -> None:
    @sgl.function
    def reads(s: State) -> None:
        s += "a" + sgl.gen("x", max_tokens=4, ignore_eos=True)
        found: list[str] = []
        threads = [threading.Thread(target=lambda: found.append(s["x"])) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert found == [s["x"]] * 3

    reads.run(temperature=0)


def test_a_batch_inside_of_a_program_of_a_batch_holds_up_nobody() -> None:
    @sgl.function
    def inner(s: State, word: str) -> None:
        s += word + sgl.gen("x", max_tokens=2, ignore_eos=True)
        assert s["x"]

    @sgl.function
    def outer(s: State, word: str) -> None:
        states = inner.run_batch([{"word": word}, {"word": "b"}], temperature=0)
        s += states[0]["x"] + inner.run(word=word, temperature=0)["x"]

    first, second = outer.run_batch([{"word": "a"}, {"word": "c"}])
    assert first.text() == inner.run(word="a", temperature=0)["x"] * 2
    assert second.error() is None


def test_threads_run_programs_that_wait_for_other_things() -> None:
    together = threading.Barrier(3)

    @sgl.function
    def waits(s: State, number: int) -> None:
        together.wait(10)
        s += f"{number}" + sgl.gen("x", max_tokens=1)

    states = waits.run_batch([{"number": n} for n in range(3)], num_threads=3)
    assert [state.text()[0] for state in states] == ["0", "1", "2"]


def test_what_can_be_no_program_is_refused_at_once() -> None:
    async def later(s: State) -> None: ...
    def taken(s: State, stream: bool) -> None: ...
    def stateless() -> None: ...

    for body, message in (
        (later, "plain function"),
        (taken, "named stream"),
        (stateless, "first argument"),
    ):
        with pytest.raises(InvalidRequestError, match=message):
            sgl.function(body)


def test_what_programs_cannot_run_on_is_refused() -> None:
    with pytest.raises(InvalidRequestError, match="not on str"):
        sgl.set_default_backend("http://localhost:30000")  # type: ignore[arg-type]
    with pytest.raises(InarchError, match="Runtime takes no port_number"):
        Runtime(port_number=1)


def test_an_engine_that_was_shut_down_says_so() -> None:
    runtime = Runtime(load_format="dummy")
    runtime.shutdown()
    with pytest.raises(InarchError, match="the engine is gone"):
        endless.run(backend=runtime)


def test_a_failure_at_a_message_end_names_the_program() -> None:
    @sgl.function
    def mixes(s: State) -> None:
        with s.user():
            s += "a"
            s += sgl.assistant_begin()

    with pytest.raises(
        sgl.ProgramError, match=r"inside of a user message.*test_failures.py.*mixes"
    ):
        mixes.run()
