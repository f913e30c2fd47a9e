"""What the scheduler promises, one sentence a test. No device: tokens are made up."""

from __future__ import annotations

import numpy as np
import pytest

from inarch.engine.plan import StepPlan
from inarch.engine.request import Request
from inarch.engine.scheduler import RETRY_STEPS, Scheduler
from inarch.engine.waiting import MAX_PASSED_OVER
from inarch.sampling import SamplingParams

PAGE = 4


def make_scheduler(**options: int) -> Scheduler:
    defaults = {"pages": 1000, "max_running": 4, "max_step_tokens": 8, "context_length": 2000}
    return Scheduler(page_tokens=PAGE, **defaults | options)  # type: ignore[arg-type]


def make_request(
    name: int, prompt: int | list[int], max_tokens: int = 100, namespace: str = ""
) -> Request:
    """A request whose prompt is given, or has so many tokens like nobody else's."""
    ids = [1000 * name + i for i in range(prompt)] if isinstance(prompt, int) else prompt
    array = np.array(ids, dtype=np.int32)
    return Request(name, array, SamplingParams(), max_tokens=max_tokens, namespace=namespace)


def chunks(plan: StepPlan | None) -> list[tuple[int, int, int]]:
    """(request, start, length) of each sequence."""
    if plan is None:
        return []
    handles = [request.handle for request in plan.requests]
    return list(zip(handles, plan.starts.tolist(), plan.lengths.tolist(), strict=True))


def launch(scheduler: Scheduler) -> StepPlan | None:
    plan = scheduler.plan()
    if plan is not None:
        scheduler.publish(plan)
    return plan


def step(scheduler: Scheduler) -> list[tuple[int, int, int]]:
    """Plan and commit one step in which every token sampled is 7."""
    plan = launch(scheduler)
    if plan is not None:
        scheduler.commit(plan, [7] * len(plan.requests))
    return chunks(plan)


def test_a_long_prompt_is_cut_to_the_step_budget() -> None:
    scheduler = make_scheduler()
    scheduler.add(make_request(1, 19))
    assert [step(scheduler) for _ in range(4)] == [
        [(1, 0, 8)],
        [(1, 8, 8)],
        [(1, 16, 3)],
        [(1, 19, 1)],
    ]


def test_a_running_decode_is_not_delayed_by_a_new_prompt() -> None:
    scheduler = make_scheduler()
    scheduler.add(make_request(1, 2))
    step(scheduler)
    scheduler.add(make_request(2, 50))
    assert step(scheduler) == [(1, 2, 1), (2, 0, 7)]


def test_the_next_step_is_planned_while_one_is_in_flight() -> None:
    scheduler = make_scheduler()
    request = make_request(1, 2, max_tokens=3)
    scheduler.add(request)
    first, second, third = (launch(scheduler) for _ in range(3))
    assert [chunks(plan) for plan in (first, second, third)] == [
        [(1, 0, 2)],
        [(1, 2, 1)],
        [(1, 3, 1)],
    ]
    assert (
        launch(scheduler) is None
    )  # its third token is in flight: there is nothing more to compute
    for plan in (first, second, third):
        assert plan is not None
        scheduler.commit(plan, [7])
    assert request.output == [7, 7, 7]
    assert not scheduler.has_work


def test_a_step_in_flight_for_an_ended_request_is_dropped() -> None:
    scheduler = make_scheduler()
    request = Request(
        1, np.array([1, 2], np.int32), SamplingParams(), max_tokens=9, stop_ids=frozenset([5])
    )
    scheduler.add(request)
    first, second = launch(scheduler), launch(scheduler)
    assert first is not None
    assert second is not None
    assert [item.finish for item in scheduler.commit(first, [5])] == ["stop"]
    assert scheduler.commit(second, [6]) == []
    assert request.output == [5]


def test_a_stop_token_ends_an_answer_once_it_has_the_tokens_it_must_have() -> None:
    scheduler = make_scheduler()
    request = Request(
        1, np.array([1], np.int32), SamplingParams(min_tokens=3), max_tokens=9,
        stop_ids=frozenset([7]),
    )  # fmt: skip
    scheduler.add(request)
    while scheduler.has_work:
        step(scheduler)
    assert request.output == [7, 7, 7]


def test_the_longest_cached_prefix_is_admitted_first() -> None:
    scheduler = make_scheduler(max_running=1)
    cached = make_request(1, 40, max_tokens=1)
    scheduler.add(cached)
    while scheduler.has_work:
        step(scheduler)
    scheduler.add(make_request(2, 6))
    scheduler.add(make_request(3, [*cached.prompt.tolist(), 1, 2, 3]))
    assert step(scheduler) == [(3, 40, 3)]


def test_nobody_is_passed_over_for_ever() -> None:
    scheduler = make_scheduler(max_running=1)
    cached = make_request(1, 40, max_tokens=1)
    scheduler.add(cached)
    while scheduler.has_work:
        step(scheduler)
    unlucky = make_request(2, 6, max_tokens=1)
    scheduler.add(unlucky)
    served = []
    for handle in range(3, 40):
        scheduler.add(make_request(handle, [*cached.prompt.tolist(), handle], max_tokens=1))
        served += [name for name, _, _ in step(scheduler)]
    assert served.index(2) == MAX_PASSED_OVER


def test_a_prompt_waits_for_the_one_that_computes_its_prefix() -> None:
    scheduler = make_scheduler(max_step_tokens=16)
    shared = list(range(24))
    scheduler.add(make_request(1, [*shared, 100]))
    scheduler.add(make_request(2, [*shared, 200]))
    scheduler.add(make_request(3, 5))
    assert step(scheduler) == [(1, 0, 16)]
    assert step(scheduler) == [(1, 16, 9), (3, 0, 5)]
    assert (2, 24, 1) in step(scheduler)


def test_a_prompt_does_not_wait_for_an_equal_one_of_another_namespace() -> None:
    scheduler = make_scheduler(max_step_tokens=16)
    for name, namespace in ((1, "pears"), (2, "figs")):
        scheduler.add(make_request(name, list(range(8)), namespace=namespace))
    assert step(scheduler) == [(1, 0, 8), (2, 0, 8)]


def test_a_request_that_fills_the_pool_to_the_last_token_is_served() -> None:
    scheduler = make_scheduler(pages=1 + 2)
    whole = make_request(1, 6, max_tokens=3)  # of the last token no KV is needed
    scheduler.add(whole)
    while scheduler.has_work:
        assert step(scheduler)
    assert whole.output == [7, 7, 7]


def test_the_newest_request_gives_up_its_memory_first_and_is_the_next_to_return() -> None:
    scheduler = make_scheduler(pages=1 + 8)
    old, new = make_request(1, 8, max_tokens=16), make_request(2, 8, max_tokens=16)
    scheduler.add(old)
    scheduler.add(new)
    while not scheduler.stats().retractions:
        step(scheduler)
    assert new.row == -1
    assert old.row != -1
    produced = len(new.output)
    assert produced > 0
    scheduler.add(make_request(3, 4, max_tokens=4))
    while new.row == -1:
        planned = step(scheduler)
    assert old not in scheduler.waiting
    assert planned[0][0] == 2
    assert len(new.output) == produced + 1


def test_a_retracted_request_waits_for_its_token_in_flight() -> None:
    scheduler = make_scheduler(pages=1 + 5)
    scheduler.add(make_request(1, 6, max_tokens=10))
    scheduler.add(make_request(2, 2, max_tokens=10))
    plans = []
    while not scheduler.stats().retractions:
        plan = launch(scheduler)
        assert plan is not None
        plans.append(plan)
    retracted = next(iter(scheduler.waiting))
    assert retracted.in_flight > 0
    while plans:
        scheduler.commit(plans[0], [7] * len(plans.pop(0).requests))
    assert retracted.in_flight == 0
    while scheduler.has_work:
        step(scheduler)
    assert retracted.output == [7] * 10


def test_what_was_set_back_is_not_told_its_own_pages_as_cached() -> None:
    scheduler = make_scheduler(max_step_tokens=64)
    request = make_request(1, 2 * PAGE, max_tokens=9)
    scheduler.add(request)
    step(scheduler)
    scheduler.retract_all()
    plan = launch(scheduler)
    assert plan is not None
    assert chunks(plan) == [(1, 2 * PAGE, 1)], "they are found nevertheless"
    assert request.cached_tokens == 0


def short_of_memory(*, last: Request | None = None) -> tuple[Scheduler, list[Request], StepPlan]:
    """Two requests, and the plan for which the newer one gave up its memory.

    last: one that came just before that.
    """
    scheduler = make_scheduler(pages=1 + 8)
    both = [make_request(name, 8, max_tokens=16) for name in (1, 2)]
    for request in both:
        scheduler.add(request)
    for _ in range(10):
        if last is not None and len(both[0].output) == 8:
            scheduler.add(last)
        plan = launch(scheduler)
        assert plan is not None
        if scheduler.stats().retractions:
            return scheduler, both, plan
        scheduler.commit(plan, [7] * len(plan.requests))
    raise AssertionError("there was memory enough")


def test_a_step_for_which_memory_was_taken_back_admits_nobody() -> None:
    urgent = make_request(3, 1, max_tokens=1)
    urgent.priority = 1
    scheduler, both, plan = short_of_memory(last=urgent)
    assert plan.requests == both[:1]
    scheduler.commit(plan, [7])
    assert (3, 0, 1) in step(scheduler)


def test_after_memory_ran_short_fewer_are_admitted_at_once() -> None:
    def admitted(scheduler: Scheduler) -> int:
        for name in range(10, 14):
            scheduler.add(make_request(name, 1, max_tokens=16))
        step(scheduler)
        return scheduler.stats().running

    scheduler, both, _ = short_of_memory()
    for request in both:
        scheduler.abort(request)
    scheduler.pool.clear_cache()
    assert admitted(scheduler) < admitted(make_scheduler(pages=1 + 8))


def test_however_much_room_is_kept_a_request_alone_is_served() -> None:
    scheduler = make_scheduler(pages=1 + 8, max_step_tokens=32)
    for wave in (10, 20):  # all at once they need a page more each
        four = [make_request(wave + name, 8, max_tokens=4) for name in range(4)]
        for request in four:
            scheduler.add(request)
        before = scheduler.stats().retractions
        while (plan := launch(scheduler)) and scheduler.stats().retractions == before:
            scheduler.commit(plan, [7] * 4)
        for request in four:
            scheduler.abort(request)
    assert scheduler.stats().retractions == 4
    whole = make_request(1, 1, max_tokens=32)
    scheduler.add(whole)
    while scheduler.has_work:
        assert step(scheduler)
    assert len(whole.output) == 32


def test_who_did_not_fit_is_tried_again_although_nobody_has_left() -> None:
    """It is expected ever less of what runs that it will produce all that it may."""
    scheduler = make_scheduler(pages=1 + 1000, context_length=5000, max_step_tokens=4000)
    scheduler.add(make_request(1, 4, max_tokens=3900))
    step(scheduler)
    scheduler.add(make_request(2, 2472, max_tokens=1))
    assert step(scheduler) == [(1, 4, 1)]
    begun = [step(scheduler) for _ in range(2 * RETRY_STEPS)]
    assert [(2, 0, 2472)] in [chunks[1:] for chunks in begun]


@pytest.mark.parametrize("when", ["waiting", "prefilling", "decoding"])
def test_an_abort_gives_everything_back(when: str) -> None:
    scheduler = make_scheduler(max_running=2)
    blockers = [make_request(name, 4) for name in (8, 9)] if when == "waiting" else []
    request = make_request(1, 20 if when == "prefilling" else 5)
    for each in (*blockers, request):
        scheduler.add(each)
    step(scheduler)
    step(scheduler)
    for each in (request, *blockers):
        scheduler.abort(each)
    stats = scheduler.stats()
    assert (stats.running, stats.waiting, stats.pages_used) == (0, 0, 0)
    scheduler.pool.clear_cache()
    assert scheduler.pool.allocator.free == scheduler.pool.allocator.total


def test_without_a_prefix_cache_nothing_is_kept() -> None:
    scheduler = Scheduler(
        pages=100, page_tokens=PAGE, max_running=4, max_step_tokens=64, context_length=200,
        prefix_cache=False,
    )  # fmt: skip
    for handle in (1, 2):
        request = make_request(handle, list(range(20)), max_tokens=2)
        scheduler.add(request)
        while scheduler.has_work:
            step(scheduler)
        assert request.cached_tokens == 0
    assert scheduler.pool.allocator.free == scheduler.pool.allocator.total


def test_while_memory_is_short_waiting_prompts_are_not_matched_again_and_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scheduler = make_scheduler(pages=1 + 10, max_step_tokens=64)
    matches: list[int] = []
    match = scheduler.pool.cache.match
    monkeypatch.setattr(
        scheduler.pool.cache, "match", lambda *args: (matches.append(1), match(*args))[1]
    )
    scheduler.add(make_request(1, 4, max_tokens=30))
    step(scheduler)
    for name in range(2, 12):
        scheduler.add(make_request(name, 30, max_tokens=4))
    step(scheduler)
    seen = len(matches)
    for _ in range(10):
        step(scheduler)
    assert len(matches) == seen
    while scheduler.has_work:  # and nobody is forgotten
        step(scheduler)


def test_admission_keeps_room_for_what_running_requests_will_still_produce() -> None:
    """Eight requests that each grow to 26 pages, and 40 pages: without it all would start."""
    scheduler = make_scheduler(pages=1 + 40, max_running=8, max_step_tokens=64)
    for name in range(1, 9):
        scheduler.add(make_request(name, 4, max_tokens=100))
    step(scheduler)
    assert 2 <= scheduler.stats().running < 8
    while scheduler.has_work:
        step(scheduler)


def test_a_plan_says_which_decodes_share_how_many_tokens() -> None:
    scheduler = make_scheduler(max_step_tokens=64)
    shared = list(range(2 * PAGE + 2))  # the last page is not whole
    for name, prompt in enumerate(([*shared, 100], [7] * 9, [*shared, 200], [*shared, 300])):
        scheduler.add(make_request(name, prompt))
    while len(step(scheduler)) < 4 or scheduler.stats().waiting:
        pass
    plan = launch(scheduler)
    assert plan is not None
    assert plan.shared is not None
    (tokens,) = plan.shared.tokens.tolist()
    names = [plan.requests[s].handle for s in plan.shared.sequences]
    assert (sorted(names), tokens) == ([0, 2, 3], 2 * PAGE)


def test_what_decodes_share_is_said_of_those_in_the_step_alone() -> None:
    scheduler = make_scheduler(max_step_tokens=64)
    requests = [
        make_request(n, [*range(PAGE), n], max_tokens=m) for n, m in ((1, 3), (2, 9), (3, 9))
    ]
    for request in requests:
        scheduler.add(request)
    plans = []
    while not plans or len(plans[-1].requests) != 2 or plans[-1].decodes != 2:
        plan = launch(scheduler)  # and never committed: the first one's last token stays in flight
        assert plan is not None
        plans.append(plan)
    shared = plans[-2].shared
    assert shared is not None
    assert shared.sequences.tolist() == [0, 1, 2]
    shared = plans[-1].shared
    assert shared is not None
    assert shared.sequences.tolist() == [0, 1]
    scheduler.abort(requests[1])
    plan = launch(scheduler)
    assert plan is not None
    assert plan.shared is None


def test_a_page_that_two_prompts_computed_side_by_side_is_shared_afterwards() -> None:
    scheduler = make_scheduler()
    for name in (1, 2):
        scheduler.add(make_request(name, list(range(PAGE))))
    assert step(scheduler) == [(1, 0, PAGE), (2, 0, PAGE)]
    plan = launch(scheduler)
    assert plan is not None
    assert plan.shared is not None
    assert (plan.shared.sequences.tolist(), plan.shared.tokens.tolist()) == ([0, 1], [PAGE])
    first, second = scheduler.pool.table.pages[plan.rows, 0]
    assert first == second


def test_memory_is_taken_from_the_lowest_priority_first() -> None:
    scheduler = make_scheduler(pages=1 + 8)
    low, high = make_request(1, 8, max_tokens=16), make_request(2, 8, max_tokens=16)
    high.priority = 1
    scheduler.add(low)
    step(scheduler)
    scheduler.add(high)
    while not scheduler.stats().retractions:
        step(scheduler)
    assert low.row == -1
    assert high.row != -1
    while scheduler.has_work:
        step(scheduler)


def test_all_are_set_back_in_the_order_in_which_they_came() -> None:
    scheduler = make_scheduler(max_step_tokens=16)
    requests = [
        make_request(name, length, max_tokens=9) for name, length in ((1, 4), (2, 5), (3, 30))
    ]
    for request in requests:
        scheduler.add(request)
    step(scheduler)
    step(scheduler)
    scheduler.retract_all()
    stats = scheduler.stats()
    assert (stats.running, stats.pages_used) == (0, 0)
    assert list(scheduler.waiting) == requests
    while scheduler.has_work:
        step(scheduler)
    assert [len(request.output) for request in requests] == [9, 9, 9]
