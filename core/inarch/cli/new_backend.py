"""`inarch new-backend`: write a package that makes one more kind of hardware usable.

The package is kept as a real one, for hardware called Acme, in `backend_template`: it is checked and
tested like all other code. Writing a new one is copying it under another name.
"""

from __future__ import annotations

import importlib.util
import keyword
import re
from collections.abc import Iterator
from pathlib import Path

import click

from inarch.errors import InarchError
from inarch.hal.reference.backend import ReferenceBackend
from inarch.plugins import BACKEND_NAME, Plugins, load_plugins
from inarch.selection import is_extra

TEMPLATE = Path(__file__).parent / "backend_template"
LONGEST_NAME = 40


@click.command("new-backend")
@click.argument("name")
@click.option(
    "--path",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Folder to write, which must be new or empty; by default inarch-NAME.",
)
def new_backend(name: str, path: Path | None) -> None:
    """Write a backend package called inarch-NAME, which works at once on torch's CPU.

    NAME is what users will type after --backend: a letter, then letters, digits and underscores, all
    lower case.
    """
    if problem := name_problem(name, load_plugins()):
        raise click.UsageError(problem)
    folder = path or Path(distribution(name))
    try:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise click.UsageError(f"{folder} exists already: choose another folder by --path")
        files = list(write(name, folder))
    except OSError as error:
        raise InarchError(f"cannot write {folder}: {error}") from error
    click.echo(f"wrote {folder}: {len(files)} files. Next:\n")
    for step, why in next_steps(name, folder):
        click.echo(f"    {step:<40} {why}".rstrip())
    click.echo("\ndocs/backends.md goes on from there.")


def next_steps(name: str, folder: Path) -> list[tuple[str, str]]:
    return [
        (f"cd {folder}", ""),
        ("pip install -e '.[test]'", "# registers it"),
        (f"inarch doctor --backend {name}", "# what it finds and gives"),
        ("pytest", "# what every backend promises, and its own tests"),
        (f"inarch serve --backend {name}", "# serves the bundled model"),
    ]


def name_problem(name: str, plugins: Plugins) -> str:
    """Why a backend cannot be called `name`; "" if it can."""
    if not BACKEND_NAME.fullmatch(name):
        return (
            f"{name!r} is no name for a backend: it must be a letter, then letters, digits and "
            "underscores, all lower case, such as my_chip"
        )
    if len(name) > LONGEST_NAME or keyword.iskeyword(name) or name.endswith("_"):
        return (
            f"{name!r} is no name for a backend: take up to {LONGEST_NAME} characters, no word of "
            "Python's, and no underscore at the end"
        )
    for record in plugins.records:
        if record.name == name:
            return f"{name} is taken by a plugin of {record.distribution}: choose another name"
    owners = {backend.name: record.distribution for backend, record in plugins.backends()}
    if owner := owners.get(name, "inarch itself" if name == ReferenceBackend.name else ""):
        return f"{name} is taken by a backend of {owner}: choose another name"
    if is_extra(name) or importlib.util.find_spec(module(name)) is not None:
        return f"{distribution(name)} is a package of its own already: choose another name"
    return ""


def write(name: str, folder: Path) -> Iterator[Path]:
    """Copy the template under another name; yields the files that it wrote."""
    for source in sorted(TEMPLATE.rglob("*")):
        if not source.is_file() or "__pycache__" in source.parts:
            continue
        place = str(source.relative_to(TEMPLATE))
        target = folder / renamed(".gitignore" if place == "gitignore" else place, name)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(renamed(source.read_text(encoding="utf-8"), name), encoding="utf-8")
        yield target


def renamed(text: str, name: str) -> str:
    """The template's text for hardware of another name."""
    new = {"inarch-acme": distribution(name), "Acme": title(name), "acme": name}
    return re.sub("|".join(new), lambda found: new[found.group()], text)


def title(name: str) -> str:
    """my_chip -> MyChip"""
    return "".join(part[:1].upper() + part[1:] for part in name.split("_"))


def distribution(name: str) -> str:
    return f"inarch-{name.replace('_', '-')}"


def module(name: str) -> str:
    return f"inarch_{name}"
