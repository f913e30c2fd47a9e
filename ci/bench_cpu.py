"""How fast small models run on a CPU: this project beside llama.cpp, vLLM and transformers.

    python ci/bench_cpu.py FOLDER [--model qwen|bundled] [--weights int8,int4,16,32]
        [--peers llama.cpp,llama-cpp-python,vllm,transformers] [--rounds 5] [--threads 2]

FOLDER keeps the models between runs: a random one of the shape of Qwen2.5 0.5B (24 layers, hidden 896,
14 and 2 heads of 64, MLP 4864, vocabulary 151,936, tied), and its GGUF files, or those of the bundled
model. Every engine has a process of its own, all get the same prompts of random tokens, and they take
turns within a round, so that what else the machine does falls on all of them:

    prefill     one prompt of 512 tokens and one new token
    1 stream    a greedy answer of 32 tokens after 32 of prompt
    16 streams  16 such answers at once

Printed are medians over the rounds, in tokens a second: of the prompt, or else new ones. "times" is
the median of what one round's two times give, with the least and the most of them. int8 is q8_0 and int4
q4_0 in llama.cpp: a scale for each 32 weights on both sides, embedding and head included on theirs,
the head on ours. 16: weights of bfloat16 (f16 in llama.cpp).

Peers, each left out where its package is missing: llama.cpp's server (xllamacpp, a wheel built for
AVX2), its library (llama-cpp-python, built where it is installed and so for all that the CPU has), both
with the package gguf; transformers; vLLM's CPU build, which may live in an environment of its own:
`--python vllm=/there/bin/python`. INARCH_INTEL_CPU_ISA=avx2 holds us to AVX2.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import json
import os
import platform
import statistics
import subprocess
import sys
from pathlib import Path

from bench_cpu_engines import STREAMS, Task
from bench_cpu_models import GGUF_TYPES, gguf_file, prepared, write_gguf

HERE = Path(__file__).parent
US, PROMPT, OPENING, NEW = "inarch", 512, 32, 32
# What: streams, prompt and new tokens of each, counted tokens, our goal in times the peer's speed.
WORKLOADS = {
    "prefill": (1, PROMPT, 1, PROMPT, 1.5),
    "1 stream": (1, OPENING, NEW, NEW, 1.0),
    "16 streams": (STREAMS, OPENING, NEW, STREAMS * NEW, 1.5),
}
MODULES = {
    "llama.cpp": "xllamacpp",
    "llama-cpp-python": "llama_cpp",
    "vllm": "vllm",
    "transformers": "transformers",
}
Found = dict[str, dict[str, list[float]]]  # workload -> engine -> seconds of each round
WIDE = ("16", "32")
CAN = {US: GGUF_TYPES, "llama.cpp": GGUF_TYPES, "llama-cpp-python": GGUF_TYPES}  # others: WIDE


class Process:
    """A started engine; raises RuntimeError with the end of its log if it does not start."""

    def __init__(self, task: Task, python: str, log: Path) -> None:
        command = [python, str(HERE / "bench_cpu_engines.py"), json.dumps(dataclasses.asdict(task))]
        environment = os.environ | {"OMP_NUM_THREADS": str(task.threads), "HF_HUB_OFFLINE": "1"}
        with log.open("w") as errors:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env=environment,
            )
        self._log, self._name = log, f"{task.engine}, weights {task.precision}"
        self._answer()

    def seconds(self, streams: int, prompt: int, new: int) -> float:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{streams} {prompt} {new}\n")
        self._process.stdin.flush()
        return float(self._answer())

    def _answer(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self._name} ended:\n{self._log.read_text()[-2000:]}")
        return line

    def end(self) -> None:
        self._process.communicate()


def installed(python: str, module: str) -> bool:
    find = f"import importlib.util as u, sys; sys.exit(u.find_spec('{module}') is None)"
    return subprocess.run([python, "-c", find], check=False).returncode == 0


def start(tasks: list[Task], pythons: dict[str, str], logs: Path) -> dict[str, Process]:
    """Ours and those peers that start, each after its first step, which also allocates."""
    started = {}
    for task in tasks:
        python = pythons.get(task.engine, sys.executable)
        try:
            process = Process(task, python, logs / f"{task.engine}.log")
            process.seconds(1, OPENING, 2)
        except RuntimeError as error:
            if task.engine == US:
                raise
            print(error, file=sys.stderr)
            continue
        started[task.engine] = process
    return started


def measured(engines: dict[str, Process], rounds: int) -> Found:
    found: Found = {name: {engine: [] for engine in engines} for name in WORKLOADS}
    for turn in range(rounds):
        order = list(engines) if turn % 2 == 0 else list(engines)[::-1]
        for name, (streams, prompt, new, _, _) in WORKLOADS.items():
            for engine in order:
                found[name][engine].append(engines[engine].seconds(streams, prompt, new))
    return found


def joined(file: Path, what: str, found: Found) -> Found:
    """What earlier runs left in the file and what was found now; the file keeps both."""
    runs = json.loads(file.read_text()) if file.is_file() else []
    runs.append({"what": what, "seconds": found})
    file.write_text(json.dumps(runs))
    same = [run["seconds"] for run in runs if run["what"] == what]
    return {
        name: {
            engine: [second for run in same for second in run[name][engine]] for engine in engines
        }
        for name, engines in found.items()
    }


def row(weights: str, name: str, peer: str, times: dict[str, list[float]]) -> str:
    counted, goal = WORKLOADS[name][3:]
    ours, theirs = (counted / statistics.median(times[engine]) for engine in (US, peer))
    each = sorted(b / a for a, b in zip(times[US], times[peer], strict=True))
    middle = statistics.median(each)
    met = f"{goal:.1f} {'met' if middle >= goal else 'missed'}"
    return (
        f"| {weights} | {name} | {peer} | {theirs:.{theirs < 100:d}f} | {ours:.{ours < 100:d}f} | "
        f"{middle:.2f} ({each[0]:.2f} to {each[-1]:.2f}) | {len(each)} | {met} |"
    )


def machine() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    name = next((line.partition(": ")[2] for line in lines if line.startswith("model name")), "?")
    instructions = os.environ.get("INARCH_INTEL_CPU_ISA", "all that it has")
    return f"{name} ({platform.machine()}), our instructions: {instructions}"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", choices=("qwen", "bundled"), default="qwen")
    parser.add_argument("--weights", default=",".join(GGUF_TYPES))
    parser.add_argument("--peers", default=",".join(MODULES))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--python", action="append", default=[], metavar="ENGINE=PYTHON")
    parser.add_argument(
        "--json", type=Path, help="add the rounds to those kept here, and tell of all"
    )
    return parser.parse_args()


def main() -> None:
    given = arguments()
    pythons = dict(each.split("=", 1) for each in given.python)
    peers = [
        peer
        for peer in given.peers.split(",")
        if installed(pythons.get(peer, sys.executable), MODULES[peer])
    ]
    folder = prepared(given.folder, given.model)
    print(f"{machine()}, {given.threads} threads, {datetime.date.today()}")
    print(f"{given.model}, tokens a second\n")
    print(
        "| weights | workload | peer | peer's | inarch | times | rounds | goal |\n"
        + "|---" * 8
        + "|"
    )
    for weights in given.weights.split(","):
        tasks = [
            Task(engine, str(folder), weights, given.threads)
            for engine in (US, *peers)
            if weights in CAN.get(engine, WIDE)
        ]
        llama = any(task.engine.startswith("llama") for task in tasks)
        if llama and not gguf_file(folder, weights).is_file():
            write_gguf(folder, weights)
        engines = start(tasks, pythons, given.folder)
        found = measured(engines, given.rounds)
        for engine in engines.values():
            engine.end()
        if given.json:
            what = f"{given.model}, weights {weights}: {', '.join(engines)}. {machine()}"
            found = joined(given.json, what, found)
        for name, times in found.items():
            for peer in list(engines)[1:]:
                print(row(weights, name, peer, times), flush=True)


if __name__ == "__main__":
    main()
