"""Train the bundled model from scratch, on text that it generates itself, and write its folder.

    python train.py --compile             # the shipped model: four minutes on one H100
    python train.py --steps 60 --rows 2 --out /tmp/tiny  # see that it runs, on any CPU

Everything follows from the seed: batch number n is the same whichever worker makes it.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import time
from array import array
from collections.abc import Iterator
from pathlib import Path
from random import Random

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import torch
import torch.nn.functional as F
from dialogue import END, EOS, document
from safetensors.torch import save_file
from tokenizer import BOS, CONTEXT, PAD, VOCABULARY, save_tokenizer, train_tokenizer
from tokenizers import Tokenizer
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm
from transformers import LlamaConfig, LlamaForCausalLM

DATA = Path(__file__).resolve().parents[1] / "inarch_bundled_model" / "data"
# Hidden and feed-forward sizes divide by 128 and heads by 4, as quantization groups and
# tensor-parallel ranks like it.
SHAPE = {
    "vocab_size": VOCABULARY,
    "hidden_size": 256,
    "intermediate_size": 640,
    "num_hidden_layers": 6,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 64,
    "max_position_embeddings": CONTEXT,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "hidden_act": "silu",
    "attention_bias": False,
    "mlp_bias": False,
    "tie_word_embeddings": True,
}
WARM_UP = 200  # steps
MEASURED = 200, 400  # the steps whose speed `--seconds` goes by
# Most batches have short rows, where a chat starts without anything before it, as it will when
# served; every fourth has rows as long as the context.
SHORT, LONG_EVERY = 256, 4


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--out", type=Path, default=DATA, help="folder to write the model to")
    parser.add_argument("--steps", type=int, default=7800)
    parser.add_argument("--seconds", type=float, help="as many steps as take about this long")
    parser.add_argument("--rows", type=int, default=32, help="batch size, in rows of 2048 tokens")
    parser.add_argument("--rate", type=float, default=2.5e-3, help="peak learning rate")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default=None, help="default: the accelerator, if there is one")
    parser.add_argument("--workers", type=int, default=max(1, (os.cpu_count() or 2) - 1))
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, default=False)
    return parser.parse_args()


Batch = tuple[torch.Tensor, torch.Tensor]


class Batches(Dataset[Batch]):
    """Batch n: token ids and whether each is to be learned, both [rows, length]."""

    def __init__(self, folder: Path, seed: int, rows: int) -> None:
        self.folder, self.seed, self.rows = folder, seed, rows
        self.encode: Encoder | None = None

    def __len__(self) -> int:
        return 10**9

    def __getitem__(self, n: int) -> Batch:
        if self.encode is None:
            self.encode = Encoder(self.folder)
        rng = Random(f"{self.seed}/{n}")
        length = SHORT if n % LONG_EVERY else CONTEXT
        rows = [
            fill_row(self.encode, rng, length + 1) for _ in range(self.rows * CONTEXT // length)
        ]
        ids = torch.stack([torch.frombuffer(ids, dtype=torch.int32) for ids, _ in rows])
        learn = torch.stack([torch.frombuffer(learn, dtype=torch.bool) for _, learn in rows])
        return ids, learn


class Encoder:
    """Text to token ids, word by word from memory: far faster than the tokenizer, to the same end.

    That holds because no token of this tokenizer reaches across a space that starts a word.
    """

    def __init__(self, folder: Path) -> None:
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.known: dict[str, list[int]] = {}

    def __call__(self, text: str) -> list[int]:
        if "  " in text or text.endswith(" "):
            return self.encode(text)
        first, *others = text.split(" ")
        ids: list[int] = []
        for word in (first, *(" " + word for word in others)):
            if (known := self.known.get(word)) is None:
                known = self.encode(word)
                if len(self.known) < 100_000:
                    self.known[word] = known
            ids += known
        return ids

    def encode(self, text: str) -> list[int]:
        return self.tokenizer.encode(text, add_special_tokens=False).ids


def fill_row(encode: Encoder, rng: Random, length: int) -> tuple[array[int], bytearray]:
    """Whole documents one after the other; the last is cut where the row ends."""
    ids = array("i")
    learn = bytearray()
    while len(ids) < length:
        segments = document(rng)
        if rng.random() < 0.1:  # a client may well forget the first token
            segments = segments[1:]
        for text, mine in segments:
            piece = encode(text)
            ids.extend(piece)
            learn.extend(bytes((mine,)) * len(piece))
    return ids[:length], learn[:length]


def rate_at(step: int, steps: int, peak: float) -> float:
    """Up in a line, level until the number of steps is sure, then down to zero along a cosine."""
    if step < WARM_UP:
        return peak * (step + 1) / WARM_UP
    done = max(0, step - MEASURED[1]) / max(1, steps - MEASURED[1])
    return peak * 0.5 * (1 + math.cos(math.pi * done))


def make_optimizer(model: LlamaForCausalLM, rate: float) -> torch.optim.Optimizer:
    matrices = [p for p in model.parameters() if p.dim() > 1]
    vectors = [p for p in model.parameters() if p.dim() == 1]
    groups = [
        {"params": matrices, "weight_decay": 0.1},
        {"params": vectors, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.95), fused=True)


def loss_of(model: LlamaForCausalLM, ids: torch.Tensor, learn: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy over the tokens to be learned; logits are made for those alone."""
    hidden = model.model(input_ids=ids[:, :-1], use_cache=False).last_hidden_state
    wanted = learn[:, 1:]
    return F.cross_entropy(model.lm_head(hidden[wanted]).float(), ids[:, 1:][wanted].long())


def train(model: LlamaForCausalLM, batches: Iterator[Batch], args: argparse.Namespace) -> None:
    optimizer = make_optimizer(model, args.rate)
    model.train()
    started = time.monotonic()
    bar = tqdm(total=args.steps, mininterval=5, unit="step")
    marks: list[float] = []
    step = 0
    while step < args.steps:
        ids, learn = (part.to(args.device, non_blocking=True) for part in next(batches))
        for group in optimizer.param_groups:
            group["lr"] = rate_at(step, args.steps, args.rate)
        with torch.autocast(torch.device(args.device).type, dtype=torch.bfloat16):
            loss = loss_of(model, ids, learn)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        step += 1
        bar.update()
        if step % 100 == 0:
            bar.write(f"step {step}: loss {loss.item():.4f}, {time.monotonic() - started:.0f} s")
        if args.seconds and step in MEASURED:
            marks.append(time.monotonic() - started)
            if len(marks) == len(MEASURED):
                args.steps = bar.total = steps_within(args.seconds, marks)
                bar.write(f"--steps {args.steps} would do the same again")


def steps_within(seconds: float, marks: list[float]) -> int:
    """Steps in all, if they go on as fast as between the two measured ones."""
    first, last = MEASURED
    speed = (last - first) / (marks[1] - marks[0])
    return max(last, last + int((seconds - marks[1]) * speed) // 100 * 100)


def save(model: LlamaForCausalLM, tokenizer: Tokenizer, folder: Path) -> None:
    """The files of a Hugging Face model folder; the tied head is not stored twice."""
    weights = {
        name: tensor.detach().to("cpu", torch.bfloat16).contiguous()
        for name, tensor in model.state_dict().items()
        if name != "lm_head.weight"
    }
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "model.safetensors").chmod(0o644)
    stops = [tokenizer.token_to_id(END), tokenizer.token_to_id(EOS)]
    ends = {
        "bos_token_id": tokenizer.token_to_id(BOS),
        "eos_token_id": stops,
        "pad_token_id": tokenizer.token_to_id(PAD),
    }
    config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama"} | SHAPE | ends
    write_json(folder / "config.json", config | {"torch_dtype": "bfloat16"})
    sampling = {"do_sample": True, "temperature": 0.6, "top_p": 0.9}
    write_json(folder / "generation_config.json", ends | sampling)


def write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n")


def main() -> None:
    args = parse()
    if args.device is None:
        accelerator = torch.accelerator.current_accelerator(check_available=True)
        args.device = accelerator.type if accelerator else "cpu"
    torch.manual_seed(args.seed)
    args.out.mkdir(parents=True, exist_ok=True)
    tokenizer = train_tokenizer(args.seed, documents=8_000)
    save_tokenizer(tokenizer, args.out)
    model = LlamaForCausalLM(LlamaConfig(**SHAPE, initializer_range=0.02)).to(args.device)
    print(f"{model.num_parameters() / 1e6:.2f} M parameters on {args.device}")
    if args.compile:
        for layer in model.model.layers:  # one graph for all layers: compiled in seconds
            layer.compile(dynamic=False)
    batches = Batches(args.out, args.seed, args.rows)
    loader = DataLoader(batches, batch_size=None, num_workers=args.workers, prefetch_factor=4)
    train(model, iter(loader), args)
    save(model, tokenizer, args.out)


if __name__ == "__main__":
    main()
