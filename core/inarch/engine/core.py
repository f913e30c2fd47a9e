"""The step loop: plan, launch, publish, commit. The one loop, on every device, offline and served.

While the device runs a step the next one is planned and launched; results are read one step late.
A device that is done when `launch` returns (a CPU) is read at once, so nothing is late there.
"""

from __future__ import annotations

from collections import deque

import numpy as np

from inarch.engine.messages import Abort, NewRequest, Stats, TokenOutput
from inarch.engine.pace import Pace
from inarch.engine.plan import Produced
from inarch.engine.request import Request, Status
from inarch.engine.runner import InFlight, Runner, StepResult
from inarch.engine.scheduler import Scheduler
from inarch.engine.scoring import prompt_logprobs

MAX_IN_FLIGHT = 2  # launched steps: when there are as many, the oldest is waited for


class EngineCore:
    """Scheduler and runner, driven step by step by whoever owns it."""

    def __init__(self, scheduler: Scheduler, runner: Runner, *, max_waiting: int) -> None:
        self.scheduler = scheduler
        self._runner = runner
        self._max_waiting = max_waiting
        self._flight: deque[InFlight] = deque()
        self._pace = Pace()
        self._paused = False
        self._requests: dict[tuple[bytes, int], Request] = {}
        self._steps = self._prompt_tokens = self._cached_tokens = self._generated_tokens = 0

    @property
    def has_work(self) -> bool:
        return bool(self._flight) or (self.scheduler.has_work and not self._paused)

    def add(self, message: NewRequest, client: bytes = b"") -> bool:
        """Queue a sample; False if too many are waiting."""
        if len(self.scheduler.waiting) >= self._max_waiting and not message.again:
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
        request.go_on(np.frombuffer(message.output, dtype=np.int32).tolist())
        self._requests[client, message.handle] = request
        self.scheduler.add(request)
        return True

    def abort(self, message: Abort, client: bytes = b"") -> None:
        """End a sample; unknown handles have ended already."""
        request = self._requests.pop((client, message.handle), None)
        if request is not None and request.status is not Status.FINISHED:
            self.scheduler.abort(request)

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

    def step(self) -> dict[bytes, TokenOutput]:
        """Launch the next step, if there is one, and commit those that are done: news by client."""
        began = self._pace.now()
        plan = None if self._paused else self.scheduler.plan()
        if plan is not None:
            self._flight.append(self._runner.launch(plan))
            behind = len(self._flight) > 1 and not self._flight[-2].ready()
            self._pace.launched(began, behind=behind)
            self.scheduler.publish(plan)
        outputs: dict[bytes, TokenOutput] = {}
        while self._flight and (
            plan is None or len(self._flight) >= MAX_IN_FLIGHT or self._flight[0].ready()
        ):
            self._commit(self._flight.popleft(), outputs)
        return outputs

    def prepare(self) -> bool:
        """Use a moment without work for a kind of step that may come; False if all are prepared."""
        return self._runner.prepare()

    def stats(self, ticket: int = 0) -> Stats:
        now = self.scheduler.stats()
        return Stats(
            ticket=ticket,
            running=now.running,
            waiting=now.waiting,
            kv_pages_total=now.pages_total,
            kv_pages_used=now.pages_used,
            kv_pages_cached=now.pages_cached,
            page_tokens=self.scheduler.page_tokens,
            retractions=now.retractions,
            steps=self._steps,
            prompt_tokens=self._prompt_tokens,
            cached_tokens=self._cached_tokens,
            generated_tokens=self._generated_tokens,
            paused=self._paused,
        )

    def _commit(self, step: InFlight, outputs: dict[bytes, TokenOutput]) -> None:
        result = step.wait()
        self._pace.finished(step.plan)
        produced = self.scheduler.commit(step.plan, result.tokens)
        for span, told in result.prompts:
            span.request.prompt_logprobs.append(told)
        self._steps += 1
        self._generated_tokens += len(produced)
        for item in produced:
            request = item.request
            output = outputs.get(request.client)
            if output is None:
                output = outputs[request.client] = TokenOutput(handles=[], tokens=[])
            if item.finish or len(request.output) == 1 or request.params.logprobs is not None:
                self._report_details(item, result, output)
            output.handles.append(request.handle)
            output.tokens.append(item.token)

    def _report_details(self, item: Produced, result: StepResult, output: TokenOutput) -> None:
        """What comes with a sample's first and last token, and with each if it wants logprobs."""
        request, index = item.request, len(output.handles)
        if len(request.output) == 1:
            output.cached[index] = request.cached_tokens
            if request.params.prompt_logprobs is not None:
                output.prompts[index] = prompt_logprobs(request)
            self._prompt_tokens += len(request.prompt)
            self._cached_tokens += request.cached_tokens
        wanted = request.params.logprobs
        if wanted is not None:
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
