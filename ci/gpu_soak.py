"""Minutes of full load, in which every answer must be the one that its question has when alone.

    python ci/gpu_soak.py [--minutes N] [--backend NAME] [--model FOLDER] [--out FOLDER]
                          [-- SERVE OPTIONS]

Serves the bundled model in float32 with little KV memory, so that requests are retracted, and asks
it random questions in random ways: whole, streamed, or left at any moment. Fails on a wrong answer,
a log-probability that is no number, an error of the server, pages that are not given back, memory
that grows. Prints a report and writes FOLDER/soak.json.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import json
import random
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import aiohttp
from gpu_server import Server
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from soak_questions import Answer, Question, answers, early_fault, fault, questions
from soak_watch import Watch, growth, metrics, unfinished

from inarch.errors import InarchError
from inarch.plugins import load_plugins

SETTLED_S = 60.0  # until memory must stay as it is; half of a shorter run
MOST_GROWTH = {"host": 64 << 20, "device": 128 << 20}  # bytes
PATIENCE_S, DRAIN_S = 60.0, 30.0
LEAVING, STREAMING = 0.2, 0.3  # shares of the requests
SHOWN = 5  # faults of a kind


@dataclasses.dataclass
class Tally:
    """What has happened so far. faults: kind -> what was wrong, each time."""

    whole: int = 0
    streamed: int = 0
    left: int = 0
    tokens: int = 0
    seconds: float = 0.0  # of whole answers together
    faults: dict[str, list[str]] = dataclasses.field(default_factory=dict)

    def blame(self, kind: str, what: str | None) -> None:
        if what is not None:
            self.faults.setdefault(kind, []).append(what)

    @property
    def mean_s(self) -> float:
        return self.seconds / self.whole if self.whole else 0.1


class Soak:
    """Asks one server. Questions, and the answers that are right, are numbered by their places."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        pool: Sequence[Question],
        expected: Sequence[Sequence[Answer]],
    ) -> None:
        self._session, self._pool, self._expected = session, pool, expected
        self.tally = Tally()

    async def load(self, draw: random.Random, until: float) -> None:
        """One client: asks one question after the other until then (time.monotonic)."""
        while time.monotonic() < until:
            number = draw.randrange(len(self._pool))
            try:
                await self._ask(number, draw)
            except (aiohttp.ClientError, TimeoutError, InarchError) as error:
                self.tally.blame("refused", f"question {number}: {error!r}")
                await asyncio.sleep(0.1)

    async def repeat(self) -> None:
        """Ask every question alone again."""
        for number in range(len(self._pool)):
            await self._check_whole(number)

    async def _ask(self, number: int, draw: random.Random) -> None:
        way = draw.random()
        if way < LEAVING:
            stay_s = draw.expovariate(1 / self.tally.mean_s)
            with suppress(TimeoutError):
                async with asyncio.timeout(stay_s):
                    await self._check_stream(number)
            self.tally.left += 1
        elif way < LEAVING + STREAMING:
            await self._check_stream(number)
            self.tally.streamed += 1
        else:
            await self._check_whole(number)

    async def _check_whole(self, number: int) -> None:
        began = time.monotonic()
        result = await self._whole(self._pool[number])
        self.tally.seconds += time.monotonic() - began
        self.tally.whole += 1
        self.tally.tokens += sum(len(answer.token_ids) for answer in answers(result))
        self._blame(number, fault(result, self._expected[number]))

    async def _check_stream(self, number: int) -> None:
        last: dict[int, Any] = {}
        async with post(self._session, self._pool[number], stream=True) as response:
            async for line in response.content:
                if line.startswith(b"data: {"):
                    event = json.loads(line[6:])
                    if "error" in event:
                        raise InarchError(f"the stream said {event['error']}")
                    last[event.get("index", 0)] = event
                    if wrong := early_fault(event, self._expected[number]):
                        self._blame(number, wrong)
                        return
        whole = [last[sample] for sample in sorted(last)]
        self._blame(number, fault(whole, self._expected[number]))
        self.tally.tokens += sum(len(answer.token_ids) for answer in answers(whole))

    def _blame(self, number: int, what: str | None) -> None:
        self.tally.blame("wrong answer", what and f"question {number}: {what}")

    async def _whole(self, question: Question) -> Any:
        async with post(self._session, question, stream=False) as response:
            return await response.json()


@asynccontextmanager
async def post(
    session: aiohttp.ClientSession, question: Question, *, stream: bool
) -> AsyncIterator[aiohttp.ClientResponse]:
    async with session.post("/generate", json=question.body(stream=stream)) as response:
        if response.status != 200:
            raise InarchError(f"HTTP {response.status}: {(await response.text())[:200]}")
        yield response


def connect(url: str) -> aiohttp.ClientSession:
    """As many connections as clients; events of a stream hold all of its answer and may be long."""
    return aiohttp.ClientSession(
        url,
        timeout=aiohttp.ClientTimeout(total=PATIENCE_S),
        connector=aiohttp.TCPConnector(limit=0),
        read_bufsize=1 << 20,
    )


async def learn(url: str, pool: Sequence[Question], bars: Progress) -> list[list[Answer]]:
    """The answers of a server that is asked nothing else meanwhile."""
    expected = []
    async with connect(url) as session:
        for question in bars.track(pool, description="each alone"):
            async with post(session, question, stream=False) as response:
                expected.append(answers(await response.json()))
    return expected


async def under_load(
    server: Server,
    pool: Sequence[Question],
    expected: Sequence[Sequence[Answer]],
    arguments: argparse.Namespace,
    bars: Progress,
) -> tuple[Tally, Watch]:
    async with connect(server.url) as session:
        soak = Soak(session, pool, expected)
        return soak.tally, await load(server, soak, arguments, bars)


async def load(server: Server, soak: Soak, arguments: argparse.Namespace, bars: Progress) -> Watch:
    """The clients, for as long as was asked for; then every question alone again."""
    seconds = arguments.minutes * 60
    watch = Watch(server.pid, on_device=arguments.backend != "reference")
    until = watch.began + seconds
    clients = [
        asyncio.create_task(soak.load(random.Random(i), until)) for i in range(arguments.clients)
    ]
    bar = bars.add_task("all together", total=seconds)
    while time.monotonic() < until:
        sample = watch.sample()
        bars.update(bar, completed=sample.at_s, description=words(soak.tally))
        await asyncio.sleep(min(1.0, seconds / 30))
    await asyncio.gather(*clients)
    bars.update(bar, completed=seconds)
    await drain(server.url, soak.tally)
    await soak.repeat()
    return watch


def progress() -> Progress:
    return Progress(TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())


def words(tally: Tally) -> str:
    wrong = sum(map(len, tally.faults.values()))
    return f"{tally.whole + tally.streamed} answers, {tally.left} left, {wrong} wrong"


async def drain(url: str, tally: Tally) -> None:
    """Wait until the server holds nothing; those who left may still be noticed."""
    deadline = time.monotonic() + DRAIN_S
    while held := unfinished(await asyncio.to_thread(metrics, url)):
        if time.monotonic() > deadline:
            tally.blame("not given back", "; ".join(held))
            return
        await asyncio.sleep(0.2)


def judge(tally: Tally, watch: Watch, numbers: dict[str, float], seconds: float) -> dict[str, Any]:
    """What the run showed besides its answers, blamed where it should not be."""
    settled = min(SETTLED_S, seconds / 2)
    grown: dict[str, int | None] = {}
    for where, most in MOST_GROWTH.items():
        values = [(s.at_s, getattr(s, where)) for s in watch.samples]
        seen = [(at_s, value) for at_s, value in values if value is not None]
        grown[where] = growth(seen, settled)
        if (grown[where] or 0) > most:
            tally.blame("memory", f"the {where}'s grew by {grown[where]:,} bytes, {most:,} at most")
    if not numbers["sglang:num_retracted_requests_total"]:
        tally.blame("too easy", "no request was retracted: give less --kv-tokens or more --clients")
    if not tally.left:
        tally.blame("too easy", "nobody left early")
    names = (
        "sglang:num_retracted_requests_total",
        "inarch:steps_total",
        "sglang:cached_tokens_total",
    )
    return {"grown": grown} | {name: numbers[name] for name in names}


def report(tally: Tally, seen: dict[str, Any], minutes: float) -> None:
    print(f"\nsoak of {minutes:g} minutes: {words(tally)}, {tally.tokens:,} tokens")
    print(
        f"{seen['inarch:steps_total']:,.0f} steps, {seen['sglang:num_retracted_requests_total']:,.0f} "
        f"retractions, {seen['sglang:cached_tokens_total']:,.0f} cached tokens"
    )
    for where, bytes_ in seen["grown"].items():
        if bytes_ is not None:
            print(f"memory of the {where} grew by {bytes_ / 2**20:.1f} MiB after it had settled")
    for kind, found in tally.faults.items():
        print(f"{kind}, {len(found)} times:")
        for what in found[:SHOWN]:
            print(f"  {what[:150]}")
    print("FAILED" if tally.faults else "all answers right, nothing kept, nothing grew")


def parse(given: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--backend", default="nvidia")
    parser.add_argument("--model", type=Path, help="folder; the bundled model by default")
    parser.add_argument("--kv-tokens", type=int, default=49_152)
    parser.add_argument("--clients", type=int, default=384, help="requests at once")
    parser.add_argument("--questions", type=int, default=128, help="different requests")
    parser.add_argument("--seed", type=int, default=0, help="of the questions")
    parser.add_argument("--out", type=Path, default=Path(), help="folder for soak.json and the log")
    parser.add_argument("serve", nargs="*", help="options of `inarch serve`, after --")
    return parser.parse_args(given)


def soaked(
    model: Path,
    options: Sequence[str],
    pool: Sequence[Question],
    log: Path,
    arguments: argparse.Namespace,
) -> tuple[Tally, Watch, dict[str, Any]]:
    """Learn the answers from one server, then load another."""
    with tempfile.TemporaryDirectory() as work, progress() as bars:
        # Nothing that one request left behind can have gone into the answer of another.
        with Server(model, [*options, "--no-prefix-cache"], Path(work), log) as server:
            server.start()
            expected = asyncio.run(learn(server.url, pool, bars))
        with Server(model, options, Path(work), log) as server:
            server.start()
            tally, watch = asyncio.run(under_load(server, pool, expected, arguments, bars))
            seen = judge(tally, watch, metrics(server.url), arguments.minutes * 60)
    return tally, watch, seen


def main() -> int:
    arguments = parse()
    arguments.out.mkdir(parents=True, exist_ok=True)
    model = arguments.model or next(iter(load_plugins().bundled_models())).path
    config = json.loads((model / "config.json").read_text())
    longest = min(1000, config["max_position_embeddings"] // 2, arguments.kv_tokens // 4)
    pool = questions(
        arguments.questions, vocabulary=config["vocab_size"], longest=longest, seed=arguments.seed
    )
    options = ["--backend", arguments.backend, "--dtype", "float32"]
    options += ["--kv-tokens", str(arguments.kv_tokens), *arguments.serve]
    log = arguments.out / "soak-server.log"
    log.unlink(missing_ok=True)
    try:
        tally, watch, seen = soaked(model, options, pool, log, arguments)
    except (OSError, aiohttp.ClientError, TimeoutError, InarchError) as error:
        print(f"FAILED: the server stopped answering: {error!r}; see {log}")
        return 1
    if "Traceback" in log.read_text(errors="replace"):
        tally.blame("server", f"a traceback is in {log}")
    report(tally, seen, arguments.minutes)
    whole = (
        dataclasses.asdict(tally) | seen | {"samples": list(map(dataclasses.asdict, watch.samples))}
    )
    (arguments.out / "soak.json").write_text(json.dumps(whole, indent=1))
    return int(bool(tally.faults))


if __name__ == "__main__":
    sys.exit(main())
