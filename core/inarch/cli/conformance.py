"""`inarch conformance`: hold a backend to its contract. Exit status 1 if it said yes and was wrong."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from inarch.cli.tables import print_table
from inarch.engine.resolve import set_environment
from inarch.plugins import load_plugins

if TYPE_CHECKING:
    from inarch.conformance.case import Case, Result
    from inarch.conformance.run import Wanted
    from inarch.conformance.suite import Suite

SHOWN = 40  # faults in full; the report has all of them


@click.command("conformance")
@click.argument("backend")
@click.option(
    "--level", "levels", type=click.IntRange(0, 5), multiple=True, help="Only this level (0-5)."
)
@click.option("--facet", "facets", multiple=True, help="Only this op or facet; * and ? may stand.")
@click.option("--case", "cases", multiple=True, help="Only this case, by the id that was printed.")
@click.option(
    "--depth",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="How many of each generated case.",
)
@click.option("--device", default=0, show_default=True, help="Number of the device.")
@click.option(
    "--jobs",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Processes that judge cases, where no clock matters: for kernels that compile long.",
)
@click.option("--report", type=click.Path(dir_okay=False, path_type=Path), help="Write JSON here.")
@click.option("-v", "--verbose", is_flag=True, help="List every case and every traceback.")
@click.pass_context
def conformance(
    ctx: click.Context,
    backend: str,
    levels: Sequence[int],
    facets: Sequence[str],
    cases: Sequence[str],
    depth: int,
    device: int,
    jobs: int,
    report: Path | None,
    verbose: bool,
) -> None:
    """Hold BACKEND to the hardware contract, on this machine.

    Levels: 0 package hygiene, 1 schema without numbers, 2 numbers on a simulated device, 3 numbers
    on the device, 4 whole models, 5 roofline (reported, never judged; only if asked for).
    "Refused" is no failure: the backend said no, with a reason. Exit status 1 if it said yes and
    was wrong, or raised.
    """
    from inarch.conformance.run import Wanted
    from inarch.conformance.suite import Suite, find

    if report is not None and not report.parent.is_dir():
        raise click.UsageError(f"--report {report}: there is no folder {report.parent}")
    plugins = load_plugins()
    package = find(plugins, backend)
    set_environment(package.backend)
    suite = Suite(package, plugins, device, depth)
    named = {int(case[0]) for case in cases if case[:1].isdigit()}
    wanted = Wanted(tuple(levels) or tuple(named) or Wanted.levels, facets, cases)
    started = time.perf_counter()
    results, whole = _run(suite, wanted, jobs)
    if report is not None and whole:
        from inarch.conformance.report import as_json

        found = as_json(suite, results, time.perf_counter() - started)
        report.write_text(json.dumps(found, indent=1) + "\n")
    _show(suite, results, verbose=verbose)
    if not whole or not results or any(result.bad for result in results):
        ctx.exit(1)


def _run(suite: Suite, wanted: Wanted, jobs: int) -> tuple[list[Result], bool]:
    """The results, and whether they are all: Ctrl-C ends it with those known. Draws progress."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from inarch.conformance.run import LEVELS

    results: list[Result] = []
    columns = (
        TextColumn("level {task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[case]}", markup=False),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        try:
            for level in sorted(wanted.levels):
                chosen = [case for case in suite.cases(level) if case in wanted]
                task = progress.add_task(f"{level} {LEVELS[level]}", total=len(chosen), case="")
                for result in _judged(suite, level, chosen, jobs):
                    progress.update(task, advance=1, case=result.case.id)
                    results.append(result)
                progress.update(task, case="")
        except KeyboardInterrupt:
            click.secho("interrupted: no report is written", fg="red", err=True)
            return results, False
    return results, True


def _judged(suite: Suite, level: int, cases: Sequence[Case], jobs: int) -> Iterator[Result]:
    from inarch.conformance.case import judge
    from inarch.conformance.run import TIMED
    from inarch.conformance.workers import judged

    if jobs == 1 or level in TIMED:
        return map(judge, cases)
    return judged(suite, cases, jobs)


def _show(suite: Suite, results: Sequence[Result], *, verbose: bool) -> None:
    from inarch.conformance.case import Outcome

    groups: dict[tuple[int, str, str], Counter[Outcome]] = {}
    for result in results:
        case = result.case
        key = (case.level, case.facet, case.kernel)
        groups.setdefault(key, Counter())[result.outcome] += 1
    rows = [
        (str(level), facet, kernel, *(str(counts[o] or "") for o in Outcome))
        for (level, facet, kernel), counts in sorted(groups.items())
    ]
    print_table(("level", "op or facet", "kernel", *(o.value for o in Outcome)), rows)
    if verbose:
        print_table(
            ("case", "outcome", "seconds", "note"),
            [(r.case.id, r.outcome.value, f"{r.seconds:.1f}", r.note) for r in results],
        )
    refusals = Counter(
        (r.case.facet, r.case.kernel, r.note) for r in results if r.outcome is Outcome.REFUSED
    )
    figures = [(r.case.name, r.note) for r in results if r.case.level == 5]
    if figures:
        print_table(("roofline", "reached"), figures)
    if refusals:
        print_table(
            ("refused", "kernel", "cases", "why"),
            [(facet, kernel, str(n), why) for (facet, kernel, why), n in sorted(refusals.items())],
        )
    _show_faults(suite, [result for result in results if result.bad], verbose=verbose)
    total = Counter(result.outcome for result in results)
    told = ", ".join(f"{total[outcome]} {outcome.value}" for outcome in Outcome)
    good = bool(results) and not any(result.bad for result in results)
    click.secho(f"{suite.package.backend.name}: {told}", fg="green" if good else "red")


def _show_faults(suite: Suite, bad: Sequence[Result], *, verbose: bool) -> None:
    for result in bad[:SHOWN]:
        click.secho(f"{result.outcome.value}: {result.case.id}", fg="red")
        click.echo(f"    {result.note}")
        again = f"inarch conformance {suite.package.backend.name} --case {result.case.id}"
        click.echo(f"    again: {again}" + (f" --depth {suite.depth}" if suite.depth > 1 else ""))
        if verbose and result.traceback:
            click.echo(result.traceback.rstrip())
    if len(bad) > SHOWN:
        click.echo(f"and {len(bad) - SHOWN} more; --report has them all")
