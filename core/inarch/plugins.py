"""The door for plugins: import each installed one guarded, and call its hooks guarded.

A broken plugin becomes a record with a reason and a traceback, never a dead program. pluggy checks
and calls the hooks; its own loader is not used, because one broken plugin would stop it.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import sys
import time
import traceback
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import EntryPoint
from typing import TYPE_CHECKING, Any, TypeVar

import pluggy

from inarch import hookspecs
from inarch.discovery import (
    DISABLE_VARIABLE,
    PluginRecord,
    PluginState,
    described,
    installed,
    screened,
    unmatched,
)
from inarch.errors import InarchError, PluginError
from inarch.grammar import GrammarEngine
from inarch.hal.backend import Backend
from inarch.hal.op import Kernel
from inarch.hookspecs import API_VERSION, BundledModel
from inarch.parsing import ReasoningFormat, ToolFormat

if TYPE_CHECKING:
    import click

__all__ = ["Fault", "PluginRecord", "PluginState", "Plugins", "guarded", "load_plugins"]

HOOKS = tuple(name for name in vars(hookspecs) if name.startswith("inarch_"))
OWN_DISTRIBUTION = "inarch"
BACKEND_NAME = re.compile(r"[a-z][a-z0-9_]*")
T = TypeVar("T")


@dataclass(frozen=True)
class Fault:
    """What foreign code raised."""

    reason: str
    traceback: str


def guarded(call: Callable[[], T]) -> T | Fault:
    """Run foreign code: whatever it raises comes back as a Fault, sys.exit() included.

    An InarchError is meant for the user, who needs neither its type nor a traceback.

    What it prints goes to stderr, so that the output of a command stays what it says it is.
    """
    try:
        with contextlib.redirect_stdout(sys.stderr):
            return call()
    except KeyboardInterrupt:
        raise
    except InarchError as error:
        return Fault(str(error), "")
    except BaseException as error:
        text = " ".join(str(error).split())
        return Fault(f"{type(error).__name__}: {text}", traceback.format_exc())


def culprit(error: BaseException, records: Iterable[PluginRecord]) -> PluginRecord | None:
    """The plugin of somebody else whose code an exception came from, or a library that it called.

    None: it came from Inarch's own code, even if that was called by a plugin.
    """
    owners = {re.split(r"[.:]", record.entry_point)[0]: record for record in records}
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    for frame in reversed(frames):
        package = str(frame.f_globals.get("__name__", "")).partition(".")[0]
        owner = owners.get(package)
        if package == OWN_DISTRIBUTION or owner is not None:
            return owner if owner and owner.distribution != OWN_DISTRIBUTION else None
    return None


class Plugins:
    """The installed plugins. Each hook is called plugin by plugin; one that fails is left out.

    unknown_disabled: what the user disabled although no such plugin is installed.
    """

    def __init__(
        self,
        loaded: Iterable[tuple[PluginRecord, pluggy.PluginManager | None]],
        unknown_disabled: tuple[str, ...] = (),
    ) -> None:
        self._loaded = list(loaded)
        self.unknown_disabled = unknown_disabled
        self.hanging: set[tuple[str, str]] = set()  # (plugin, backend) whose probe did not return

    @property
    def records(self) -> tuple[PluginRecord, ...]:
        """How each plugin fares by now: a hook that fails later changes its plugin's record."""
        return tuple(record for record, _ in self._loaded)

    def backends(self) -> list[tuple[Backend, PluginRecord]]:
        """Backends with the plugin that gives each. Names may clash: see inarch.selection."""
        return self.collect("inarch_backends", Backend, check=_check_backend)  # type: ignore[type-abstract]

    def kernels(self, backend: str) -> list[Kernel]:
        """Kernels that plugins add to the backend of that name."""
        return [kernel for kernel, _ in self.collect("inarch_kernels", Kernel, backend=backend)]

    def families(self, kind: type[T]) -> list[T]:
        """Model families. kind: inarch.models.family.Family, which lies above this module."""
        return [family for family, _ in self.collect("inarch_model_families", kind)]

    def grammar_engines(self) -> list[GrammarEngine]:
        """Engines that hold answers to a grammar, the preferred ones first."""
        found = self.collect("inarch_grammar_engines", GrammarEngine)  # type: ignore[type-abstract]
        return [engine for engine, _ in found]

    def bundled_models(self) -> list[BundledModel]:
        return [model for model, _ in self.collect("inarch_bundled_models", BundledModel)]

    def tool_formats(self) -> list[tuple[ToolFormat, PluginRecord]]:
        """Ways to write calls, with the plugin that gives each. Names may clash: inarch.formats."""
        return self.collect("inarch_tool_formats", ToolFormat)  # type: ignore[type-abstract]

    def reasoning_formats(self) -> list[tuple[ReasoningFormat, PluginRecord]]:
        return self.collect("inarch_reasoning_formats", ReasoningFormat)  # type: ignore[type-abstract]

    def commands(self) -> list[tuple[click.Command, PluginRecord]]:
        """Commands with the plugin that gives each."""
        import click

        return self.collect("inarch_commands", click.Command)

    def collect(
        self,
        hook: str,
        kind: type[T],
        *,
        check: Callable[[T], None] = lambda item: None,
        **arguments: Any,
    ) -> list[tuple[T, PluginRecord]]:
        """Call `hook` in every plugin that implements it.

        A plugin whose hook raises, gives no list, or gives anything but `kind`, becomes "hook
        failed" and gives nothing through this hook.
        """
        given: list[tuple[T, PluginRecord]] = []
        for index, (record, manager) in enumerate(self._loaded):
            if manager is None or hook not in record.hooks or hook in record.failed_hooks:
                continue
            call = functools.partial(getattr(manager.hook, hook), **arguments)
            items = guarded(functools.partial(_items, call, kind, check))
            if isinstance(items, Fault):
                self._loaded[index] = _with_failed_hook(record, hook, items), manager
            else:
                given += [(item, record) for item in items]
        return given


def load_plugins(
    *, disabled: Collection[str] = (), entries: Iterable[EntryPoint] | None = None
) -> Plugins:
    """Import the installed plugins; whatever goes wrong with one is in its record.

    disabled: names, or DIST:NAME, of plugins not to import; INARCH_DISABLE_PLUGINS="a,b" adds more.
    entries: entry points to load instead of the installed ones.
    """
    listed = (item.strip() for item in os.environ.get(DISABLE_VARIABLE, "").split(","))
    off = [*disabled, *filter(None, listed)]
    found = list(installed() if entries is None else map(described, entries))
    loaded = [
        (record, None) if entry is None else _load(record, entry)
        for record, entry in screened(found, off)
    ]
    return Plugins(loaded, unmatched((record for record, _ in found), off))


def _load(
    record: PluginRecord, entry: EntryPoint
) -> tuple[PluginRecord, pluggy.PluginManager | None]:
    started = time.perf_counter()
    plugin = guarded(entry.load)
    record = replace(record, import_seconds=time.perf_counter() - started)
    if isinstance(plugin, Fault):
        return _broken(record, PluginState.IMPORT_FAILED, plugin), None
    stated = guarded(lambda: _stated(plugin))
    if isinstance(stated, Fault):
        return _broken(record, PluginState.API_MISMATCH, stated), None
    api, hooks = stated
    record = replace(record, api=api, hooks=hooks)
    if mismatch := _mismatch(api, record.distribution):
        return replace(record, state=PluginState.API_MISMATCH, reason=mismatch), None
    manager = guarded(lambda: _registered(plugin))
    if isinstance(manager, Fault):
        return _broken(record, PluginState.BAD_HOOKS, manager), None
    return record, manager


def _stated(plugin: object) -> tuple[tuple[int, int], tuple[str, ...]]:
    """The plugin API that a plugin was written for, and the hooks that it has."""
    match getattr(plugin, "INARCH_API", None):
        case (int(major), int(minor)):
            return (major, minor), tuple(hook for hook in HOOKS if hasattr(plugin, hook))
        case None:
            raise PluginError(f"states no plugin API: it needs INARCH_API = {API_VERSION}")
        case other:
            raise PluginError(f"INARCH_API must be a pair such as {API_VERSION}, it is {other!r}")


def _mismatch(api: tuple[int, int], distribution: str) -> str:
    """Why a plugin written for `api` cannot be used; "" if it can."""
    if api[0] == API_VERSION[0] and api[1] <= API_VERSION[1]:
        return ""
    older = distribution if api[0] < API_VERSION[0] else "inarch"
    written, spoken = (".".join(map(str, version)) for version in (api, API_VERSION))
    return f"written for plugin API {written}, this Inarch has {spoken}: upgrade {older}"


def _registered(plugin: object) -> pluggy.PluginManager:
    """A manager for this plugin alone, so that its hooks can be called apart from all others'."""
    manager = pluggy.PluginManager("inarch")
    manager.add_hookspecs(hookspecs)
    try:
        manager.register(plugin)
        manager.check_pending()
    except pluggy.PluginValidationError as error:
        raise PluginError(" ".join(str(error).split())) from error
    marked = {caller.name for caller in manager.get_hookcallers(plugin) or ()}
    for name in HOOKS:
        if hasattr(plugin, name) and name not in marked:
            raise PluginError(f"{name} is not marked with @hookimpl")
    if not marked:
        raise PluginError(f"implements none of the hooks {', '.join(HOOKS)}")
    return manager


def _items(
    call: Callable[[], Sequence[Sequence[Any]]], kind: type[T], check: Callable[[T], None]
) -> list[T]:
    answers = call()
    if not answers:  # pluggy leaves out None
        raise PluginError("returned None instead of a list")
    items = [item for answer in answers for item in answer]
    for item in items:
        if not isinstance(item, kind):
            raise PluginError(f"gave {item!r}, which is no {kind.__name__}")
        check(item)
    return items


def _check_backend(backend: Backend) -> None:
    name = getattr(backend, "name", None)
    if not isinstance(name, str) or not BACKEND_NAME.fullmatch(name):
        kind = type(backend).__name__
        raise PluginError(f"{kind}.name must match {BACKEND_NAME.pattern}, it is {name!r}")


def _broken(record: PluginRecord, state: PluginState, fault: Fault) -> PluginRecord:
    return replace(record, state=state, reason=fault.reason, traceback=fault.traceback)


def _with_failed_hook(record: PluginRecord, hook: str, fault: Fault) -> PluginRecord:
    reasons = [record.reason] if record.reason else []
    return replace(
        record,
        state=PluginState.HOOK_FAILED,
        reason="; ".join([*reasons, f"{hook}: {fault.reason}"]),
        traceback=record.traceback + fault.traceback,
        failed_hooks=(*record.failed_hooks, hook),
    )
