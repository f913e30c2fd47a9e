"""Random arrivals, aborts, evictions and retractions: no page is leaked, lost or written while shared."""

from __future__ import annotations

from collections import deque

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from inarch.engine.plan import StepPlan
from inarch.engine.request import Request, Status
from inarch.engine.scheduler import Scheduler
from inarch.sampling import SamplingParams

WORDS = 2  # of prompts, so that many begin alike
VOCABULARY = 9
STOP = 0


def next_token(tokens: list[int]) -> int:
    """A pretend model: what follows depends on all tokens before, so a lost one would show."""
    return hash(tuple(tokens)) % VOCABULARY


class ServeRandomly(RuleBasedStateMachine):
    """Runs plans against a pretend device that remembers which tokens each page slot holds."""

    @initialize(
        page=st.sampled_from([1, 2, 4]),
        pages=st.integers(6, 60),
        budget=st.integers(4, 12),
        prefix_cache=st.booleans(),
        state_slots=st.just(0) | st.integers(5, 9) | st.integers(5, 30),
    )
    def start(
        self, page: int, pages: int, budget: int, prefix_cache: bool, state_slots: int
    ) -> None:
        self.begin(page, pages, budget, prefix_cache, state_slots)

    def begin(
        self, page: int, pages: int, budget: int, prefix_cache: bool, state_slots: int
    ) -> None:
        self.page = page
        self.scheduler = Scheduler(
            pages=pages,
            page_tokens=page,
            max_running=4,
            max_step_tokens=budget,
            context_length=64,
            prefix_cache=prefix_cache,
            state_slots=state_slots,
        )
        self.memory: dict[int, tuple[int, ...]] = {}  # slot -> the tokens up to and with its own
        self.states: dict[int, tuple[int, ...]] = {}  # slot -> the tokens that its state has seen
        self.flight: deque[tuple[StepPlan, list[int]]] = deque()
        self.requests: list[Request] = []
        self.scored: dict[int, list[int]] = {}  # handle -> positions whose logits were told
        self.device: dict[int, list[int]] = {}  # handle -> all tokens, as the device knows them

    @rule(
        prompt=st.lists(st.integers(1, WORDS), min_size=1, max_size=20),
        max_tokens=st.integers(1, 16),
        namespace=st.sampled_from(["", "tenant"]),
        priority=st.integers(0, 2),
        asked=st.none() | st.integers(0, 20),
    )
    def arrive(
        self, prompt: list[int], max_tokens: int, namespace: str, priority: int, asked: int | None
    ) -> None:
        self.add(prompt, max_tokens, namespace, priority, asked)

    @precondition(lambda self: self.requests)
    @rule(data=st.data(), more=st.lists(st.integers(1, WORDS), min_size=1, max_size=4))
    def follow_up(self, data: st.DataObject, more: list[int]) -> None:
        """A prompt that begins as an earlier one, or as that and its answer."""
        earlier = data.draw(st.sampled_from(self.requests))
        known = self.device[earlier.handle]
        kept = data.draw(st.just(len(known)) | st.integers(0, len(known)))
        prompt = known[:kept] + more
        self.add(prompt, data.draw(st.integers(1, 16)), earlier.namespace, 0, None)

    def add(
        self, prompt: list[int], max_tokens: int, namespace: str, priority: int, asked: int | None
    ) -> None:
        if len(prompt) + max_tokens - 1 > min(self.scheduler.pool.capacity, 64):
            return
        request = Request(
            len(self.requests),
            np.array(prompt, dtype=np.int32),
            SamplingParams(prompt_logprobs=None if asked is None else 0, logprob_start=asked or 0),
            max_tokens=max_tokens,
            stop_ids=frozenset([STOP]),
            namespace=namespace,
            priority=priority,
        )
        self.requests.append(request)
        self.device[request.handle] = list(prompt)
        self.scheduler.add(request)

    @precondition(lambda self: self.requests)
    @rule(data=st.data())
    def abort(self, data: st.DataObject) -> None:
        request = data.draw(st.sampled_from(self.requests))
        if request.status is not Status.FINISHED:
            self.scheduler.abort(request)

    @rule()
    def clear_cache(self) -> None:
        self.scheduler.pool.clear_cache()

    @rule()
    def retract_all(self) -> None:
        self.scheduler.retract_all()

    @rule(steps=st.integers(1, 6))
    def serve(self, steps: int) -> None:
        for _ in range(steps):
            self.launch()

    @rule()
    def launch(self) -> None:
        if len(self.flight) > 1:
            self.commit()
        plan = self.scheduler.plan()
        if plan is not None:
            self.flight.append((plan, self.compute(plan)))
            self.scheduler.publish(plan)

    @rule(data=st.data(), forced=st.lists(st.integers(1, WORDS), min_size=1, max_size=9))
    def jump(self, data: st.DataObject, forced: list[int]) -> None:
        """A sequence of the next step yields more tokens than one, as a grammar may have it."""
        while self.flight:
            self.commit()
        plan = self.scheduler.plan()
        if plan is None:
            return
        tokens = self.compute(plan)
        self.scheduler.publish(plan)
        sampled = np.flatnonzero(plan.samples).tolist()
        if sampled:
            sequence = data.draw(st.sampled_from(sampled))
            self.device[plan.requests[sequence].handle] += forced
            self.scheduler.jump(plan, sequence, [tokens[sequence], *forced])
        self.flight.append((plan, tokens))

    @precondition(lambda self: self.flight)
    @rule()
    def commit(self) -> None:
        plan, tokens = self.flight.popleft()
        self.scheduler.commit(plan, tokens)

    def compute(self, plan: StepPlan) -> list[int]:
        self.check_sharing(plan)
        self.advance_states(plan)
        for span in plan.scored:
            start = int(plan.starts[span.sequence])
            assert start <= span.start < span.end <= start + int(plan.lengths[span.sequence])
            self.scored.setdefault(span.request.handle, []).extend(range(span.start, span.end))
        table, tokens = self.scheduler.pool.table, []
        shared = {int(page) for node in self.scheduler.pool.cache.nodes() for page in node.pages}
        for s, request in enumerate(plan.requests):
            start, length = int(plan.starts[s]), int(plan.lengths[s])
            known = self.device[request.handle]
            assert length > 0
            assert start + length <= len(known)
            pages = table.pages[plan.rows[s]]
            for at in range(start, start + length):
                page = int(pages[at // self.page])
                assert page != 0, "the null page was handed out"
                assert page not in shared, "a shared page was written"
                slot = page * self.page + at % self.page
                self.memory[slot] = (hash(request.namespace), *known[: at + 1])
            for at in range(start + length):  # attention reads every earlier token
                slot = int(pages[at // self.page]) * self.page + at % self.page
                assert self.memory[slot] == (hash(request.namespace), *known[: at + 1])
            tokens.append(next_token(known))
            if plan.samples[s]:
                known.append(tokens[-1])
        return tokens

    def advance_states(self, plan: StepPlan) -> None:
        """Each run begins with the state of exactly its request's tokens before it."""
        runs = plan.states
        if runs is None:
            assert self.scheduler.pool.states is None
            return
        r = 0
        steps: list[list[tuple[int, int, tuple[int, ...], tuple[int, ...]]]] = [
            [] for _ in range(99)
        ]
        for s, request in enumerate(plan.requests):
            at, end = int(plan.starts[s]), int(plan.starts[s] + plan.lengths[s])
            known = self.device[request.handle]
            while at < end:
                to = at + int(runs.lengths[r])
                before, after = tuple(known[:at]), tuple(known[:to])
                name = (hash(request.namespace),)
                steps[runs.wave[r]].append(
                    (int(runs.read[r]), int(runs.write[r]), name + before, name + after)
                )
                at, r = to, r + 1
            assert at == end
        assert r == len(runs.lengths)
        for wave in steps:
            written = [write for _, write, _, _ in wave]
            assert 0 not in written, "the null slot was handed out"
            assert len(set(written)) == len(written), "two runs write to one slot"
            for read, write, before, _ in wave:
                assert read == write or read not in written, "what one run reads another writes"
                assert (self.states[read] if read else before[:1]) == before
            for _, write, _, after in wave:
                self.states[write] = after

    def check_sharing(self, plan: StepPlan) -> None:
        """The groups of decodes against their pages: the hint may not miss one, nor promise more."""
        table, seen = self.scheduler.pool.table, []
        pages = [table.row_pages(row, 0, int(table.num_pages[row])) for row in plan.rows.tolist()]
        hint = plan.shared
        members = np.split(hint.sequences, hint.indptr[1:-1]) if hint else []
        for group, tokens in zip(members, hint.tokens.tolist() if hint else [], strict=True):
            assert group.max() < plan.decodes
            assert len(group) > 1
            assert tokens <= plan.starts[group].min()
            beginnings = np.array([pages[s][: tokens // self.page] for s in group])
            assert (beginnings == beginnings[0]).all()
            assert len({int(pages[s][tokens // self.page]) for s in group}) > 1
            seen += group.tolist()
        assert len(seen) == len(set(seen))
        alone = {int(pages[s][0]) for s in range(plan.decodes) if s not in seen}
        assert len(alone) == plan.decodes - len(seen)

    @invariant()
    def every_page_has_one_owner(self) -> None:
        if not hasattr(self, "scheduler"):
            return
        scheduler = self.scheduler
        free = scheduler.pool.allocator._stack[: scheduler.pool.allocator.free].tolist()
        cached = [int(page) for node in scheduler.pool.cache.nodes() for page in node.pages]
        private = []
        for request in self.requests:
            if request.status is Status.RUNNING:
                held = int(scheduler.pool.table.num_pages[request.row])
                private += scheduler.pool.table.row_pages(
                    request.row, request.tree_pages, held
                ).tolist()
        everything = sorted(free + cached + private)
        assert everything == list(range(1, scheduler.pool.allocator.total + 1))
        assert scheduler.pool.cache.pages == len(cached)
        nodes = scheduler.pool.cache.nodes()
        assert all(len(node.tokens) == len(node.pages) * self.page for node in nodes)
        unlocked = sum(len(n.pages) for n in scheduler.pool.cache.nodes() if n.locks == 0)
        assert scheduler.pool.cache.evictable == unlocked

    @invariant()
    def every_state_has_one_owner(self) -> None:
        if not hasattr(self, "scheduler") or self.scheduler.pool.states is None:
            return
        states, pool = self.scheduler.pool.states, self.scheduler.pool
        free = states.slots._free._stack[: states.slots._free.free].tolist()
        cached = [node.state for node in pool.cache.nodes() if node.state]
        assert states.slots.checkpoints == len(cached), "a checkpoint was left pinned or forgotten"
        running = [r.row for r in self.requests if r.status is Status.RUNNING]
        held = [int(slots[row]) for slots in (states._own, states._kept) for row in running]
        assert not states._left, "a state that was left behind did not come to the tree"
        everything = sorted(free + cached + [slot for slot in held if slot])
        assert everything == list(range(1, states.slots.total + 1))
        assert states.slots.room >= pool.table.free_rows, "a request would find no state"

    def teardown(self) -> None:
        if not hasattr(self, "scheduler"):
            return
        for _ in range(2000):
            self.launch()
            if not self.flight and not self.scheduler.has_work:
                break
            if not self.flight:
                raise AssertionError("work is left and nothing can be planned")
            self.commit()
        assert not self.scheduler.has_work, "requests starved"
        for request in self.requests:
            assert request.status is Status.FINISHED
            answer = self.device[request.handle][len(request.prompt) :]
            assert request.output == answer[: len(request.output)]
            told, asked = self.scored.get(request.handle, []), request.params
            wanted = range(max(asked.logprob_start - 1, 0), len(request.prompt) - 1)
            if asked.prompt_logprobs is None:
                wanted = range(0)
            assert told == list(wanted)[: len(told)], "each position once, in order"
            assert not request.output or len(told) == len(wanted)
        self.every_page_has_one_owner()
        self.scheduler.pool.clear_cache()
        assert self.scheduler.pool.allocator.free == self.scheduler.pool.allocator.total
        if self.scheduler.pool.states is not None:
            slots = self.scheduler.pool.states.slots
            assert slots.room == slots.total
            assert slots.checkpoints == 0


class ServeStates(ServeRandomly):
    """With recurrent states, and room for a cache of them."""

    @initialize(
        page=st.sampled_from([2, 4]),
        pages=st.integers(30, 80),
        budget=st.integers(4, 12),
        state_slots=st.integers(7, 30),
    )
    def start(self, page: int, pages: int, budget: int, state_slots: int) -> None:  # type: ignore[override]
        self.begin(page, pages, budget, True, state_slots)


ServeRandomly.TestCase.settings = settings(
    max_examples=150, stateful_step_count=40, deadline=None, derandomize=True
)
TestServeRandomly = ServeRandomly.TestCase
ServeStates.TestCase.settings = ServeRandomly.TestCase.settings
TestServeStates = ServeStates.TestCase
