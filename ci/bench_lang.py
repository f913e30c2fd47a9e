"""How much faster a branching program is in the language than by plain calls of the HTTP API.

    python ci/bench_lang.py [NAME of a row ...]

Two workloads on the bundled model: in the language, on an engine of its own and on a server, and by
an OpenAI client that sends the whole text with every call, one call after the other as a script does,
or with the calls of one level at once in threads. `model alone` is what nobody can be faster than:
whole levels as batches of the engine, with no program, no server and no text in between. Prints
seconds, the best of three.
"""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import openai

import inarch.lang as sgl
from inarch import Engine, SamplingParams

PREAMBLE = "Rules of the game: think in small steps, write one short thought a line. " * 12
LEVELS, WIDTH, TOKENS = 4, 3, 12
QUESTION = "How far is the moon?"
QUESTIONS = [f"What is {i % 10} + {i // 10}?" for i in range(64)]


@sgl.function
def tree_of_thought(s: sgl.State, question: str) -> None:
    s += PREAMBLE + question
    grow(s, LEVELS)


def grow(s: sgl.State, levels: int) -> None:
    if levels:
        forks = s.fork(WIDTH)
        for i, fork in enumerate(forks):
            fork += f"\nThought {i}: " + sgl.gen(f"thought {levels}", TOKENS, ignore_eos=True)
            grow(fork, levels - 1)


@sgl.function
def few_shot(s: sgl.State, question: str) -> None:
    s += PREAMBLE + question + " " + sgl.gen("answer", TOKENS, ignore_eos=True)


class Plain:
    """The same by plain calls; `at_once` of them."""

    def __init__(self, url: str, at_once: int) -> None:
        self._client = openai.OpenAI(base_url=url, api_key="none")
        self._model = self._client.models.list().data[0].id
        self._pool = ThreadPoolExecutor(at_once)

    def call(self, prompt: str) -> str:
        answer = self._client.completions.create(
            model=self._model, prompt=prompt, max_tokens=TOKENS, temperature=0,
            extra_body={"ignore_eos": True},
        )  # fmt: skip
        return prompt + answer.choices[0].text

    def tree_of_thought(self, question: str) -> None:
        level = [PREAMBLE + question]
        for _ in range(LEVELS):
            prompts = [f"{text}\nThought {i}: " for text in level for i in range(WIDTH)]
            level = list(self._pool.map(self.call, prompts))

    def few_shot(self) -> None:
        list(self._pool.map(self.call, (f"{PREAMBLE}{question} " for question in QUESTIONS)))


def seconds(work: Callable[[], object]) -> float:
    """The best of three."""
    times = []
    for _ in range(3):
        begun = time.perf_counter()
        work()
        times.append(time.perf_counter() - begun)
    return min(times)


def in_the_language(backend: sgl.Runtime | sgl.RuntimeEndpoint) -> tuple[float, float]:
    batch = [{"question": question} for question in QUESTIONS]

    def tree() -> None:
        backend.flush_cache()
        tree_of_thought.run(question=QUESTION, temperature=0, backend=backend)

    def shots() -> None:
        backend.flush_cache()
        few_shot.run_batch(batch, temperature=0, backend=backend)

    return seconds(tree), seconds(shots)


def on_a_runtime() -> tuple[float, float]:
    with sgl.Runtime() as runtime:
        return in_the_language(runtime)


def on_a_server() -> tuple[float, float]:
    with served() as url:
        return in_the_language(sgl.RuntimeEndpoint(url))


def by_plain_calls(at_once: int) -> tuple[float, float]:
    with served() as url:
        endpoint, plain = sgl.RuntimeEndpoint(url), Plain(f"{url}/v1", at_once)

        def tree() -> None:
            endpoint.flush_cache()
            plain.tree_of_thought(QUESTION)

        def shots() -> None:
            endpoint.flush_cache()
            plain.few_shot()

        return seconds(tree), seconds(shots)


def by_the_model_alone() -> tuple[float, float]:
    """The prefix is computed before the clock starts."""
    params = SamplingParams(max_tokens=TOKENS, temperature=0, ignore_eos=True)
    with Engine() as engine:

        def tree() -> None:
            level = [PREAMBLE + QUESTION]
            for _ in range(LEVELS):
                prompts = [f"{text}\nThought {i}: " for text in level for i in range(WIDTH)]
                answers = engine.generate(prompts, params)
                level = [p + a.text for p, a in zip(prompts, answers, strict=True)]

        def shots() -> None:
            engine.generate([f"{PREAMBLE}{question} " for question in QUESTIONS], params)

        return seconds(tree), seconds(shots)


@contextlib.contextmanager
def served() -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(Path(sys.executable).with_name("inarch")), "serve", "--port", str(port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            yield _once_it_answers(f"http://127.0.0.1:{port}")
        finally:
            server.terminate()


def _once_it_answers(url: str) -> str:
    for _ in range(600):
        try:
            sgl.RuntimeEndpoint(url)
        except sgl.InarchError:
            time.sleep(0.1)
        else:
            return url
    raise SystemExit(f"no server at {url} after 60 s")


ROWS = {
    "model alone": by_the_model_alone,
    "language": on_a_runtime,
    "language, server": on_a_server,
    "plain calls": lambda: by_plain_calls(1),
    "plain calls, 32 threads": lambda: by_plain_calls(32),
}


def main() -> None:
    print(f"{'':26}{'tree of thought':>18}{'few-shot batch':>18}")
    for name in sys.argv[1:] or ROWS:
        tree, shots = ROWS[name]()
        print(f"{name:26}{tree:>16.2f} s{shots:>16.2f} s", flush=True)


if __name__ == "__main__":
    main()
