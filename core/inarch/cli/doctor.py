"""`inarch doctor`: what this machine can run, what it cannot, and why. Exit status 1 on trouble.

Each section prints what it finds and returns the troubles, which are listed once more at the end.
"""

from __future__ import annotations

import platform
from collections.abc import Iterator
from importlib import metadata
from typing import TYPE_CHECKING

import click

from inarch.cli.options import EngineConfig, GroupedCommand, engine_options
from inarch.cli.plugins import examine, show_plugins
from inarch.cli.tables import print_table
from inarch.engine.resolve import set_environment
from inarch.errors import BackendError, InarchError
from inarch.hal.backend import Backend
from inarch.hal.reference.host import cpu_name, host_memory
from inarch.plugins import Fault, Plugins, guarded, load_plugins
from inarch.selection import BackendState, choose_backend, survey
from inarch.version import __version__

if TYPE_CHECKING:
    from inarch.hal.device import Device

LIBRARIES = ("torch", "transformers", "tokenizers", "safetensors", "numpy", "pluggy")
GIB = 1 << 30


@click.command("doctor", cls=GroupedCommand)
@engine_options("Model", "Hardware", "Memory and scheduling")
@click.option("--measure", is_flag=True, help="Load MODEL as for serving, and say what that took.")
@click.pass_context
def doctor(ctx: click.Context, config: EngineConfig, measure: bool) -> None:
    """Say what this machine can run, and why not.

    Looks at the machine, the plugins, the backends and the device that would serve. Of MODEL, a
    folder, a hub id or a config.json alone, it says what would run it, with which kernels and in how
    much memory, without loading the weights. Exit status 1 if there is any trouble.
    """
    plugins = load_plugins()
    _show_machine()
    show_plugins(examine(plugins))
    troubles = list(_backend_troubles(plugins))
    try:
        backend = choose_backend(plugins, config.backend)
        set_environment(backend)
        _show_device(plugins, backend, config.device)
        if config.model is not None:
            troubles += _model_troubles(config, plugins, measure)
    except InarchError as error:
        troubles.append(str(error))
    troubles = [*_plugin_troubles(plugins), *troubles]  # last, when all hooks have been called
    for trouble in troubles:
        click.secho(f"trouble: {trouble}", fg="red")
    if troubles:
        ctx.exit(1)
    click.secho("no trouble found", fg="green")


def _show_machine() -> None:
    memory = host_memory()
    rows = [
        ("inarch", __version__),
        ("python", platform.python_version()),
        ("system", platform.platform()),
        ("processor", cpu_name()),
        ("memory", f"{memory.total / GIB:.1f} GiB, {memory.free / GIB:.1f} GiB free"),
        *((name, _version(name)) for name in LIBRARIES),
    ]
    print_table(("machine", ""), rows)


def _version(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "not installed"


def _plugin_troubles(plugins: Plugins) -> Iterator[str]:
    from inarch.models.family import Family  # brings torch along

    plugins.families(Family)
    for record in filter(lambda record: record.broken, plugins.records):
        yield f"{record.whole_name}: {record.why}"
    for name in plugins.unknown_disabled:
        yield f"INARCH_DISABLE_PLUGINS names {name!r}, but no such plugin is installed"


def _backend_troubles(plugins: Plugins) -> Iterator[str]:
    statuses = survey(plugins)
    print_table(
        ("backend", "from", "state", "score", "devices", "why"),
        [
            (
                status.name,
                status.plugin.distribution if status.plugin is not None else "inarch",
                status.state.value,
                str(status.score),
                ", ".join(status.probe.devices) if status.probe is not None else "",
                status.reason,
            )
            for status in statuses
        ],
    )
    for status in statuses:
        if status.state in (BackendState.PROBE_FAILED, BackendState.DUPLICATE):
            yield f"backend {status.name}: {status.state.value}: {status.reason}"
        if status.slow_probe:
            yield f"backend {status.name}: its probe took {status.probe_seconds:.1f} s"


def _model_troubles(config: EngineConfig, plugins: Plugins, measured: bool) -> Iterator[str]:
    if measured:
        from inarch.cli.doctor_measure import measure  # brings torch along

        measure(config, plugins)
    else:
        from inarch.cli.doctor_model import look_at  # brings torch along

        yield from look_at(config, plugins)


def _show_device(plugins: Plugins, backend: Backend, index: int) -> None:
    from inarch.engine.opening import open_device

    device = open_device(backend, index)
    facts = guarded(lambda: _device_facts(plugins, backend, device))
    closed = guarded(device.close)
    facts = closed if isinstance(closed, Fault) else facts
    if isinstance(facts, Fault):
        raise BackendError(f"device {index} of backend {backend.name}: {facts.reason}")
    print_table(("device", f"{backend.name} {index}"), facts)


def _device_facts(plugins: Plugins, backend: Backend, device: Device) -> list[tuple[str, str]]:
    from inarch.engine.opening import kernels_for

    memory, info = device.memory(), device.info
    kernels = [f"{k.op}: {k.name}" for k in kernels_for(backend, device, plugins)]
    return [
        ("name", info.name),
        ("architecture", info.arch),
        ("memory", f"{memory.total / GIB:.1f} GiB, {memory.free / GIB:.1f} GiB free"),
        ("features", " ".join(sorted(info.features))),
        ("libraries", ", ".join(f"{name} {version}" for name, version in info.libraries.items())),
        ("kernels", ", ".join(kernels) or "none of its own: every op runs on the reference"),
    ]
