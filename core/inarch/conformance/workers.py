"""Cases judged in processes of their own, several at once: for devices whose kernels compile long.

What goes between is a line of JSON each way. A process that dies takes one case along, whose result
says so, and another takes its place.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from typing import Any

from inarch.conformance.case import Case, Outcome, Result, judge
from inarch.conformance.suite import Suite, find
from inarch.engine.resolve import set_environment
from inarch.plugins import load_plugins

PATIENCE_S = 5.0  # to end by itself, and take its temporary folders away


def judged(suite: Suite, cases: Sequence[Case], jobs: int) -> Iterator[Result]:
    """The results in the order of the cases, which are the suite's."""
    origin = json.dumps([suite.package.backend.name, suite.index, suite.depth])
    idle: SimpleQueue[Worker] = SimpleQueue()
    workers = [Worker(origin) for _ in range(min(jobs, len(cases)))]
    for worker in workers:
        idle.put(worker)

    def judge_elsewhere(case: Case) -> Result:
        worker = idle.get()
        try:
            return worker.judge(case)
        finally:
            idle.put(worker)

    pool = ThreadPoolExecutor(max(1, len(workers)))
    try:
        yield from pool.map(judge_elsewhere, cases)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        for worker in workers:
            worker.end()


class Worker:
    """A process with the same suite, which judges the cases it is told of."""

    def __init__(self, origin: str) -> None:
        self._command = [sys.executable, "-m", __name__, origin]
        self._process: subprocess.Popen[str] | None = None

    def judge(self, case: Case) -> Result:
        started = time.perf_counter()
        if self._process is None:
            pipe = subprocess.PIPE
            self._process = subprocess.Popen(self._command, stdin=pipe, stdout=pipe, text=True)
        answer = self._ask(self._process, [case.level, case.id])
        if answer is None:
            note = f"its process ended with status {self.end()}"
            return Result(case, Outcome.ERROR, note, time.perf_counter() - started)
        return Result(case, Outcome(answer.pop("outcome")), **answer)

    def _ask(self, process: subprocess.Popen[str], question: object) -> dict[str, Any] | None:
        """The answer; None if the process ended over it."""
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            print(json.dumps(question), file=process.stdin, flush=True)
        except BrokenPipeError:
            return None
        line = process.stdout.readline()
        return json.loads(line) if line else None

    def end(self) -> int | None:
        """The status of the process, if there was one."""
        process, self._process = self._process, None
        if process is None:
            return None
        try:
            process.communicate(timeout=PATIENCE_S)  # closes the pipes: nothing more is asked
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
        return process.returncode


def main(origin: str) -> None:
    """The other end: a line with a result for each line that names a case."""
    backend, index, depth = json.loads(origin)
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a vendor's library prints is no answer
    plugins = load_plugins()
    package = find(plugins, backend)
    set_environment(package.backend)
    suite = Suite(package, plugins, index, depth)
    for line in sys.stdin:
        level, named = json.loads(line)
        result = judge(next(case for case in suite.cases(level) if case.id == named))
        told = {"note": result.note, "seconds": result.seconds, "traceback": result.traceback}
        print(json.dumps({"outcome": result.outcome.value, **told}), file=answers, flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
