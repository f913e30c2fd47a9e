"""Whose fault was it? What a front end concludes for its samples when an engine has died.

A sample is a suspect once two engines died while they ran it, and it got nowhere in between; of
those that are let in one at a time then, the one with which a further engine dies is poison.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path

from inarch.engine.frontend import SUSPECT, Sample, as_bytes
from inarch.engine.journal import Journal
from inarch.engine.messages import NewRequest, encode
from inarch.engine.trials import CLEARED
from inarch.errors import InvalidRequestError
from inarch.sampling import SamplingParams

SUFFIX = ".poison"


def convict(samples: Iterable[Sample], client: bytes, journal: Journal) -> list[Sample]:
    """Note for each sample that `client` had given to the dead engine how it bears on it.

    Those that killed it are returned: the one on trial, or a suspect that was all alone.
    """
    running, on_trial = journal.running(), journal.on_trial
    touched = [
        sample
        for sample in samples
        if _was_touched(sample, (client, sample.handle) in {*running, on_trial})
    ]
    for sample in touched:
        sample.deaths = sample.deaths + 1 if sample.since_death < CLEARED else 1
    alone = len(touched) == 1 and len(running) <= 1
    return [
        sample
        for sample in touched
        if (sample.deaths > SUSPECT and (client, sample.handle) == on_trial)
        or (sample.deaths == SUSPECT and alone)
    ]


def _was_touched(sample: Sample, held: bool) -> bool:
    """Whether the engine did anything for a sample: ran it, or compiled its grammar to run it."""
    return held or (sample.params.grammar is not None and not sample.tokens)


class Quarantine:
    """Requests that killed engines: one like them is refused, for clients like to try again.

    They are files in `folder`, that of the server's engines, so that a request which one front end
    has refused is refused by all of them from then on: a client that tries again costs no engine.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def take(self, message: NewRequest) -> InvalidRequestError:
        """Remember a request; the error with which it is answered."""
        name = _fingerprint(message.prompt, message.params)
        Path(self._folder, name + SUFFIX).touch()
        return _refusal()

    def check(self, prompt: Sequence[int], params: SamplingParams) -> None:
        """Raise InvalidRequestError for a request that was taken."""
        taken = {path.stem for path in self._folder.glob("*" + SUFFIX)}
        if taken and _fingerprint(as_bytes(prompt), params) in taken:
            raise _refusal()


def _fingerprint(prompt: bytes, params: SamplingParams) -> str:
    return hashlib.blake2b(prompt + encode(params), digest_size=32).hexdigest()


def _refusal() -> InvalidRequestError:
    return InvalidRequestError(
        "the engine has died of this request, more than once; it is not tried again until the server"
        " is restarted. The server's log says how the engine ended",
        status=500,
        code="poison_request",
    )
