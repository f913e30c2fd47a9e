"""Batches of programs: those that begin alike run side by side, whatever order they are given in."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterator

import pytest

import inarch.lang as sgl
from inarch import Engine, EngineConfig
from inarch.lang import State
from inarch.lang.fibers import Job, drive

pytestmark = pytest.mark.timeout(120)
GROUPS, EACH = 40, 3
RULES = " go first, then wait for the others, and never look back at what has been played."


@pytest.fixture(scope="module")
def small_engine() -> Iterator[Engine]:
    """Memory for the prefixes of a few groups, not of all."""
    with Engine(
        EngineConfig(dtype="float32", kv_tokens=768, max_running_requests=4, random_seed=0)
    ) as engine:
        yield engine


@sgl.function
def play(s: State, group: int, move: int) -> None:
    s += sgl.user(f"Group {group:02d}: {group % 7} of you" + RULES * 2)
    s += sgl.assistant("Yes.") + sgl.user(f"Move {move}.")
    s += sgl.assistant(sgl.gen("reply", max_tokens=2, ignore_eos=True))


def test_programs_that_begin_alike_run_side_by_side(small_engine: Engine) -> None:
    batch = [{"group": g, "move": m} for m in range(EACH) for g in range(GROUPS)]
    random.Random(0).shuffle(batch)
    states = play.run_batch(batch, backend=small_engine, temperature=0)
    told = defaultdict(list)
    for arguments, state in zip(batch, states, strict=True):
        assert f"Move {arguments['move']}." in state.text()
        told[arguments["group"]].append(state.get_meta_info("reply"))
    page = small_engine.info.page_tokens
    shared = states[0].get_meta_info("reply")["prompt_tokens"] // page * page - page
    for group in told.values():
        assert sum(meta["cached_tokens"] >= shared for meta in group) == EACH - 1


def jobs(openings: str, order: list[str], *, waits: bool = True) -> list[Job]:
    """Programs that tell when they are let go on."""
    from concurrent.futures import Future

    from inarch.lang.fibers import wait

    def job(name: str) -> Job:
        gate: Future[None] = Future()

        def release() -> None:
            order.append(name)
            gate.set_result(None)

        return Job(lambda: wait(gate) if waits else None, lambda: name, release)

    return [job(name) for name in openings]


def test_all_that_fit_the_window_are_sorted() -> None:
    order: list[str] = []
    assert sorted(drive(jobs("badcfehg", order), at_once=2)) == list(range(8))
    assert "".join(order) == "abcdefgh"


def test_what_is_beyond_the_window_joins_the_line_as_others_end() -> None:
    order: list[str] = []
    assert sorted(drive(jobs("hgfedcba", order), at_once=1)) == list(range(8))
    assert "".join(order) == "edcbafgh"


def test_programs_that_ask_for_nothing_end_where_they_begin() -> None:
    order: list[str] = []
    assert list(drive(jobs("cab", order, waits=False), at_once=2)) == [0, 1, 2]
    assert not order
