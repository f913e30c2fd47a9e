"""Which backend serves: the one that was named, or the best one that is really there.

Falling back to the CPU is refused while faster hardware was seen or a plugin that may hold its
backend is broken: a slow server that says nothing is the worse failure.
"""

from __future__ import annotations

import enum
import functools
import re
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata

from inarch.discovery import PluginRecord, PluginState, normalized
from inarch.errors import BackendError, PluginError
from inarch.hal.backend import Backend, Probe
from inarch.plugins import OWN_DISTRIBUTION, Fault, Plugins, guarded

ACCELERATOR_SCORE = 100
SLOW_PROBE_SECONDS = 1.0
MOST_PROBE_SECONDS = 10.0
HANGS = f"probe() has not answered in {MOST_PROBE_SECONDS:g} s, and is not asked again"
SEE = "`inarch plugins --verbose` shows more"


class BackendState(enum.Enum):
    """What came of a backend."""

    READY = "ready"
    UNAVAILABLE = "unavailable"
    PROBE_FAILED = "probe failed"
    DUPLICATE = "duplicate"


@dataclass(frozen=True)
class BackendStatus:
    """One backend, and whether it can run on this machine."""

    backend: Backend
    plugin: PluginRecord | None  # None: part of the core
    state: BackendState
    reason: str = ""
    probe: Probe | None = None
    traceback: str = ""
    probe_seconds: float = 0.0

    @property
    def name(self) -> str:
        return self.backend.name

    @property
    def score(self) -> int:
        return self.probe.score if self.probe is not None else 0

    @property
    def slow_probe(self) -> bool:
        return self.probe_seconds > SLOW_PROBE_SECONDS

    @property
    def wasted(self) -> bool:
        """Whether hardware may lie idle because of this state."""
        if self.state is BackendState.UNAVAILABLE:
            return self.probe is not None and self.probe.hardware_seen
        return self.state is not BackendState.READY

    @property
    def why(self) -> str:
        devices = f" ({', '.join(self.probe.devices)})" if self.probe and self.probe.devices else ""
        return f"{self.name}{devices}: {self.reason or self.state.value}"


def survey(plugins: Plugins, only: str | None = None) -> list[BackendStatus]:
    """Probe every backend (or those named `only`), best first. A probe that raises is a state."""
    from inarch.hal.reference.backend import ReferenceBackend

    core = ReferenceBackend()
    given = plugins.backends()
    statuses = [] if only not in (None, core.name) else [_probed(plugins, core, None)]
    for backend, plugin in given:
        if only not in (None, backend.name):
            continue
        owners = ["the core"] if backend.name == core.name else []
        owners += [f"plugin {p.key}" for b, p in given if b.name == backend.name]
        clash = len(owners) > 1
        statuses.append(
            _clashing(backend, plugin, owners) if clash else _probed(plugins, backend, plugin)
        )
    return sorted(statuses, key=lambda status: (-status.score, status.name))


def choose_backend(plugins: Plugins, name: str | None = None) -> Backend:
    """The backend called `name`, or the one with the highest score.

    Raises BackendError, with the reasons and what to do, if the named one cannot run here, if two
    are equally suited, or if the best is a CPU while something faster may lie idle.
    """
    statuses = survey(plugins, only=name)
    return _best(plugins, statuses) if name is None else _named(plugins, statuses, name)


def _probed(plugins: Plugins, backend: Backend, plugin: PluginRecord | None) -> BackendStatus:
    status = functools.partial(BackendStatus, backend, plugin)
    asked = (plugin.key if plugin else OWN_DISTRIBUTION, backend.name)
    if asked in plugins.hanging:
        return status(BackendState.PROBE_FAILED, HANGS)
    started = time.perf_counter()
    probe = guarded(lambda: _checked(_within_limit(backend)))
    seconds = time.perf_counter() - started
    if probe is None:
        plugins.hanging.add(asked)
        return status(BackendState.PROBE_FAILED, HANGS, probe_seconds=seconds)
    if isinstance(probe, Fault):
        return status(BackendState.PROBE_FAILED, probe.reason, None, probe.traceback, seconds)
    state = BackendState.READY if probe.score > 0 else BackendState.UNAVAILABLE
    return status(state, "; ".join(probe.reasons), probe, probe_seconds=seconds)


def _within_limit(backend: Backend) -> object:
    """What its probe answers; None if it hangs, and its thread is then left to itself."""
    answers: list[object] = []

    def ask() -> None:
        try:
            answers.append(backend.probe())
        except BaseException as error:
            answers.append(error)

    thread = threading.Thread(target=ask, name=f"probe of {backend.name}", daemon=True)
    thread.start()
    thread.join(MOST_PROBE_SECONDS)
    if not answers:
        return HANGS
    if isinstance(answers[0], BaseException):
        raise answers[0]
    return answers[0]


def _checked(probe: object) -> Probe | None:
    """Raises PluginError for an answer that cannot be shown or compared."""
    if probe is HANGS:
        return None
    if not isinstance(probe, Probe):
        raise PluginError(f"probe() gave {probe!r} instead of a Probe")
    texts = (*probe.devices, *probe.reasons, *probe.libraries, *probe.libraries.values())
    if not all(isinstance(text, str) for text in texts):
        raise PluginError(f"probe() gave {probe!r}, of which all but the score must be texts")
    return probe


def _clashing(backend: Backend, plugin: PluginRecord, owners: list[str]) -> BackendStatus:
    reason = f"{' and '.join(owners)} give a backend of this name: disable one of the plugins"
    return BackendStatus(backend, plugin, BackendState.DUPLICATE, reason)


def _named(plugins: Plugins, statuses: list[BackendStatus], name: str) -> Backend:
    if not statuses:
        raise BackendError(f"--backend {name}: {_missing(plugins, name)}")
    status = statuses[0]  # the usable one, if any: they come best first
    if status.state is not BackendState.READY:
        raise BackendError(
            f"--backend {name} cannot be used, {status.state.value}: {status.reason}"
        )
    return status.backend


def _missing(plugins: Plugins, name: str) -> str:
    """Why there is no backend called `name`: broken, disabled, not installed or misspelt."""
    for record in plugins.records:
        if record.name == name and record.state is not PluginState.READY:
            where = f"{record.distribution} {record.version}"
            return f"its plugin ({where}) cannot be used, {record.why}; {SEE}"
    if is_extra(name):
        cure = f"it is not installed: pip install 'inarch[{name}]'"
    else:
        known = ", ".join(sorted(status.name for status in survey(plugins)))
        cure = f"there is no such backend; there are: {known}"
    broken = [f"{r.name} ({r.why})" for r in plugins.records if _may_hide_backend(r)]
    return f"{cure}; or a broken plugin holds it: {', '.join(broken)}" if broken else cure


def _best(plugins: Plugins, statuses: list[BackendStatus]) -> Backend:
    usable = [status for status in statuses if status.state is BackendState.READY]
    if not usable:
        raise BackendError(f"no backend can run here: {'; '.join(s.why for s in statuses)}")
    best = usable[0]
    wasted = list(_idle(plugins, statuses))
    if best.score < ACCELERATOR_SCORE and wasted:
        raise BackendError(
            f"the best backend left is {best.name} on the CPU, but something faster may be here: "
            f"{'; '.join(wasted)}. Say --backend {best.name} if the CPU is meant; "
            "`inarch doctor` shows more"
        )
    equals = [status.name for status in usable if status.score == best.score]
    if len(equals) > 1:
        raise BackendError(
            f"backends {' and '.join(equals)} suit this machine equally well (score {best.score}): "
            "choose one with --backend"
        )
    return best.backend


def _idle(plugins: Plugins, statuses: list[BackendStatus]) -> Iterator[str]:
    """What may be faster than the CPU, and why it is not used."""
    yield from (status.why for status in statuses if status.wasted)
    yield from (f"plugin {r.name}: {r.why}" for r in plugins.records if _may_hide_backend(r))


def _may_hide_backend(record: PluginRecord) -> bool:
    """Whether a backend may be missing because this plugin is broken.

    What a plugin would have given is unknown when it was not imported; but the distribution of the
    core itself holds no backend other than the reference.
    """
    if record.state is PluginState.HOOK_FAILED:
        return "inarch_backends" in record.failed_hooks
    if record.state is PluginState.API_MISMATCH and record.api is not None:
        return "inarch_backends" in record.hooks
    return record.broken and normalized(record.distribution) != OWN_DISTRIBUTION


def is_extra(name: str) -> bool:
    """Whether `pip install inarch[name]` would install a backend package."""
    wanted = normalized(f"{OWN_DISTRIBUTION}-{name}")
    try:
        requirements = metadata.requires(OWN_DISTRIBUTION) or []
    except metadata.PackageNotFoundError:
        return False
    names = (re.match(r"[\w.-]+", requirement) for requirement in requirements)
    return any(match and normalized(match.group()) == wanted for match in names)
