"""How a model would be served here, as far as that can be said without loading it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from inarch.config import EngineConfig
from inarch.engine.preparation import Prepared, prepare
from inarch.engine.sampler import Sampler
from inarch.engine.scoring import Scorer
from inarch.hal.backend import Backend
from inarch.hal.dispatch import explain
from inarch.models.survey import Survey
from inarch.plugins import Plugins


@dataclass(frozen=True)
class Outlook:
    """notes: what was warned of on the way. Sizes are bytes."""

    prepared: Prepared
    survey: Survey
    ops: list[tuple[str, str, int, str]]  # see `explain`
    total: int  # of the device
    usable: int
    share: float  # of the device, that may be used
    sampling: int
    notes: tuple[str, ...]

    @property
    def token_bytes(self) -> float:
        """Of the KV cache; 0 where the layers keep states alone."""
        layout = self.prepared.store.layout
        return layout.page_bytes / layout.page_tokens

    @property
    def state_bytes(self) -> int:
        """Of a request's recurrent state; 0 where there is none."""
        return self.prepared.blueprint.state_spec(self.prepared.chosen.dtype).slot_bytes

    @property
    def left(self) -> int:
        """What is left beside the weights, less what a step takes, which only a run can tell."""
        return max(self.usable - self.survey.weight_bytes - self.sampling, 0)


def foresee(config: EngineConfig, backend: Backend, plugins: Plugins) -> Outlook:
    """config: resolved. The device is closed by the caller. Raises InarchError."""
    with _collected_warnings() as notes:
        ready = prepare(config, backend, plugins)
        survey = ready.blueprint.survey(ready.chosen.dtype)
        ready.blueprint.bind(ready.dispatcher, ready.store, ready.device, ready.chosen.dtype)
    device, dispatcher, vocab_size = ready.device, ready.dispatcher, ready.blueprint.vocab_size
    running = config.max_running_requests or device.running_requests
    Sampler(running, vocab_size, device, dispatcher)
    Scorer(device, dispatcher, lambda hidden: hidden, running)
    dispatcher.freeze()
    memory, share = device.memory(), config.memory_share or device.memory_share
    return Outlook(
        prepared=ready,
        survey=survey,
        ops=explain(dispatcher.choices),
        total=memory.total,
        usable=min(int(memory.total * share) - memory.used, int(memory.free * share)),
        share=share,
        sampling=0 if ready.blueprint.pooled else Sampler.penalty_bytes(running, vocab_size),
        notes=tuple(notes),
    )


@contextmanager
def _collected_warnings() -> Iterator[list[str]]:
    """What the models' loggers warn of meanwhile, instead of printing it."""
    found: list[str] = []

    class Collecting(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            found.append(record.getMessage())

    logger, handler = logging.getLogger("inarch.models"), Collecting(logging.WARNING)
    propagated = logger.propagate
    logger.addHandler(handler)
    logger.propagate = False
    try:
        yield found
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagated
