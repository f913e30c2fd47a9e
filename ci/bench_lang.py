"""How much faster a branching program is in the language than by plain calls of the HTTP API.

    python ci/bench_lang.py

Two workloads on the bundled model, each in the language on an engine of its own, and by an OpenAI
client that sends the whole text with every call: one call after the other as a script does, and with
the calls of one level at once in threads. Prints seconds.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import openai

import inarch.lang as sgl

PREAMBLE = "Rules of the game: think in small steps, write one short thought a line. " * 12
LEVELS, WIDTH, TOKENS = 4, 3, 12
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


def in_the_language() -> tuple[float, float]:
    batch = [{"question": question} for question in QUESTIONS]
    with sgl.Runtime() as runtime:
        sgl.set_default_backend(runtime)

        def tree() -> None:
            runtime.flush_cache()
            tree_of_thought.run(question="How far is the moon?", temperature=0)

        def shots() -> None:
            runtime.flush_cache()
            few_shot.run_batch(batch, temperature=0)

        return seconds(tree), seconds(shots)


def by_plain_calls(at_once: int) -> tuple[float, float]:
    command = [str(Path(sys.executable).with_name("inarch")), "serve", "--port", "31998"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            endpoint = _once_it_answers("http://127.0.0.1:31998")
            plain = Plain("http://127.0.0.1:31998/v1", at_once)

            def tree() -> None:
                endpoint.flush_cache()
                plain.tree_of_thought("How far is the moon?")

            def shots() -> None:
                endpoint.flush_cache()
                plain.few_shot()

            return seconds(tree), seconds(shots)
        finally:
            server.terminate()


def _once_it_answers(url: str) -> sgl.RuntimeEndpoint:
    for _ in range(600):
        try:
            return sgl.RuntimeEndpoint(url)
        except sgl.InarchError:
            time.sleep(0.1)
    raise SystemExit(f"no server at {url} after 60 s")


def main() -> None:
    rows = {
        "the language": in_the_language(),
        "plain calls, one by one": by_plain_calls(1),
        "plain calls, 32 at once": by_plain_calls(32),
    }
    best = rows["the language"]
    print(f"{'':26}{'tree of thought':>18}{'few-shot batch':>18}")
    for name, times in rows.items():
        cells = [f"{took:.2f} s {took / own:4.1f}x" for took, own in zip(times, best, strict=True)]
        print(f"{name:26}{cells[0]:>18}{cells[1]:>18}")


if __name__ == "__main__":
    main()
