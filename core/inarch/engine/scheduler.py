"""Decide what each step computes. No tensors, no device, no clock.

    plan -> (launch) -> publish -> (wait) -> commit

`plan` may be called again before the previous plan was committed: a decode needs to know only how
many tokens there are, not which. Steps run on the device in the order in which they were planned,
so pages may be given back as soon as the last step that uses them has been launched.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from inarch.engine.growth import GrowthEstimate
from inarch.engine.plan import Pooled, Produced, Scored, StepPlan
from inarch.engine.pool import Pool
from inarch.engine.request import Request, Status
from inarch.engine.running import Running
from inarch.engine.waiting import WaitingLine

RETRY_STEPS = 16  # after which a request that did not fit is tried again although nothing was freed


@dataclass(frozen=True, slots=True)
class SchedulerStats:
    running: int
    waiting: int
    pages_total: int
    pages_used: int  # held by running requests
    pages_cached: int  # evictable: kept for prompts that begin alike
    retractions: int


class Scheduler:
    """Token-budget scheduling over a paged, prefix-shared KV pool.

    Decodes go first, then chunks of prompts that have begun, then new requests: among the oldest
    waiting ones of the highest priority the one with the longest cached prefix, unless one was
    passed over too often. No running request is set back for a waiting one of higher priority.
    """

    def __init__(
        self,
        *,
        pages: int,
        page_tokens: int,
        max_running: int,
        max_step_tokens: int,
        context_length: int,
        prefix_cache: bool = True,
        whole_prompts: bool = False,
        state_slots: int = 0,
        long_from: int | None = None,
        long_shift: int = 0,
    ) -> None:
        """whole_prompts: every prompt is computed in one step, as attention to both sides needs.
        state_slots: of a model with recurrent states, the null slot included. long_from:
        `Description.long_from`; long_shift is added to the positions of what is longer.

        A request that grows beyond `long_from` tokens is set back, and computed anew as a long one.
        """
        if max_step_tokens < max_running:
            raise ValueError("a step must have room for a decode of every running request")
        self.max_running = max_running
        self.pool = Pool(
            pages=pages,
            page_tokens=page_tokens,
            rows=max_running,
            # The null row must hold all the padding of a step, which a short context would not.
            row_tokens=max(context_length, max_step_tokens),
            prefix_cache=prefix_cache,
            state_slots=state_slots,
            long_from=long_from,
            long_shift=long_shift,
        )
        self.waiting = WaitingLine()
        self._running = Running(self.pool.table, page_tokens)
        self._max_step_tokens = max_step_tokens
        self._whole_prompts = whole_prompts
        self._growth = GrowthEstimate(page_tokens)
        self._admitted = 0
        self._full_at = self._full_for = 0  # the room that was too little, and for how many steps
        self._retractions = 0

    @property
    def has_work(self) -> bool:
        return bool(self.waiting or self._running)

    def longest(self, context: int) -> int:
        """Tokens of the longest request that can be taken, of those that fit the context."""
        most = min(context, self.pool.capacity)
        return min(most, self._max_step_tokens) if self._whole_prompts else most

    def stats(self) -> SchedulerStats:
        cached, total = self.pool.cache.evictable, self.pool.allocator.total
        used = total - self.pool.allocator.free - cached
        running, waiting = len(self._running), len(self.waiting)
        return SchedulerStats(running, waiting, total, used, cached, self._retractions)

    # ---- requests come and go ----

    def add(self, request: Request) -> None:
        """Queue a request whose prompt and answer fit the pool and the context length."""
        assert len(request.prompt) + request.max_tokens - 1 <= self.pool.capacity
        self._full_for = 0
        if self._outgrows(request):
            request.lengthen()
        self.waiting.join(request)

    def abort(self, request: Request) -> None:
        """End a request at any moment; a token in flight for it is dropped when it arrives."""
        if request.status is Status.WAITING:
            self.waiting.leave(request)
        elif request.status is Status.RUNNING:
            self._leave(request)
        request.status = Status.FINISHED

    def retract_all(self) -> None:
        """Set all running requests back; they keep their tokens, and their places in line."""
        for request in [*reversed(self._running.prefills), *reversed(self._running.decodes)]:
            self._retract(request)

    # ---- the step ----

    def plan(self) -> StepPlan | None:
        """Choose the next step, or None if nothing can be computed now."""
        retractions = self._retractions
        decode_rows = self._plan_decodes()
        budget = self._max_step_tokens - len(decode_rows)
        chunks = self._plan_prefills(budget, admit=self._retractions == retractions)
        if not len(decode_rows) and not chunks:
            return None
        table = self.pool.table
        decodes: list[Request] = table.requests[decode_rows].tolist()
        requests = decodes + [request for request, _ in chunks]
        prefill_rows = np.array([request.row for request, _ in chunks], dtype=np.int32)
        rows = np.concatenate((decode_rows, prefill_rows))
        starts = table.computed[rows]
        lengths = np.ones(len(rows), dtype=np.int32)
        samples = np.ones(len(rows), dtype=bool)
        scored, pooled = [], []
        for s, (request, length) in enumerate(chunks, start=len(decodes)):
            lengths[s] = length
            start = int(starts[s])
            samples[s] = start + length == request.known and request.wanted is None
            if span := request.score(start, start + length):
                scored.append(Scored(request, s, *span))
            if part := request.pool(start, start + length):
                pooled.append(Pooled(request, s, *part))
        states = self.pool.plan_states(decode_rows, chunks)
        table.computed[rows] += lengths
        for request, sampled in zip(requests, samples.tolist(), strict=True):
            request.in_flight += sampled
        shared = self._running.shared_by(decodes, decode_rows)
        self._running.start_decoding([request for request, _ in chunks])
        return StepPlan(
            requests, rows, starts, lengths, samples, len(decodes), shared, scored, pooled, states
        )

    def publish(self, plan: StepPlan) -> None:
        """After the plan was launched: let others share the prompt pages that it fills."""
        for request in plan.requests[plan.decodes :]:
            if request.status is Status.RUNNING:
                self.pool.share(request)
        self.pool.launched()

    def commit(self, plan: StepPlan, tokens: Sequence[int]) -> list[Produced]:
        """Record the tokens of a finished step; `tokens` has one for every sequence of the plan.

        Requests that are at their end leave, and their pages become cache.
        """
        produced = []
        for sequence in np.flatnonzero(plan.samples).tolist():
            request = plan.requests[sequence]
            request.in_flight -= 1
            if request.status is Status.FINISHED:
                continue
            produced.append(self._append(request, tokens[sequence], sequence))
            if self._outgrows(request):
                self._compute_as_long(request)
        for part in plan.pooled:
            if part.last:
                self.abort(part.request)
        self._growth.step_done()
        return produced

    def jump(self, plan: StepPlan, sequence: int, tokens: Sequence[int]) -> list[Produced]:
        """Append tokens that a launched sequence is certain to yield: the first one, and those after
        it, which are then computed like a prompt's. What the step samples for it is dropped."""
        request = plan.requests[sequence]
        plan.samples[sequence] = False
        request.in_flight -= 1
        produced = []
        for token in tokens:
            produced.append(self._append(request, token, sequence))
            if produced[-1].finish:
                return produced
        if self._outgrows(request):
            self._compute_as_long(request)
            return produced
        self._running.prefill_again(request)
        return produced

    def _append(self, request: Request, token: int, sequence: int) -> Produced:
        """Add a token to an answer, and end the answer if that was its last."""
        output, constraint = request.output, request.constraint
        output.append(token)
        finish = None
        if token in request.stop_ids and len(output) >= request.params.min_tokens:
            finish = "stop"
        elif constraint is not None:
            finish = constraint.advance(output)
        if finish is None and len(output) >= request.max_tokens:
            finish = "length"
        if finish:
            self.abort(request)
        return Produced(request, token, sequence, finish, first=len(output) == 1)

    # ---- decodes ----

    def _plan_decodes(self) -> np.ndarray:
        """Rows that decode in this step, each with a page for its token."""
        pool, table = self.pool, self.pool.table
        while True:
            every = self._running.decode_rows()
            rows: np.ndarray = every[table.computed[every] < table.limit[every]]
            full = rows[table.num_pages[rows] * pool.page_tokens <= table.computed[rows]]
            if pool.make_room(len(full)):
                break
            self._retract_newest()
        if len(full):
            table.append_page_each(full, pool.allocator.take(len(full)))
        return rows

    # ---- prefills ----

    def _plan_prefills(self, budget: int, *, admit: bool) -> list[tuple[Request, int]]:
        """Chunks (request, length) of begun prompts first, then of newly admitted ones."""
        chunks: list[tuple[Request, int]] = []
        for request in self._running.prefills:
            length = self.pool.grow(request, budget)
            if not length:
                break
            chunks.append((request, length))
            budget -= length
        else:
            return chunks + self._admit(budget) if admit else chunks
        if not chunks and not self._running.decodes:
            return self._unblock_prefill(budget)
        return chunks

    def _unblock_prefill(self, budget: int) -> list[tuple[Request, int]]:
        """Begun prompts hold all memory and none can go on: the newest ones give theirs up."""
        while True:
            first = self._running.prefills[0]
            length = self.pool.grow(first, budget)
            if length:
                return [(first, length)]
            if len(self._running.prefills) == 1:
                return []  # pages come back when steps in flight are committed
            self._retract_newest()

    # ---- admission ----

    def _admit(self, budget: int) -> list[tuple[Request, int]]:
        pool, chunks = self.pool, list[tuple[Request, int]]()
        if budget <= 0 or not self.waiting or not pool.table.free_rows or self._still_full():
            return chunks
        reserved = self._reserved_pages()
        for request in self.waiting.candidates(lambda r: len(pool.usable(pool.match(r)).pages)):
            if budget <= 0 or not pool.table.free_rows:
                break
            if self._whole_prompts and request.known > budget:
                continue
            found = pool.match(request)
            if pool.soon_longer(request, found, self._running.prefills):
                continue
            match = pool.usable(found)
            node = pool.cache.lock(match)
            pages = pool.pages_of(request.known) - len(match.pages)
            growth = self._growth.pages(request.max_tokens - len(request.output))
            if pages + (growth + reserved if self._running else 0) > pool.room:
                pool.cache.unlock(node)
                self._full_at, self._full_for = pool.room, RETRY_STEPS
                break
            if not pool.open(request, match, node, found):
                pool.cache.unlock(node)
                break
            self.waiting.admit(request)
            self._run(request, match.tokens(pool.page_tokens))
            length = pool.grow(request, budget)
            chunks.append((request, length))
            budget -= length
            reserved += growth + max(pages - pool.pages_of(length), 0)
        return chunks

    def _still_full(self) -> bool:
        """Whether a request did not fit a moment ago, and there is no more room now.

        Spares matching the waiting prompts in every step while memory is short.
        """
        self._full_for -= 1
        return bool(self._running) and self._full_for > 0 and self.pool.room <= self._full_at

    def _run(self, request: Request, cached_tokens: int) -> None:
        if not request.retractions:
            request.cached_tokens = cached_tokens
        self._admitted += 1
        request.order = self._admitted
        request.status = Status.RUNNING
        self._running.begin(request)

    def _reserved_pages(self) -> int:
        """Pages to keep for what is running: the rest of begun prompts, and expected growth."""
        table, prefills = self.pool.table, self._running.prefills
        prefill = sum(self.pool.missing(request) for request in prefills)
        rows = self._running.decode_rows()
        remaining = int((table.limit[rows] - table.computed[rows]).sum())
        remaining += sum(r.max_tokens - len(r.output) for r in prefills)
        return prefill + self._growth.pages(remaining)

    # ---- retraction ----

    def _retract_newest(self) -> None:
        """Take memory from the request admitted last, of those of the lowest priority."""
        newest = min(self._running, key=lambda request: (request.priority, -request.order))
        self._retract(newest)
        self._growth.ran_short()

    def _retract(self, request: Request) -> None:
        """Set a running request back: it keeps its tokens and goes first in line."""
        self._leave(request)
        request.status = Status.WAITING
        request.retractions += 1
        self.waiting.return_first(request)
        self._retractions += 1

    def _outgrows(self, request: Request) -> bool:
        """Whether a request is longer than what its rotations are for."""
        original = self.pool.long_from
        if original is None or request.is_long or request.status is Status.FINISHED:
            return False
        return request.known > original

    def _compute_as_long(self, request: Request) -> None:
        if request.status is Status.RUNNING:
            self._retract(request)
        request.lengthen()

    def _leave(self, request: Request) -> None:
        self._running.leave(request)
        self.pool.close(request)
