"""The plugin door: what happens to good, broken, duplicate and misspelt plugins."""

from __future__ import annotations

import sys

import pytest

from inarch.models.family import Family
from inarch.plugins import PluginRecord, Plugins, PluginState, load_plugins

MODEL = """
from pathlib import Path
from inarch.hookspecs import BundledModel

@hookimpl
def inarch_bundled_models():
    return [BundledModel({name!r}, Path("here"), "a model")]
"""


def load(packages) -> Plugins:
    return load_plugins(entries=packages.entries())


def only(plugins: Plugins) -> PluginRecord:
    (record,) = plugins.records
    return record


def states(plugins: Plugins) -> dict[str, PluginState]:
    return {record.key: record.state for record in plugins.records}


def test_a_good_plugin_is_ready_and_its_hooks_are_heard(packages):
    packages.add("pear", MODEL.format(name="pear"), version="2.3")
    plugins = load(packages)

    record = only(plugins)
    assert (record.name, record.distribution, record.version) == ("pear", "acme-pear", "2.3")
    assert record.state is PluginState.READY
    assert record.api == (1, 0)
    assert record.import_seconds > 0
    assert [model.name for model in plugins.bundled_models()] == ["pear"]
    assert plugins.families(Family) == plugins.commands() == plugins.backends() == []


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("import no_such_library_at_all", "No module named 'no_such_library_at_all'"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("import sys; sys.exit('go away')", "SystemExit: go away"),
        ("def broken(:", "SyntaxError"),
        ("raise BaseException('rude')", "BaseException: rude"),
    ],
)
def test_a_plugin_that_does_not_import_is_a_record_and_others_go_on(packages, source, reason):
    packages.add("bad", source)
    packages.add("pear", MODEL.format(name="pear"))
    plugins = load(packages)

    bad, pear = plugins.records
    assert bad.state is PluginState.IMPORT_FAILED
    assert reason in bad.reason
    assert "Traceback" in bad.traceback
    assert pear.state is PluginState.READY
    assert [model.name for model in plugins.bundled_models()] == ["pear"]


def test_an_interrupt_during_an_import_is_not_swallowed(packages):
    packages.add("slow", "raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        load(packages)


@pytest.mark.parametrize(
    ("stated", "reason"),
    [
        ("", "needs INARCH_API = (1, 0)"),
        ("INARCH_API = '1.0'", "it is '1.0'"),
        ("INARCH_API = (2, 0)", "API 2.0, this Inarch has 1.0: upgrade inarch"),
        ("INARCH_API = (1, 7)", "API 1.7, this Inarch has 1.0: upgrade inarch"),
        ("INARCH_API = (0, 9)", "API 0.9, this Inarch has 1.0: upgrade acme-alien"),
    ],
)
def test_a_plugin_for_another_api_says_who_has_to_upgrade(packages, stated, reason):
    packages.add("alien", f"{stated}\ndef inarch_backends(): raise AssertionError", plain=True)
    record = only(load(packages))
    assert record.state is PluginState.API_MISMATCH
    assert reason in record.reason


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("@hookimpl\ndef inarch_backend(): return []", "inarch_backend"),
        ("@hookimpl\ndef inarch_backends(device): return []", "device"),
        ("def inarch_backends(): return []", "inarch_backends is not marked with @hookimpl"),
        ("x = 1", "implements none of the hooks"),
    ],
    ids=["misspelt", "unknown argument", "unmarked", "no hook"],
)
def test_a_hook_that_would_never_be_called_is_an_error(packages, source, reason):
    packages.add("typo", source)
    record = only(load(packages))
    assert record.state is PluginState.BAD_HOOKS
    assert reason in record.reason


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("raise OSError('libchip.so is missing')", "OSError: libchip.so is missing"),
        ("import sys; sys.exit(3)", "SystemExit: 3"),
        ("return None", "returned None instead of a list"),
        ("return 7", "TypeError"),
        ("return ['pear']", "gave 'pear', which is no Backend"),
    ],
)
def test_a_hook_that_fails_is_named_and_only_its_own_plugin_suffers(packages, body, reason):
    packages.add("bad", f"@hookimpl\ndef inarch_backends():\n    {body}")
    packages.add_backend("chip", "return Probe(100)")
    plugins = load(packages)

    assert [backend.name for backend, _ in plugins.backends()] == ["chip"]
    bad, chip = plugins.records
    assert bad.state is PluginState.HOOK_FAILED
    assert bad.failed_hooks == ("inarch_backends",)
    assert bad.reason.startswith("inarch_backends: ")
    assert reason in bad.reason
    assert chip.state is PluginState.READY


def test_a_failed_hook_leaves_the_other_hooks_of_the_plugin_working(packages):
    failing = "@hookimpl\ndef inarch_commands(): raise OSError('no terminal')"
    packages.add("half", MODEL.format(name="pear") + failing)
    plugins = load(packages)

    assert plugins.commands() == []
    assert [model.name for model in plugins.bundled_models()] == ["pear"]
    assert only(plugins).state is PluginState.HOOK_FAILED


@pytest.mark.parametrize("name", ["", "Chip", "a b", "7up", None])
def test_a_backend_needs_a_name_that_can_be_typed(packages, name):
    packages.add_backend("chip", "return Probe(100)")
    module = packages.add_backend(name, "return Probe(100)", plugin="odd", distribution="odd")
    plugins = load(packages)

    assert [backend.name for backend, _ in plugins.backends()] == ["chip"]
    assert [r.name for r in plugins.records if r.broken] == ["odd"]
    assert module in sys.modules


def test_kernels_are_asked_for_by_the_name_of_the_backend(packages):
    source = """
    from inarch.hal.op import Kernel

    @hookimpl
    def inarch_kernels(backend):
        return [Kernel("rms_norm", "quick", "quick:norm")] if backend == "chip" else []
    """
    packages.add("quick", source)
    plugins = load(packages)
    assert [kernel.name for kernel in plugins.kernels("chip")] == ["quick"]
    assert plugins.kernels("other") == []


def test_of_two_plugins_with_one_name_neither_is_imported(packages):
    modules = [
        packages.add("pear", MODEL.format(name=maker), distribution=maker)
        for maker in ("one", "two")
    ]
    plugins = load(packages)

    assert set(states(plugins).values()) == {PluginState.DUPLICATE}
    assert "one:pear and two:pear" in plugins.records[0].reason
    assert plugins.bundled_models() == []
    assert not set(modules) & set(sys.modules)


@pytest.mark.parametrize("spelling", ["Two-B:pear", "two_b:pear"])
def test_disabling_one_of_two_namesakes_frees_the_other(packages, spelling):
    packages.add("pear", MODEL.format(name="one"), distribution="one")
    packages.add("pear", MODEL.format(name="two"), distribution="Two-B")
    plugins = load_plugins(disabled=[spelling], entries=packages.entries())

    assert states(plugins) == {
        "one:pear": PluginState.READY,
        "Two-B:pear": PluginState.DISABLED,
    }
    assert [model.name for model in plugins.bundled_models()] == ["one"]


def test_a_disabled_plugin_is_never_imported(packages, monkeypatch):
    first = packages.add("first", "raise AssertionError('imported')")
    second = packages.add("second", "raise AssertionError('imported')")
    monkeypatch.setenv("INARCH_DISABLE_PLUGINS", " first, ,nothing")
    plugins = load_plugins(disabled=["second"], entries=packages.entries())

    assert set(states(plugins).values()) == {PluginState.DISABLED}
    assert not {first, second} & set(sys.modules)
    assert plugins.unknown_disabled == ("nothing",)


def test_what_a_plugin_prints_does_not_reach_stdout(packages, capsys):
    packages.add("loud", MODEL.format(name="loud") + "\nprint('welcome')")
    load(packages)
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "welcome" in printed.err


@pytest.mark.parametrize("content", [b"[inarch]\nno equals sign", b"\xff\xfe[inarch]"])
def test_damaged_metadata_of_one_package_hides_no_other(packages, content):
    packages.add("pear", MODEL.format(name="pear"))
    info = packages.add_metadata("rotten", "1.0", requires=())
    (info / "entry_points.txt").write_bytes(content)
    plugins = load_plugins()

    found = {record.distribution: record for record in plugins.records}
    assert found["acme-pear"].state is PluginState.READY
    assert found["rotten"].state is PluginState.BAD_METADATA
    assert "entry_points.txt" in found["rotten"].reason


def test_an_older_copy_of_a_package_further_back_is_not_a_duplicate(
    packages, monkeypatch, tmp_path
):
    packages.add("pear", MODEL.format(name="old"), version="1.0")
    newer = tmp_path / "newer"
    newer.mkdir()
    monkeypatch.syspath_prepend(str(newer))
    type(packages)(newer).add("pear", MODEL.format(name="new"), version="2.0")

    plugins = load_plugins()
    assert [(r.version, r.state) for r in plugins.records if r.name == "pear"] == [
        ("2.0", PluginState.READY)
    ]
