"""Score a model folder on questions that its training never showed, by topic.

    python evaluate.py                   # the shipped model on the CPU, some minutes
    python evaluate.py --failures 20     # and show what went wrong
    python evaluate.py --card FILE       # and write the table between FILE's score markers

An answer is right only if it is the expected text to the last character and the model stopped
there by itself. Greedy decoding.
"""

from __future__ import annotations

import argparse
import datetime
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

import dialogue
import newcomer
import torch
import world
from tqdm import tqdm
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase

DATA = Path(__file__).resolve().parents[1] / "inarch_bundled_model" / "data"
SEED = 20_000  # far from the seeds of training batches, though held-out questions need no such care


@dataclass(frozen=True)
class Case:
    """`expected` is the whole answer, or a pattern to be found in it if `pattern`."""

    topic: str
    messages: list[dict[str, str]]
    expected: str
    pattern: bool = False

    def right(self, answer: str) -> bool:
        if self.pattern:
            return re.search(self.expected, answer, re.IGNORECASE) is not None
        return answer == self.expected


def held_out_cases(per_topic: int) -> Iterator[Case]:
    """The same number from every topic that holds questions out, follow-ups and recall included."""
    rng = Random(SEED)
    for draw in world.TOPICS:
        for _ in range(per_topic):
            chat = dialogue.unseen_conversation(rng, draw)
            if chat is None:
                break
            yield _case(chat, chat.turns[-1].topic)
    for _ in range(4 * per_topic):
        yield _case(dialogue.unseen_follow_up(rng), "follow-ups")
        yield _case(dialogue.unseen_recall(rng), "memory")


def _case(chat: dialogue.Conversation, topic: str) -> Case:
    messages = chat.messages()
    return Case(topic, messages[:-1], messages[-1]["content"])


def newcomer_cases() -> Iterator[Case]:
    for *turns, expected in newcomer.QUESTIONS:
        roles = ("user", "assistant")
        messages = [{"role": roles[i % 2], "content": text} for i, text in enumerate(turns)]
        yield Case("newcomers", messages, expected, pattern=True)


def _work(case: Case) -> int:
    """About how long a case takes: like with like makes batches without much padding."""
    asked = sum(len(message["content"]) for message in case.messages)
    return asked + 8 * len(case.expected)


@torch.inference_mode()
def answers(
    model: torch.nn.Module, tokenizer: PreTrainedTokenizerBase, cases: Sequence[Case], batch: int
) -> list[str]:
    """Greedy answers, in the order of `cases`; one that does not end is marked as such."""
    order = sorted(range(len(cases)), key=lambda i: _work(cases[i]))
    result = [""] * len(cases)
    stop = tokenizer.convert_tokens_to_ids(dialogue.END)
    for start in tqdm(range(0, len(cases), batch), unit="batch", mininterval=2):
        chosen = order[start : start + batch]
        prompts = [
            tokenizer.apply_chat_template(
                cases[i].messages, tokenize=False, add_generation_prompt=True
            )
            for i in chosen
        ]
        inputs = tokenizer(
            prompts, return_tensors="pt", padding=True, padding_side="left",
            add_special_tokens=False, return_token_type_ids=False,
        ).to(model.device)  # fmt: skip
        room = 64 + 2 * max(len(tokenizer(cases[i].expected).input_ids) for i in chosen)
        output = model.generate(
            **inputs, do_sample=False, temperature=None, top_p=None, max_new_tokens=room
        )
        for i, row in zip(chosen, output[:, inputs.input_ids.shape[1] :].tolist(), strict=True):
            ended = stop in row
            text = tokenizer.decode(row[: row.index(stop)] if ended else row)
            result[i] = text if ended else text + " (did not stop)"
    return result


def table(scores: dict[str, tuple[int, int]]) -> str:
    held_out = {topic: s for topic, s in scores.items() if topic != "newcomers"}
    right, asked = (sum(column) for column in zip(*held_out.values(), strict=True))
    lines = ["| topic | questions | right |", "| --- | ---: | ---: |"]
    for topic, (r, n) in sorted(held_out.items()):
        lines.append(f"| {topic} | {n} | {100 * r / n:.1f} % |")
    lines.append(f"| **held out, all** | **{asked}** | **{100 * right / asked:.1f} %** |")
    r, n = scores["newcomers"]
    lines.append(f"| written by hand, not from the templates | {n} | {100 * r / n:.1f} % |")
    return "\n".join(lines)


def write_card(card: Path, text: str) -> None:
    begin, end = "<!-- score -->", "<!-- /score -->"
    before, _, rest = card.read_text().partition(begin)
    today = datetime.date.today().isoformat()
    command = "`python plugins/bundled_model/training/evaluate.py`"
    body = f"Measured on {today} with {command}:\n\n{text}\n"
    card.write_text(f"{before}{begin}\n{body}{end}{rest.partition(end)[2]}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--model", type=Path, default=DATA)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--per-topic", type=int, default=20)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--failures", type=int, default=0, help="how many to print")
    parser.add_argument("--card", type=Path, help="a file whose score is to be replaced")
    args = parser.parse_args()
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    model = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32).to(args.device)
    cases = [*held_out_cases(args.per_topic), *newcomer_cases()]
    given = answers(model, tokenizer, cases, args.batch)
    tally: dict[str, list[bool]] = defaultdict(list)
    failures = []
    for case, answer in zip(cases, given, strict=True):
        tally[case.topic].append(case.right(answer))
        if not case.right(answer):
            failures.append((case, answer))
    for case, answer in failures[-args.failures :] if args.failures else []:
        asked = " / ".join(message["content"] for message in case.messages)
        print(f"[{case.topic}] {asked}\n    expected {case.expected!r}\n    got      {answer!r}")
    text = table({topic: (sum(marks), len(marks)) for topic, marks in tally.items()})
    print(text)
    if args.card:
        write_card(args.card, text)


if __name__ == "__main__":
    main()
