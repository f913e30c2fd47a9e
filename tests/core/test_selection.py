"""Which backend serves, and the errors when none should do so silently."""

from __future__ import annotations

import pytest

from inarch.errors import BackendError
from inarch.plugins import Plugins, load_plugins
from inarch.selection import BackendState, choose_backend, survey

READY = "return Probe({score}, devices=('{device}',))"
SEEN = "return Probe(0, devices=('Chip 9',), reasons=('the driver is gone',), hardware_seen=True)"
ABSENT = "return Probe(0, reasons=('no such chip on the bus',))"


def load(packages) -> Plugins:
    return load_plugins(entries=packages.entries())


def ready(score: int) -> str:
    return READY.format(score=score, device="Chip 9")


def refusal(packages, name: str | None = None) -> str:
    with pytest.raises(BackendError) as refused:
        choose_backend(load(packages), name)
    return str(refused.value)


def test_without_any_plugin_the_reference_serves(packages):
    plugins = load(packages)
    assert choose_backend(plugins).name == "reference"
    (status,) = survey(plugins)
    assert (status.name, status.score, status.plugin) == ("reference", 1, None)


def test_the_highest_score_is_chosen(packages):
    packages.add_backend("fast", ready(120))
    packages.add_backend("faster", ready(130))
    packages.add_backend("cpu", ready(10))
    plugins = load(packages)
    assert choose_backend(plugins).name == "faster"
    assert [status.name for status in survey(plugins)] == ["faster", "fast", "cpu", "reference"]


def test_an_absent_accelerator_does_not_hinder_the_cpu(packages):
    packages.add_backend("chip", ABSENT)
    packages.add_backend("cpu", ready(10))
    assert choose_backend(load(packages)).name == "cpu"


def test_a_tie_is_an_error_that_names_the_option(packages):
    packages.add_backend("left", ready(100))
    packages.add_backend("right", ready(100))
    message = refusal(packages)
    assert "left and right" in message
    assert "--backend" in message


def test_the_cpu_does_not_stand_in_silently_for_hardware_that_was_seen(packages):
    packages.add_backend("chip", SEEN)
    message = refusal(packages)
    assert "chip (Chip 9): the driver is gone" in message
    assert "--backend reference" in message
    assert choose_backend(load(packages), "reference").name == "reference"


def test_an_accelerator_that_works_may_serve_beside_one_that_does_not(packages):
    packages.add_backend("chip", SEEN)
    packages.add_backend("other", ready(100))
    assert choose_backend(load(packages)).name == "other"


@pytest.mark.parametrize(
    "source",
    [
        "import no_such_driver",
        "INARCH_API = (2, 0)\n@hookimpl\ndef inarch_backends(): return []",
        "@hookimpl\ndef inarch_backend(): return []",
        "@hookimpl\ndef inarch_backends(): raise OSError('libchip.so')",
    ],
    ids=["import failed", "api mismatch", "bad hooks", "hook failed"],
)
def test_the_cpu_does_not_stand_in_for_a_broken_backend_plugin(packages, source):
    packages.add("chip", source)
    message = refusal(packages)
    assert "plugin chip: " in message
    assert "--backend reference" in message


@pytest.mark.parametrize(
    "source",
    [
        "INARCH_API = (2, 0)\n@hookimpl\ndef inarch_commands(): return []",
        "@hookimpl\ndef inarch_commands(): raise OSError('no terminal')",
    ],
    ids=["api mismatch", "hook failed"],
)
def test_a_broken_plugin_that_gives_no_backend_does_not_hinder_the_cpu(packages, source):
    packages.add("tool", source)
    plugins = load(packages)
    plugins.commands()
    assert [record.broken for record in plugins.records] == [True]
    assert choose_backend(plugins).name == "reference"


def test_a_broken_first_party_plugin_does_not_hinder_the_cpu(packages):
    packages.add("server", "import no_such_library", distribution="inarch")
    assert choose_backend(load(packages)).name == "reference"


def test_a_disabled_plugin_does_not_hinder_the_cpu(packages):
    packages.add("chip", "import no_such_driver")
    plugins = load_plugins(disabled=["chip"], entries=packages.entries())
    assert choose_backend(plugins).name == "reference"


def test_a_probe_that_raises_is_a_state_with_its_traceback(packages):
    packages.add_backend("chip", "raise RuntimeError('ioctl')")
    status = next(s for s in survey(load(packages)) if s.name == "chip")
    assert status.state is BackendState.PROBE_FAILED
    assert status.reason == "RuntimeError: ioctl"
    assert "Traceback" in status.traceback
    assert "chip: RuntimeError: ioctl" in refusal(packages)


def test_a_probe_that_answers_with_something_else_is_a_fault(packages):
    packages.add_backend("chip", "return 100")
    assert "gave 100 instead of a Probe" in refusal(packages, "chip")


def test_of_two_backends_with_one_name_neither_is_used(packages):
    for maker in ("one", "two"):
        packages.add_backend("chip", ready(100), plugin=maker)
    plugins = load(packages)
    clashing = [s for s in survey(plugins) if s.name == "chip"]
    assert [s.state for s in clashing] == [BackendState.DUPLICATE] * 2
    for name in (None, "chip"):
        message = refusal(packages, name)
        assert "acme-one:one and plugin acme-two:two" in message


def test_nobody_can_take_the_place_of_the_reference(packages):
    packages.add_backend("reference", ready(500), plugin="usurper")
    chosen = choose_backend(load(packages), "reference")
    assert type(chosen).__module__ == "inarch.hal.reference.backend"
    assert "the core and plugin acme-usurper:usurper" in refusal(packages)


def test_a_backend_asked_for_by_name_is_the_only_one_probed(packages):
    packages.add_backend("chip", ready(100))
    packages.add_backend("other", "raise AssertionError('probed')")
    plugins = load(packages)
    assert choose_backend(plugins, "chip").name == "chip"
    assert [status.name for status in survey(plugins, only="chip")] == ["chip"]


@pytest.mark.parametrize(
    ("probe", "reason"),
    [
        (ABSENT, "unavailable: no such chip on the bus"),
        (SEEN, "unavailable: the driver is gone"),
        ("raise RuntimeError('ioctl')", "probe failed: RuntimeError: ioctl"),
    ],
)
def test_a_backend_asked_for_by_name_works_or_says_why_not(packages, probe, reason):
    packages.add_backend("chip", probe)
    assert f"--backend chip cannot be used, {reason}" in refusal(packages, "chip")


def test_a_broken_plugin_asked_for_by_name_says_how_it_broke(packages):
    packages.add("chip", "import no_such_driver")
    message = refusal(packages, "chip")
    assert "acme-chip 1.0" in message
    assert "No module named 'no_such_driver'" in message
    assert "inarch plugins" in message


def test_a_backend_whose_plugin_is_disabled_says_so(packages):
    packages.add_backend("chip", ready(100))
    plugins = load_plugins(disabled=["chip"], entries=packages.entries())
    with pytest.raises(BackendError, match="disabled by the user"):
        choose_backend(plugins, "chip")


@pytest.mark.parametrize("name", ["big_chip", "Big-Chip"])
def test_a_backend_that_is_not_installed_says_how_to_install_it(packages, name):
    packages.add_metadata("inarch", "0.1.0", requires=('inarch-big-chip; extra == "big_chip"',))
    assert f"pip install 'inarch[{name}]'" in refusal(packages, name)


def test_a_misspelt_backend_gets_the_list_of_those_there_are(packages):
    packages.add_backend("chip", ready(100))
    packages.add_metadata("inarch", "0.1.0", requires=('pytest; extra == "test"',))
    for name in ("chop", "test", ""):
        message = refusal(packages, name)
        assert "there are: chip, reference" in message
        assert "pip install" not in message


def test_a_missing_backend_may_belong_to_a_broken_plugin(packages):
    packages.add("maker", "import no_such_driver")
    message = refusal(packages, "chip")
    assert "maker (import failed" in message
