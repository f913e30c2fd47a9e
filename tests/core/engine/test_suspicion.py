"""Of requests that run together when engines die, those that killed them are found, and no others."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inarch.engine.frontend import Sample, as_bytes
from inarch.engine.journal import Holder, Journal, as_number
from inarch.engine.messages import NewRequest, TokenOutput
from inarch.engine.suspicion import Quarantine, convict
from inarch.engine.trials import CLEARED, Trials
from inarch.errors import InvalidRequestError
from inarch.grammar import Grammar
from inarch.sampling import SamplingParams

CLIENT = b"frontend"
ROWS, LENGTH = 16, 40
LATE = 2  # tokens that an engine has made and nobody has heard of when it dies


def sample(handle: int, params: SamplingParams | None = None) -> Sample:
    params = params or SamplingParams()
    message = NewRequest(
        handle=handle,
        prompt=as_bytes([handle]),
        params=params,
        max_tokens=LENGTH,
        stop_ids=[],
        seed=0,
    )
    nothing: Any = None
    return Sample(handle, str(handle), 0, params, frozenset(), 1, nothing, message)


class Engine:
    """Makes a token of everything it runs in each step, and dies before it makes a fatal one."""

    def __init__(self, path: Path, fatal: dict[int, int]) -> None:
        self.journal = Journal(path, ROWS)
        self.trials = Trials(self.journal, self.begin)
        self._fatal = fatal
        self._made: dict[int, int] = {}

    def begin(self, message: NewRequest, client: bytes) -> None:
        row = len(self._made)
        self._made[message.handle] = len(message.output) // 4
        self.journal.holders[2 * row] = as_number(client)
        self.journal.holders[2 * row + 1] = message.handle

    def step(self) -> TokenOutput | None:
        """None: it has died."""
        running = [handle for handle, made in self._made.items() if made < LENGTH]
        if any(self._fatal.get(handle) == self._made[handle] for handle in running):
            return None
        for handle in running:
            self._made[handle] += 1
        ended = {i: "length" for i, handle in enumerate(running) if self._made[handle] == LENGTH}
        output = TokenOutput(handles=running, tokens=[0] * len(running), finish=ended)
        self.trials.heard(CLIENT, output)
        return output


def live(engine: Engine, samples: dict[int, Sample]) -> bool:
    """One life of an engine; whether it was one of natural causes, with all finished."""
    for one in list(samples.values()):
        message = one.again()
        if message.suspect:
            engine.trials.join(message, CLIENT)
        else:
            engine.begin(message, CLIENT)
    late: list[TokenOutput] = []
    while samples:
        output = engine.step()
        if output is None:
            return False
        late.append(output)
        if len(late) > LATE or output.finish:
            for heard in late:
                hear(heard, samples)
            late.clear()
    return True


def hear(output: TokenOutput, samples: dict[int, Sample]) -> None:
    for index, handle in enumerate(output.handles):
        samples[handle].tokens.append(0)
        samples[handle].since_death += 1
        if index in output.finish:
            del samples[handle]


@settings(max_examples=60, deadline=None)
@given(
    crowd=st.integers(1, 10),
    fatal=st.dictionaries(st.integers(1, 10), st.integers(0, LENGTH - 1), max_size=3),
)
def test_the_guilty_are_refused_and_all_others_are_answered(
    crowd: int, fatal: dict[int, int]
) -> None:
    """With several that are guilty, one may kill for the first time while an innocent one is on
    trial; with one, nobody else is ever refused."""
    guilty = {handle for handle in fatal if handle <= crowd}
    samples = {handle: sample(handle) for handle in range(1, crowd + 1)}
    refused: set[int] = set()
    deaths = 0
    with TemporaryDirectory() as folder:
        engine = Engine(Path(folder, "0"), fatal)
        while not live(engine, samples):
            deaths += 1
            assert deaths <= 3 * len(guilty)
            for found in convict(samples.values(), CLIENT, engine.journal):
                refused.add(found.handle)
                del samples[found.handle]
            engine = Engine(Path(folder, str(deaths)), fatal)
    assert refused == guilty or (len(guilty) > 1 and refused > guilty)


def test_deaths_between_which_a_request_gets_on_do_not_count(tmp_path: Path) -> None:
    one = sample(1)
    for number in range(10):
        engine = Engine(tmp_path / str(number), {})
        assert not one.again().suspect
        engine.begin(one.message, CLIENT)
        one.since_death = CLEARED
        assert convict([one], CLIENT, engine.journal) == []


def test_who_waits_is_no_suspect_unless_its_grammar_may_be_at_fault(tmp_path: Path) -> None:
    engine = Engine(tmp_path / "journal", {})
    held = SamplingParams(grammar=Grammar(kind="json_object"))
    running, waiting, compiling = sample(1), sample(2), sample(3, held)
    engine.begin(running.message, CLIENT)
    for _ in range(2):
        assert convict([running, waiting, compiling], CLIENT, engine.journal) == []
    suspects = [one.again().suspect for one in (running, waiting, compiling)]
    assert suspects == [True, False, True]


def test_samples_of_another_front_end_are_not_taken_for_ones_own(tmp_path: Path) -> None:
    engine = Engine(tmp_path / "journal", {})
    engine.begin(sample(1).message, b"another!")
    mine = sample(1)
    assert convict([mine], CLIENT, engine.journal) == []
    assert mine.deaths == 0


def test_who_ran_beside_one_of_another_front_end_was_not_alone(tmp_path: Path) -> None:
    engine = Engine(tmp_path / "journal", {})
    mine = sample(1)
    engine.begin(mine.message, CLIENT)
    engine.begin(sample(2).message, b"another!")
    for _ in range(2):
        assert convict([mine], CLIENT, engine.journal) == []
    assert mine.again().suspect


def test_suspects_come_in_one_at_a_time_until_each_is_cleared_ended_or_gone(tmp_path: Path) -> None:
    begun: list[Holder] = []
    journal = Journal(tmp_path / "journal", ROWS)
    trials = Trials(journal, lambda message, client: begun.append(Holder(client, message.handle)))
    for handle in (1, 2, 3, 4):
        trials.join(sample(handle).message, CLIENT)
    trials.join(sample(1).message, b"another!")
    assert begun == [(CLIENT, 1)]
    for _ in range(CLEARED):
        assert journal.on_trial == (CLIENT, 1)
        trials.heard(CLIENT, TokenOutput(handles=[1, 9], tokens=[0, 0]))
    assert begun[1:] == [(CLIENT, 2)]
    trials.heard(CLIENT, TokenOutput(handles=[9, 2], tokens=[0, 0], finish={1: "stop"}))
    assert begun[2:] == [(CLIENT, 3)]
    trials.leave(CLIENT, 4)
    trials.leave(CLIENT, 3)
    assert begun[3:] == [(b"another!", 1)]
    trials.forget(b"another!")
    assert journal.on_trial is None
    assert len(begun) == 4


def test_a_request_like_one_that_killed_engines_is_refused_at_once(tmp_path: Path) -> None:
    params = SamplingParams(temperature=0.5)
    quarantine, another = Quarantine(tmp_path), Quarantine(tmp_path)
    quarantine.check([1], params)
    error = quarantine.take(sample(1, params).message)
    assert (error.status, error.code) == (500, "poison_request")
    for one in (quarantine, another):
        with pytest.raises(InvalidRequestError, match="died of this request"):
            one.check([1], params)
        one.check([2], params)
        one.check([1], SamplingParams(temperature=0.6))
