"""The step loop: plan, launch, publish, commit. The one loop, on every device, offline and served.

While the device runs a step the next one is planned and launched; results are read one step late.
A device that is done when `launch` returns (a CPU) is read at once, so nothing is late there.

Where an answer is held to a grammar, what may be sampled depends on the token before. Its forward pass
is launched all the same; while the device runs it, the host waits for that token, and then says what
may be sampled. Steps without such an answer never wait.
"""

from __future__ import annotations

from collections import Counter, deque

import numpy as np

from inarch.cache.outline import outline
from inarch.cache.radix import Node
from inarch.engine.grammars import Grammars
from inarch.engine.held import Held
from inarch.engine.messages import (
    Abort,
    CacheTree,
    NewRequest,
    Refused,
    Stats,
    TokenOutput,
    TreeNode,
)
from inarch.engine.pace import Pace
from inarch.engine.plan import Produced, StepPlan
from inarch.engine.pooling import as_vectors
from inarch.engine.request import Request, Status
from inarch.engine.runner import Forwarded, InFlight, Runner, StepResult
from inarch.engine.sampler import TokenMask
from inarch.engine.scheduler import Scheduler
from inarch.engine.scoring import prompt_logprobs

TREE_HEAD = 32  # token ids of each node of the prefix tree that are told
MAX_IN_FLIGHT = 2  # launched steps: when there are as many, the oldest is waited for
Outputs = dict[bytes, TokenOutput]  # by client


class EngineCore:
    """Scheduler and runner, driven step by step by whoever owns it."""

    def __init__(
        self, scheduler: Scheduler, runner: Runner, grammars: Grammars, *, max_waiting: int
    ) -> None:
        self.scheduler = scheduler
        self._runner = runner
        self._held = Held(grammars)
        self._max_waiting = max_waiting
        self._flight: deque[InFlight] = deque()
        self._pace = Pace()
        self._paused = False
        self._requests: dict[tuple[bytes, int], Request] = {}
        self._refused: list[tuple[bytes, Refused]] = []
        self._steps = self._prompt_tokens = self._cached_tokens = self._generated_tokens = 0

    @property
    def has_work(self) -> bool:
        planned = self.scheduler.has_work and not self._paused
        return bool(self._flight) or planned or self._held.ready

    @property
    def compiling(self) -> bool:
        """Whether requests wait for their grammars, of which there may be no other sign."""
        return self._held.compiling > 0

    @property
    def waiting(self) -> int:
        return len(self.scheduler.waiting) + self._held.compiling

    def add(self, message: NewRequest, client: bytes = b"") -> bool:
        """Queue a sample; False if too many are waiting."""
        if self.waiting >= self._max_waiting and not message.again:
            return False
        request = Request(
            message.handle,
            np.frombuffer(message.prompt, dtype=np.int32),
            message.params,
            max_tokens=message.max_tokens,
            stop_ids=frozenset(message.stop_ids),
            seed=message.seed,
            namespace=message.namespace,
            priority=message.priority,
            client=client,
        )
        request.arrived_s = self._pace.now()
        request.go_on(np.frombuffer(message.output, dtype=np.int32).tolist())
        self._requests[client, message.handle] = request
        if request.params.encode:
            request.encode(self._runner.wanted(len(request.prompt)))
        if request.params.grammar is None:
            self.scheduler.add(request)
        else:
            self._held.compile(request)
        return True

    def abort(self, message: Abort, client: bytes = b"") -> None:
        """End a sample; unknown handles have ended already."""
        request = self._requests.pop((client, message.handle), None)
        if request is None or request.status is Status.FINISHED:
            return
        if not self._held.forget(request):
            self.scheduler.abort(request)

    def take_refused(self) -> list[tuple[bytes, Refused]]:
        """Samples that ended without an answer since the last call, by client."""
        refused, self._refused = self._refused, []
        return refused

    def await_grammar(self) -> None:
        """Wait until a grammar is compiled; returns at once if none is being."""
        self._held.wait()

    def handles(self, client: bytes) -> list[int]:
        """Samples of a client that have not ended."""
        return [handle for owner, handle in self._requests if owner == client]

    def pause(self, *, retract: bool = False) -> None:
        """Plan no further step until `proceed`; retract: running requests give up their memory."""
        self._paused = True
        if retract:
            self.scheduler.retract_all()

    def proceed(self) -> None:
        self._paused = False

    def spare(self) -> float:
        """Seconds for which the next step should be held back for newcomers; 0: call `step` now."""
        if len(self._flight) != 1 or self._flight[0].ready():
            return 0.0
        return self._pace.spare(self._flight[0].plan)

    def step(self) -> Outputs:
        """Launch the next step, if there is one, and commit those that are done: news by client."""
        if self._held.ready:
            self._admit_compiled()
        began = self._pace.now()
        plan = None if self._paused else self.scheduler.plan()
        outputs: Outputs = {}
        if plan is not None:
            step = self._runner.forward(plan)
            behind = bool(self._flight) and not self._flight[-1].ready()
            self._pace.launched(began, behind=behind)
            self.scheduler.publish(plan)
            for request in plan.requests[plan.decodes :]:
                if request.queued_s is None:
                    request.queued_s = began - request.arrived_s
            mask = self._mask(step, outputs) if len(step.inputs.constrained) else None
            self._flight.append(self._runner.sample(step, mask))
        while self._flight and (
            plan is None or len(self._flight) >= MAX_IN_FLIGHT or self._flight[0].ready()
        ):
            self._commit(self._flight.popleft(), outputs)
        return outputs

    def prepare(self) -> bool:
        """Use a moment without work for a kind of step that may come; False if all are prepared."""
        return self._runner.prepare()

    def close(self) -> None:
        self._held.close()

    def stats(self, ticket: int = 0) -> Stats:
        now, states = self.scheduler.stats(), self.scheduler.pool.states
        slots = None if states is None else states.slots
        return Stats(
            ticket=ticket,
            running=now.running,
            waiting=now.waiting + self._held.compiling,
            kv_pages_total=now.pages_total,
            kv_pages_used=now.pages_used,
            kv_pages_cached=now.pages_cached,
            page_tokens=self.scheduler.pool.page_tokens,
            retractions=now.retractions,
            steps=self._steps,
            prompt_tokens=self._prompt_tokens,
            cached_tokens=self._cached_tokens,
            generated_tokens=self._generated_tokens,
            paused=self._paused,
            state_slots_total=slots.total if slots else 0,
            state_slots_used=slots.used if slots else 0,
            state_checkpoints=slots.checkpoints if slots else 0,
        )

    def cache_tree(self, ticket: int, most: int) -> CacheTree:
        """The prefix tree in outline: `most` nodes of it. A node goes by its first page's id."""
        cache = self.scheduler.pool.cache
        found = list(outline(cache, most))
        shown = Counter(node.parent for node, _ in found)
        nodes = [
            TreeNode(
                _page(node),
                _page(node.parent),
                len(node.tokens),
                node.locks,
                node.last_used,
                len(node.children) - shown[node],
                b"" if is_named else node.tokens[:TREE_HEAD].astype("<i4").tobytes(),
            )
            for node, is_named in found
        ]
        return CacheTree(ticket=ticket, nodes=nodes, tokens=cache.pages * cache.page_tokens)

    # ---- grammars ----

    def _admit_compiled(self) -> None:
        """Requests whose grammar is there join the line; those whose grammar is refused end."""
        for request, why in self._held.take_ready():
            if why is None:
                self.scheduler.add(request)
            else:
                self._refuse(request, why)

    def _mask(self, step: Forwarded, outputs: Outputs) -> TokenMask | None:
        """What may be sampled in a step whose forward pass is launched: waits for the steps before."""
        while self._flight:
            self._commit(self._flight.popleft(), outputs)
        plan, sequences = step.plan, step.inputs.sequences
        places = [
            place
            for place in step.inputs.constrained.tolist()
            if plan.requests[sequences[place]].status is Status.RUNNING  # else it has just ended
            and not self._jump(plan, int(sequences[place]), outputs)
        ]
        requests = [plan.requests[sequences[place]] for place in places]
        bitmask, failed = self._held.fill(requests)
        for request in failed:
            self.scheduler.abort(request)
            self._refuse(request, "the grammar engine failed; see the server's log", status=500)
        return TokenMask(bitmask, np.array(places, dtype=np.int64)) if places else None

    def _jump(self, plan: StepPlan, sequence: int, outputs: Outputs) -> bool:
        """Append tokens that are certain without a forward pass for each; False if there are none."""
        tokens = self._held.forced(plan.requests[sequence])
        if len(tokens) < 2:  # the step yields one itself
            return False
        for item in self.scheduler.jump(plan, sequence, tokens):
            self._report(item, None, outputs)
        return True

    def _refuse(self, request: Request, why: str, *, status: int = 400) -> None:
        refused = Refused(handle=request.handle, message=why, status=status)
        self._refused.append((request.client, refused))
        self._requests.pop((request.client, request.handle), None)

    # ---- results ----

    def _commit(self, step: InFlight, outputs: Outputs) -> None:
        result = step.wait()
        self._pace.finished(step.plan)
        for span, told in result.prompts:
            span.request.prompt_logprobs.append(told)
        self._steps += 1
        for item in self.scheduler.commit(step.plan, result.tokens):
            self._report(item, result, outputs)
        for part, rows in result.vectors:
            part.request.keep(part.start, rows)
            if part.last:
                self._report_vectors(part.request, outputs)

    def _report_vectors(self, request: Request, outputs: Outputs) -> None:
        """The one news of a prompt to encode, unless somebody has ended it meanwhile."""
        if self._requests.pop((request.client, request.handle), None) is None:
            return
        output = _of(request.client, outputs)
        index = len(output.handles)
        self._report_begin(request, index, output)
        output.vectors[index] = as_vectors(request)
        output.finish[index] = "stop"
        output.handles.append(request.handle)
        output.tokens.append(0)

    def _report(self, item: Produced, result: StepResult | None, outputs: Outputs) -> None:
        request = item.request
        if item.finish == "failed":
            self._refuse(request, "the grammar engine failed; see the server's log", status=500)
            return
        self._generated_tokens += 1
        output = _of(request.client, outputs)
        if item.finish or item.first or request.params.logprobs is not None:
            self._report_details(item, result, output)
        output.handles.append(request.handle)
        output.tokens.append(item.token)

    def _report_details(
        self, item: Produced, result: StepResult | None, output: TokenOutput
    ) -> None:
        """What comes with a sample's first and last token, and with each if it wants logprobs."""
        request, index = item.request, len(output.handles)
        if item.first:
            self._report_begin(request, index, output)
            if request.params.prompt_logprobs is not None:
                output.prompts[index] = prompt_logprobs(request)
        wanted = request.params.logprobs
        if wanted is not None and result is not None:
            told = result.logprobs[item.sequence]
            named = len(request.params.logprob_token_ids)
            output.logprobs[index] = (
                float(told.chosen[0]),
                told.values[0, :wanted].tolist(),
                told.ids[0, :wanted].tolist(),
                told.wanted[0, :named].tolist(),
            )
        if item.finish:
            output.finish[index] = item.finish
            self._requests.pop((request.client, request.handle), None)

    def _report_begin(self, request: Request, index: int, output: TokenOutput) -> None:
        output.cached[index] = request.cached_tokens
        output.queued[index] = request.queued_s or 0.0
        self._prompt_tokens += len(request.prompt)
        self._cached_tokens += request.cached_tokens


def _of(client: bytes, outputs: Outputs) -> TokenOutput:
    """The step's news for one client."""
    if client not in outputs:
        outputs[client] = TokenOutput(handles=[], tokens=[])
    return outputs[client]


def _page(node: Node | None) -> int:
    """The first page of a node, which no other node has; 0, the null page, for the root."""
    return int(node.pages[0]) if node is not None and node.parent is not None else 0
