"""What a probe sees of a machine that is built in a folder."""

from __future__ import annotations

import os
from pathlib import Path

from inarch.hal.probing import Host, PciDevice


def write(place: Path, text: str) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(text)


def test_the_bus_has_the_devices_of_one_vendor_in_their_order(tmp_path: Path) -> None:
    for address, vendor, device in (
        ("0b", "0x1", "0xb"),
        ("0c", "0x2", "0xc"),
        ("0a", "0x1", "0xa"),
    ):
        folder = tmp_path / f"sys/bus/pci/devices/0000:{address}:00.0"
        for name, text in (("vendor", vendor), ("device", device), ("class", "0x030200")):
            write(folder / name, text + "\n")
    assert Host(tmp_path).pci("0x1") == [PciDevice(each, "0x030200") for each in ("0xa", "0xb")]


def test_what_cannot_be_read_is_empty_and_what_is_no_text_is_no_trouble(tmp_path: Path) -> None:
    (tmp_path / "version").write_bytes(b" 1.2\xff\n")
    host = Host(tmp_path)
    assert host.read("version") == "1.2\N{REPLACEMENT CHARACTER}"
    assert host.read("nothing") == host.read(".") == ""
    assert host.pci("0x1") == host.glob("dev/*") == []


def test_a_package_is_found_under_any_of_its_names_where_import_would_find_it(
    tmp_path: Path,
) -> None:
    for site, version in (("first", "1"), ("second", "2")):
        write(tmp_path / site / f"acme_rt-{version}.dist-info/METADATA", f"Version: {version}\n")
    host = Host(site=[str(tmp_path / site) for site in ("first", "second")])
    found = host.installed("acme", "acme-rt")
    assert found is not None
    assert found.version == "1"
    assert host.installed("acme") is None


def test_what_torch_was_built_with_is_read_and_not_imported(tmp_path: Path) -> None:
    write(tmp_path / "torch-2.9.dist-info/METADATA", "Version: 2.9\n")
    host = Host(site=[str(tmp_path)])
    assert host.torch_for("ACME") == {"torch": "2.9"}
    write(
        tmp_path / "torch/version.py", "debug = False\nacme: Optional[str] = '13.0'\nother = None\n"
    )
    assert host.torch_for("ACME") == {"torch": "2.9", "ACME of torch": "13.0"}
    assert host.torch_for("Other") == {"torch": "2.9", "Other of torch": "none"}
    assert host.versions("torch") == {"torch": "2.9"}
    assert host.versions("acme", "acme-rt") == {}


def test_it_is_this_machine_unless_told_otherwise() -> None:
    host = Host()
    assert host.root == Path("/")
    assert host.environment is os.environ
    assert host.installed("torch") is not None
