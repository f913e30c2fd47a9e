"""`inarch bench`: measure a server over HTTP, or the engine alone. The work is in `inarch.bench`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from inarch.cli.options import GroupedCommand, engine_options
from inarch.config import EngineConfig

if TYPE_CHECKING:
    from inarch.bench.workload import WorkloadConfig

Command = TypeVar("Command", bound=Callable[..., Any])

LENGTH = "128, uniform:64-256, or lognormal:MEAN,SIGMA[,LOW-HIGH]"

# What is asked is the same question for every benchmark of the group.
WORKLOAD_OPTIONS = (
    click.option(
        "--num-requests", type=click.IntRange(1), metavar="N",
        help="Requests to send.  [default: 100, or the whole dataset]",
    ),
    click.option(
        "--input-len", metavar="LENGTH",
        help=f"Tokens of a prompt, besides a shared prefix: {LENGTH}.  [default: 128]",
    ),
    click.option(
        "--output-len", metavar="LENGTH",
        help=f"Tokens of an answer: {LENGTH}.  [default: 128]",
    ),
    click.option(
        "--shared-prefix", metavar="GROUPSxTOKENS",
        help="Let groups of requests begin with the same tokens: 16x2048 means 16 groups, "
        "2048 shared tokens in each.",
    ),
    click.option(
        "--dataset", type=click.Path(path_type=Path), metavar="FILE.jsonl",
        help='Take prompts from a file of {"prompt": ..., "output_len": ...} or '
        '{"messages": ...} lines.',
    ),
    click.option(
        "--vocab-size", type=click.IntRange(2), metavar="N",
        help="Make prompts of random token ids below N, exact in length; without it, of common "
        "words, about one token each.",
    ),
    click.option("--seed", type=int, default=0, show_default=True, help="Same seed, same load."),
)  # fmt: skip

TARGET_OPTIONS = (
    click.option(
        "--url", default="http://127.0.0.1:30000", show_default=True, help="Address of the server."
    ),
    click.option(
        "--endpoint", type=click.Choice(["completions", "chat"]), default="completions",
        show_default=True, help="Which API to call.",
    ),
    click.option("--model", help="Model to ask for.  [default: the first of /v1/models]"),
    click.option(
        "--api-key", envvar="INARCH_API_KEY", show_envvar=True, help="Key to send to the server."
    ),
)  # fmt: skip

RESULT_OPTIONS = (
    click.option(
        "--warmup", type=click.IntRange(0), default=0, show_default=True, metavar="N",
        help="Requests to send before the measurement, of the same sizes with other prompts.",
    ),
    click.option(
        "--output", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE.json",
        help="Write all figures to a file.",
    ),
    click.option(
        "--plot", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE.png",
        help="Draw latencies, throughput and load over time (needs `inarch[bench]`).",
    ),
)  # fmt: skip

RUN_OPTIONS = (
    click.option(
        "--request-rate", type=float, default=float("inf"), show_default=True, metavar="PER_SECOND",
        help="Mean arrivals a second, as a Poisson process; inf sends all at once.",
    ),
    click.option(
        "--concurrency", type=click.IntRange(1), metavar="N",
        help="Most requests in flight.  [default: no limit]",
    ),
    click.option(
        "--temperature", type=click.FloatRange(0), default=0.0, show_default=True,
        help="Sampling temperature.",
    ),
    click.option(
        "--ignore-eos/--no-ignore-eos", default=True, show_default=True,
        help="Generate the full length. Servers that do not know the field need --no-ignore-eos.",
    ),
    click.option(
        "--extra-body", metavar="JSON",
        help="Further fields of each request; null leaves a field out.",
    ),
    click.option(
        "--processes", type=click.IntRange(1), metavar="N",
        help="Client processes.  [default: one a core, 4 at most]",
    ),
    click.option(
        "--timeout", "timeout_s", type=float, default=600.0, show_default=True, metavar="SECONDS",
        help="For one request.",
    ),
)  # fmt: skip


def with_options(options: tuple[Callable[[Command], Command], ...]) -> Callable[[Command], Command]:
    """Add click options to a command, in the order they are listed."""

    def decorate(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


@click.group()
def bench() -> None:
    """Measure throughput and latency."""


@bench.command()
@with_options(TARGET_OPTIONS)
@with_options(WORKLOAD_OPTIONS)
@with_options(RUN_OPTIONS)
@with_options(RESULT_OPTIONS)
@click.pass_context
def serve(context: click.Context, /, **options: Any) -> None:
    """Load any OpenAI-compatible server and measure it from the client's side.

    \b
    inarch bench serve --num-requests 500 --concurrency 64
    inarch bench serve --request-rate 8 --input-len lognormal:220,1.0 --plot run.png
    """
    from rich.console import Console

    from inarch.bench.serve import run_serve
    from inarch.errors import InarchError

    try:
        outcome = run_serve(_serve_config(options), Console(), Console(stderr=True))
    except InarchError as error:
        raise click.ClickException(str(error)) from None
    if outcome.interrupted:
        context.exit(130)  # the shell's word for: ended by Ctrl-C


@bench.command(cls=GroupedCommand)
@engine_options("Model", "Hardware", "Memory and scheduling")
@with_options(WORKLOAD_OPTIONS)
@with_options(RESULT_OPTIONS)
def offline(config: EngineConfig, **options: Any) -> None:
    """Measure the engine alone, in this process: all requests at once.

    \b
    inarch bench offline --num-requests 200 --input-len 256 --output-len 64
    """
    from rich.console import Console

    from inarch.bench.offline import run_offline

    workload = pop_workload(options)
    run_offline(config, workload, out=Console(), progress=Console(stderr=True), **options)


def _serve_config(options: dict[str, Any]) -> Any:
    from inarch.bench.serve import ServeConfig

    request_rate = options.pop("request_rate")
    workload = pop_workload(options, request_rate)
    extra_body = _parse_object(options.pop("extra_body"))
    if options["processes"] is None:
        del options["processes"]
    return ServeConfig(workload=workload, extra_body=extra_body, **options)


def pop_workload(options: dict[str, Any], request_rate: float = float("inf")) -> WorkloadConfig:
    """Turn the values of WORKLOAD_OPTIONS, taken out of `options`, into a workload."""
    from inarch.bench.lengths import parse_lengths, parse_shared_prefix
    from inarch.bench.workload import WorkloadConfig

    parsers = {
        "input_len": parse_lengths,
        "output_len": parse_lengths,
        "shared_prefix": parse_shared_prefix,
    }
    names = ("num_requests", "dataset", "vocab_size", "seed", *parsers)
    values = {name: options.pop(name) for name in names}
    for name, parse in parsers.items():
        if values[name] is not None:
            values[name] = parse(values[name])
    return WorkloadConfig(request_rate=request_rate, **values)


def _parse_object(text: str | None) -> dict[str, Any]:
    import json

    from inarch.errors import ConfigError

    try:
        value = json.loads(text or "{}")
    except ValueError as error:
        raise ConfigError(f"--extra-body is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise ConfigError(f"--extra-body {text!r} is not a JSON object")
    return value
