"""The command line: its commands, its errors, `plugins` and `doctor`."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

import inarch.cli.main
from inarch.version import __version__

COMMAND = """
import click

@click.command({name!r}, help="Do what {name} does. At length.")
def command():
    {body}

@hookimpl
def inarch_commands():
    return [command]
"""

BROKEN = {
    "absent": "import no_such_library",
    "quits": "import sys; sys.exit(5)",
    "alien": "INARCH_API = (9, 0)",
    "typo": "@hookimpl\ndef inarch_backend(): return []",
    "fails": "@hookimpl\ndef inarch_backends(): raise OSError('libchip.so')",
    "talks": "print('{'); raise RuntimeError('[bold]x[/nonsense]')",
}


def run(capsys, *arguments: str) -> tuple[int, str, str]:
    """Exit status, stdout and stderr of one command."""
    with pytest.raises(SystemExit) as ended:
        inarch.cli.main.main(arguments)
    printed = capsys.readouterr()
    return ended.value.code, printed.out, printed.err


def command(packages, name: str, body: str, **where: str) -> None:
    packages.add(f"plugin_{name}", COMMAND.format(name=name, body=body), **where)


def test_help_lists_built_in_commands_and_those_of_plugins(packages, capsys):
    command(packages, "prune", "pass")
    code, out, _ = run(capsys, "--help")
    assert code == 0
    for name in ("bench", "chat", "doctor", "generate", "plugins", "prune"):
        assert f"\n  {name} " in out
    assert "Do what prune does." in out


def test_every_built_in_command_exists_and_says_what_it_is_for(packages, capsys):
    for name in inarch.cli.main.BUILT_IN:
        code, out, _ = run(capsys, name, "--help")
        assert code == 0
        assert f"inarch {name}" in out


@pytest.mark.parametrize(
    "arguments", [["--help"], ["--version"], ["plugins"], ["plugins", "--json"]]
)
def test_light_commands_do_not_load_torch(packages, arguments):
    packages.add_backend("chip", "return Probe(100)")
    for name, source in BROKEN.items():
        packages.add(name, source)
    script = (
        "import sys; from inarch.cli.main import main\n"
        f"try: main({arguments!r})\n"
        "except SystemExit as end: assert end.code == 0, end.code\n"
        "heavy = {'torch', 'transformers', 'numpy', 'aiohttp'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    environment = os.environ | {"PYTHONPATH": str(packages.site)}
    ended = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stderr


def test_the_version_is_printed(capsys):
    assert run(capsys, "--version")[:2] == (0, f"inarch, version {__version__}\n")


def test_an_error_meant_for_the_user_is_one_line_without_a_traceback(packages, capsys):
    body = "from inarch.errors import ModelError; raise ModelError('no config.json in /m')"
    command(packages, "prune", body)
    assert run(capsys, "prune") == (1, "", "error: no config.json in /m\n")


def test_a_mistake_of_ours_keeps_its_traceback_and_says_that_it_is_one(packages, capsys):
    command(packages, "prune", "from inarch.cache.pages import PageAllocator; PageAllocator(1)")
    code, out, err = run(capsys, "prune")
    assert (code, out) == (1, "")
    assert "Traceback" in err
    assert "error: this is a bug in inarch, please report it: ValueError: a pool needs" in err


def test_a_mistake_of_a_plugin_is_told_as_its_own(packages, capsys):
    command(packages, "prune", "raise KeyError('slot')")
    code, _, err = run(capsys, "prune")
    assert code == 1
    assert "Traceback" in err
    whose = "this is a bug in plugin plugin_prune of acme-plugin_prune 1.0, not in inarch"
    assert err.endswith(f"error: {whose}, please report it: KeyError: 'slot'\n")


def test_an_interrupted_command_ends_as_shells_expect(packages, capsys):
    command(packages, "prune", "raise KeyboardInterrupt")
    code, _, err = run(capsys, "prune")
    assert code == 130
    assert "Traceback" not in err


def test_wrong_usage_is_status_2(packages, capsys):
    code, _, err = run(capsys, "plugins", "--yaml")
    assert code == 2
    assert "--yaml" in err


def test_an_unknown_command_points_at_broken_plugins(packages, capsys):
    packages.add("absent", "import no_such_library")
    code, _, err = run(capsys, "prune")
    assert code == 2
    assert "No such command 'prune'" in err
    assert "absent (import failed: ModuleNotFoundError: No module named 'no_such_library')" in err


def test_a_plugin_cannot_take_the_name_of_a_built_in_command(packages, capsys):
    command(packages, "plugins", "raise AssertionError")
    code, out, _ = run(capsys, "plugins", "--json")
    assert code == 0
    assert json.loads(out)["api"] == "1.0"


def test_a_command_of_two_plugins_runs_neither(packages, capsys):
    for maker in ("one", "two"):
        source = COMMAND.format(name="prune", body="raise AssertionError")
        packages.add(maker, source, distribution=maker)
    code, _, err = run(capsys, "prune")
    assert code == 2
    assert "one:one and two:two" in err
    assert "INARCH_DISABLE_PLUGINS" in err


def test_plugins_lists_every_broken_plugin_with_its_reason_and_exits_0(packages, capsys):
    packages.add_backend("chip", "return Probe(0, reasons=('no such chip',))")
    for name, source in BROKEN.items():
        packages.add(name, source)
    code, out, _ = run(capsys, "plugins", "--json")
    assert code == 0
    found = {plugin["name"]: plugin for plugin in json.loads(out)["plugins"]}
    assert {name: found[name]["state"] for name in [*BROKEN, "chip"]} == {
        "absent": "import failed",
        "quits": "import failed",
        "alien": "api mismatch",
        "typo": "bad hooks",
        "fails": "hook failed",
        "talks": "import failed",
        "chip": "ready",
    }
    assert all(found[name]["reason"] for name in BROKEN)
    assert "Traceback" in found["absent"]["traceback"]
    (chip,) = found["chip"]["backends"]
    assert (chip["state"], chip["reason"]) == ("unavailable", "no such chip")


def test_the_table_shows_reasons_as_they_are_and_tracebacks_on_request(packages, capsys):
    for name, source in BROKEN.items():
        packages.add(name, source)
    code, out, _ = run(capsys, "plugins")
    assert code == 0
    assert "[bold]x[/nonsense]" in out
    assert "Traceback" not in out
    assert "Traceback" in run(capsys, "plugins", "--verbose")[1]


def test_a_name_in_the_disable_list_that_fits_nothing_is_pointed_out(packages, capsys, monkeypatch):
    monkeypatch.setenv("INARCH_DISABLE_PLUGINS", "chpi")
    code, _, err = run(capsys, "plugins")
    assert code == 0
    assert "'chpi'" in err


def disable_all_but(packages, monkeypatch, *names: str) -> None:
    from inarch.plugins import load_plugins

    others = {record.name for record in load_plugins().records} - set(names)
    monkeypatch.setenv("INARCH_DISABLE_PLUGINS", ",".join(others))


def test_doctor_finds_a_healthy_machine_healthy(packages, capsys, monkeypatch):
    disable_all_but(packages, monkeypatch)
    code, out, _ = run(capsys, "doctor")
    assert "no trouble found" in out
    assert code == 0
    assert f"inarch        {__version__}" in out
    assert "every op runs on the reference" in out


def test_doctor_fails_for_a_broken_plugin_and_says_which(packages, capsys, monkeypatch):
    packages.add("absent", "import no_such_library")
    disable_all_but(packages, monkeypatch, "absent")
    code, out, _ = run(capsys, "doctor", "--backend", "reference")
    assert code == 1
    assert "trouble: plugin absent of acme-absent 1.0: import failed: ModuleNotFoundError" in out


def test_doctor_fails_where_the_cpu_would_stand_in_for_an_accelerator(
    packages, capsys, monkeypatch
):
    seen = "return Probe(0, reasons=('the driver is gone',), hardware_seen=True)"
    packages.add_backend("chip", seen)
    disable_all_but(packages, monkeypatch, "chip")
    code, out, _ = run(capsys, "doctor")
    assert code == 1
    assert "trouble: the best backend left is reference" in out
    assert run(capsys, "doctor", "--backend", "reference")[0] == 0


def test_doctor_reports_a_device_that_does_not_open(packages, capsys, monkeypatch):
    packages.add_backend("chip", "return Probe(100)")
    disable_all_but(packages, monkeypatch, "chip")
    code, out, _ = run(capsys, "doctor")
    assert code == 1
    assert "trouble: backend chip cannot open device 0: AssertionError: no test opens it" in out


KERNELS = """
from inarch.hal.op import Kernel
from inarch.hal.ops.norm import rms_norm
from inarch.hal.ops.activation import silu_mul
from inarch.hal.support import no

@hookimpl
def inarch_kernels(backend):
    return [
        Kernel("rms_norm", "picky", rms_norm.reference, lambda facts: no("needs 7 dimensions")),
        Kernel("silu_mul", "quick", silu_mul.reference),
    ]
"""
TINY = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 64,
    "vocab_size": 99,
    "max_position_embeddings": 128,
    "dtype": "float32",
}


def test_doctor_that_loads_a_model_shows_kernels_and_memory_with_their_reasons(
    packages, capsys, monkeypatch, tmp_path
):
    packages.add("quick", KERNELS)
    disable_all_but(packages, monkeypatch, "quick")
    (tmp_path / "config.json").write_text(json.dumps(TINY))
    options = ["--measure", "--load-format", "dummy", "--kv-tokens", "640", "--page-size", "32"]
    options += ["--max-running-requests", "4", "--max-step-tokens", "64"]
    code, out, _ = run(capsys, "doctor", str(tmp_path), *options)
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert "silu_mul quick 1 the best that applies" in lines
    assert "rms_norm reference 1 no kernel applies; not picky: needs 7 dimensions" in lines
    assert "page 32 tokens --page-size" in lines
    assert "KV cache 640 tokens limited by --kv-tokens" in lines
    assert "KV dtype float32 the dtype computed in" in lines
    # 2 layers x (K and V) x 2 heads of 8 float32 numbers x 32 tokens; the null page is the 21st.
    assert "KV cache 0.2 21 pages of 8192 bytes" in lines
    assert code == 0


def test_doctor_of_a_model_that_cannot_be_served_says_why(packages, capsys, monkeypatch, tmp_path):
    disable_all_but(packages, monkeypatch)
    code, out, _ = run(capsys, "doctor", str(tmp_path / "gone"))
    assert code == 1
    assert "trouble: there is no model" in out
