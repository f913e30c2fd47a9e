"""Which plugins are installed: read from package metadata alone, nothing of theirs is imported.

One distribution with a damaged entry_points.txt must not hide all others, so each is read on its
own instead of through `importlib.metadata.entry_points()`.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from importlib import metadata
from importlib.metadata import Distribution, EntryPoint

from inarch.hookspecs import ENTRY_POINT_GROUP

DISABLE_VARIABLE = "INARCH_DISABLE_PLUGINS"
UNKNOWN = "?"


class PluginState(enum.Enum):
    """How far a plugin has come."""

    READY = "ready"
    DISABLED = "disabled"
    DUPLICATE = "duplicate"
    BAD_METADATA = "bad metadata"
    IMPORT_FAILED = "import failed"
    API_MISMATCH = "api mismatch"
    BAD_HOOKS = "bad hooks"
    HOOK_FAILED = "hook failed"


@dataclass(frozen=True)
class PluginRecord:
    """One installed plugin and how it fared: what `inarch plugins` shows."""

    name: str
    distribution: str
    version: str
    entry_point: str  # "package.module" or "package.module:attribute"
    state: PluginState = PluginState.READY
    reason: str = ""
    traceback: str = ""
    import_seconds: float = 0.0
    api: tuple[int, int] | None = None  # None: not imported, or it states none
    hooks: tuple[str, ...] = ()  # that it implements
    failed_hooks: tuple[str, ...] = ()  # of these, the ones whose call failed

    @property
    def key(self) -> str:
        """What tells two plugins of one name apart."""
        return f"{self.distribution}:{self.name}"

    @property
    def whole_name(self) -> str:
        return f"plugin {self.name} of {self.distribution} {self.version}"

    @property
    def broken(self) -> bool:
        return self.state not in (PluginState.READY, PluginState.DISABLED)

    @property
    def why(self) -> str:
        return f"{self.state.value}: {self.reason}" if self.reason else self.state.value


Found = tuple[PluginRecord, EntryPoint | None]  # None: there is nothing to import


def installed() -> Iterator[Found]:
    """Every entry point of the group, in the order of sys.path, and every unreadable one."""
    seen: set[str] = set()
    for distribution in metadata.distributions():
        try:
            if f"[{ENTRY_POINT_GROUP}]" not in (distribution.read_text("entry_points.txt") or ""):
                continue
            entries = list(distribution.entry_points.select(group=ENTRY_POINT_GROUP))
        except Exception as error:
            name, version = _identity(distribution)
            reason = f"entry_points.txt cannot be read ({type(error).__name__}: {error})"
            record = PluginRecord(name, name, version, UNKNOWN, PluginState.BAD_METADATA, reason)
            yield record, None
            continue
        name = normalized(_identity(distribution)[0])
        if name not in seen:  # else an older copy, further back on sys.path
            seen.add(name)
            yield from map(described, entries)


def described(entry: EntryPoint) -> Found:
    """An entry point with the record that it begins with."""
    name, version = _identity(entry.dist) if entry.dist is not None else (UNKNOWN, UNKNOWN)
    return PluginRecord(entry.name, name, version, entry.value), entry


def screened(found: Iterable[Found], disabled: Collection[str]) -> list[Found]:
    """Take the import away from what the user disabled, and from plugins that share a name.

    `disabled` holds plugin names, or DIST:NAME. Of two plugins with one name neither is taken: the
    first to come would depend on the order of installation.
    """
    ordered = sorted(found, key=lambda pair: (pair[0].name, pair[0].distribution))
    off = {_normalized_key(item) for item in disabled}
    taken: dict[str, list[str]] = {}
    for record, entry in ordered:
        if entry is not None and not _is_off(record, off):
            taken.setdefault(record.name, []).append(record.key)
    return [_screened(record, entry, off, taken.get(record.name, [])) for record, entry in ordered]


def unmatched(records: Iterable[PluginRecord], disabled: Collection[str]) -> tuple[str, ...]:
    """The entries of `disabled` that name no installed plugin."""
    known = {name for r in records for name in (r.name, _normalized_key(r.key))}
    return tuple(item for item in disabled if _normalized_key(item) not in known)


def normalized(distribution: str) -> str:
    """A distribution's name as packaging tools compare it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", distribution).lower()


def _screened(
    record: PluginRecord, entry: EntryPoint | None, off: Collection[str], rivals: list[str]
) -> Found:
    if _is_off(record, off):
        return replace(record, state=PluginState.DISABLED, reason="disabled by the user"), None
    if entry is not None and len(rivals) > 1:
        cure = f"disable one of them by {DISABLE_VARIABLE}=DIST:NAME"
        reason = f"{' and '.join(rivals)} share a name: {cure}"
        return replace(record, state=PluginState.DUPLICATE, reason=reason), None
    return record, entry


def _is_off(record: PluginRecord, off: Collection[str]) -> bool:
    return record.name in off or _normalized_key(record.key) in off


def _normalized_key(item: str) -> str:
    distribution, colon, name = item.rpartition(":")
    return f"{normalized(distribution)}{colon}{name}"


def _identity(distribution: Distribution) -> tuple[str, str]:
    try:
        fields = distribution.metadata
        name, version = (_field(fields, key) for key in ("Name", "Version"))
    except Exception:  # a METADATA file that is gone or damaged
        return UNKNOWN, UNKNOWN
    return name, version


def _field(fields: metadata.PackageMetadata, key: str) -> str:
    return fields[key] if key in fields else UNKNOWN  # noqa: SIM401, there is no get()
