"""`inarch plugins`: what is installed, how each plugin fares and why. Works with any one broken."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from typing import Any

import click

from inarch.hookspecs import API_VERSION, BundledModel
from inarch.plugins import PluginRecord, Plugins, load_plugins
from inarch.selection import BackendStatus, survey


@dataclasses.dataclass(frozen=True)
class PluginReport:
    """A plugin with what it gives."""

    record: PluginRecord
    backends: tuple[BackendStatus, ...]
    commands: tuple[str, ...]
    models: tuple[str, ...]

    @property
    def why(self) -> str:
        """The reason of a trouble, then what the plugin gives in spite of it."""
        gives = [f"backend {b.name} {_condition(b)}" for b in self.backends]
        gives += [f"command {name}" for name in self.commands]
        gives += [f"model {name}" for name in self.models]
        return "; ".join(filter(None, [self.record.reason, *gives]))


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print everything known, as JSON.")
@click.option("-v", "--verbose", is_flag=True, help="Show the traceback of each broken plugin.")
def plugins(as_json: bool, verbose: bool) -> None:
    """List the installed plugins: what each gives, its state, and why.

    A broken plugin is listed as such and never stops this command.
    INARCH_DISABLE_PLUGINS=NAME,DIST:NAME keeps plugins from being imported.
    """
    loaded = load_plugins()
    reports = examine(loaded)
    if as_json:
        click.echo(json.dumps(_as_json(reports, loaded.unknown_disabled), indent=2))
        return
    show_plugins(reports, verbose=verbose)
    for name in loaded.unknown_disabled:
        click.echo(f"INARCH_DISABLE_PLUGINS: no plugin {name!r} is installed", err=True)


def examine(loaded: Plugins) -> list[PluginReport]:
    """Call the hooks that need no model, and probe the backends."""
    statuses = [status for status in survey(loaded) if status.plugin is not None]
    commands = loaded.commands()
    models = loaded.collect("inarch_bundled_models", BundledModel)
    return [
        PluginReport(
            record,
            tuple(s for s in statuses if s.plugin and s.plugin.key == record.key),
            tuple(c.name or "" for c, owner in commands if owner.key == record.key),
            tuple(m.name for m, owner in models if owner.key == record.key),
        )
        for record in loaded.records  # read last: the hooks above may have changed them
    ]


def show_plugins(reports: Sequence[PluginReport], *, verbose: bool = False) -> None:
    """Print the table; with `verbose` also the tracebacks."""
    from inarch.cli.tables import print_table

    rows = [
        (r.name, r.distribution, r.version, _dotted(r.api) or "-", r.state.value, report.why)
        for report in reports
        for r in [report.record]
    ]
    print_table(("name", "distribution", "version", "api", "state", "why"), rows)
    for record in (report.record for report in reports):
        if verbose and record.traceback:
            click.echo(f"\n{record.key} ({record.entry_point}): {record.state.value}")
            click.echo(record.traceback.rstrip())


def _condition(status: BackendStatus) -> str:
    note = f", slow probe: {status.probe_seconds:.1f} s" if status.slow_probe else ""
    found = status.probe.devices if status.probe is not None else ()
    devices = f" ({', '.join(found)})" if found else ""
    reason = f": {status.reason}" if status.reason else ""
    return f"{status.state.value}{devices}{note}{reason}"


def _dotted(api: tuple[int, int] | None) -> str | None:
    return None if api is None else f"{api[0]}.{api[1]}"


def _as_json(reports: Sequence[PluginReport], unknown: tuple[str, ...]) -> dict[str, Any]:
    return {
        "api": _dotted(API_VERSION),
        "plugins": [_plugin_as_json(report) for report in reports],
        "unknown_disabled": list(unknown),
    }


def _plugin_as_json(report: PluginReport) -> dict[str, Any]:
    fields = dataclasses.asdict(report.record)
    return fields | {
        "state": report.record.state.value,
        "api": _dotted(report.record.api),
        "backends": [_backend_as_json(status) for status in report.backends],
        "commands": report.commands,
        "models": report.models,
    }


def _backend_as_json(status: BackendStatus) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "name": status.name,
        "state": status.state.value,
        "reason": status.reason,
        "traceback": status.traceback,
        "probe_seconds": status.probe_seconds,
    }
    if status.probe is not None:
        fields |= {
            "score": status.probe.score,
            "devices": status.probe.devices,
            "hardware_seen": status.probe.hardware_seen,
            "libraries": dict(status.probe.libraries),
        }
    return fields
