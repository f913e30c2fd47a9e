"""The requests that are held to a grammar: they wait until it is compiled, and then follow it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait

import numpy as np

from inarch.engine.constraint import Constraint
from inarch.engine.grammars import Grammars
from inarch.engine.request import Request
from inarch.engine.sampler import mask_words
from inarch.errors import InvalidRequestError
from inarch.grammar import Compiled

log = logging.getLogger("inarch.engine")


class Held:
    """What the step loop knows of grammars."""

    def __init__(self, grammars: Grammars) -> None:
        self._grammars = grammars
        self._words = mask_words(grammars.vocab_size)
        self._compiling: dict[Request, Future[Compiled]] = {}

    # ---- before a request may run ----

    @property
    def compiling(self) -> int:
        """Requests whose grammar is being compiled, or was a moment ago."""
        return len(self._compiling)

    @property
    def ready(self) -> bool:
        """Whether `take_ready` would give any."""
        return bool(self._compiling) and any(f.done() for f in self._compiling.values())

    def compile(self, request: Request) -> None:
        assert request.params.grammar is not None
        self._compiling[request] = self._grammars.compile(request.params.grammar)

    def forget(self, request: Request) -> bool:
        """Drop a request that waits for its grammar; False if it does not."""
        return self._compiling.pop(request, None) is not None

    def wait(self) -> None:
        """Until a grammar is compiled, if any is being."""
        if self._compiling:
            wait(self._compiling.values(), return_when=FIRST_COMPLETED)

    def take_ready(self) -> list[tuple[Request, str | None]]:
        """Requests whose grammar has been compiled, each with the reason if it could not be."""
        done = [request for request, future in self._compiling.items() if future.done()]
        return [(request, self._begin(request, self._compiling.pop(request))) for request in done]

    def _begin(self, request: Request, future: Future[Compiled]) -> str | None:
        grammar, params = request.params.grammar, request.params
        assert grammar is not None
        try:
            request.constraint = Constraint(
                grammar, future.result(), self._grammars.end_ids, ignore_eos=params.ignore_eos
            )
            request.constraint.follow(request.output)
        except InvalidRequestError as error:
            return str(error)
        except (
            Exception
        ) as error:  # a plugin's fault costs the request that needed it, nothing else
            log.exception("a grammar could not be compiled")
            return f"the grammar could not be compiled: {type(error).__name__}: {error}"
        return None

    def close(self) -> None:
        self._grammars.close()

    # ---- while it runs ----

    def forced(self, request: Request) -> Sequence[int]:
        """Tokens that come next, whatever the model says; none if it is asked how likely they are."""
        params = request.params
        told = params.logprobs is not None or params.prompt_logprobs is not None
        if request.constraint is None or told:
            return ()
        try:
            return request.constraint.forced()
        except Exception:  # `fill` is about to meet it too
            return ()

    def fill(self, requests: Sequence[Request]) -> tuple[np.ndarray, list[Request]]:
        """A bitmask [requests, words] int32 of what each may yield next, and those that failed."""
        bitmask = np.full((len(requests), self._words), -1, dtype=np.int32)
        failed = []
        for row, request in zip(bitmask, requests, strict=True):
            assert request.constraint is not None
            early = len(request.output) < request.params.min_tokens
            try:
                request.constraint.fill(row, request.stop_ids if early else ())
            except Exception:
                log.exception("a grammar engine failed")
                row.fill(-1)
                failed.append(request)
        return bitmask, failed
