"""How fast small models run on a CPU: this project beside llama.cpp and transformers.

    python ci/bench_cpu.py FOLDER [--model qwen|bundled] [--engines inarch,llama.cpp,transformers]
        [--precisions int8,int4,16,32] [--threads 2] [--seconds 20] [--json FILE]

FOLDER keeps the models between runs: a random one of the shape of Qwen2.5 0.5B (24 layers, hidden 896,
14 and 2 heads of 64, MLP 4864, vocabulary 151,936, tied), and its GGUF files, or those of the bundled
model. Each engine runs in a process of its own with the same prompts of random tokens; each number is
the best of as many rounds as fit into --seconds:

    prefill   tokens of prompt a second, one prompt of --prompt tokens, one new token
    1 stream  tokens a second of one greedy answer of --new tokens after 32 of prompt
    16        tokens a second of 16 such answers at once

int8 is q8_0 and int4 q4_0 in llama.cpp: a scale for each 32 weights on both sides, embedding and head
included on theirs, the head on ours. 16: weights of bfloat16 (f16 in llama.cpp). Needs xllamacpp
(llama.cpp's server as a wheel, built for AVX2) and gguf for llama.cpp: what is not installed is left out.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
STREAMS, OPENING = 16, 32
GGUF_TYPES = {"int8": "Q8_0", "int4": "Q4_0", "16": "F16", "32": "F32"}
QWEN = {
    "architectures": ["Qwen2ForCausalLM"],
    "model_type": "qwen2",
    "vocab_size": 151_936,
    "hidden_size": 896,
    "intermediate_size": 4864,
    "num_hidden_layers": 24,
    "num_attention_heads": 14,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-6,
    "rope_theta": 1_000_000.0,
    "max_position_embeddings": 4096,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
    "bos_token_id": 0,
    "eos_token_id": 1,
}


@dataclasses.dataclass(frozen=True)
class Task:
    """What a process of its own measures. Sizes are tokens."""

    engine: str
    folder: str  # of the model, in safetensors
    precision: str
    threads: int
    prompt: int
    new: int
    seconds: float
    vocabulary: int


@dataclasses.dataclass(frozen=True)
class Found:
    """Tokens a second."""

    prefill: float
    one: float
    many: float


Measure = Callable[[int, int, int], float]  # (streams, prompt, new) -> seconds


def measure(task: Task, run: Measure) -> Found:
    """Rounds of all three, until the time is over; the best of each."""
    best = [float("inf")] * 3
    workloads = ((1, task.prompt, 1), (1, OPENING, task.new), (STREAMS, OPENING, task.new))
    run(1, OPENING, 2)  # the first step also allocates
    until = time.perf_counter() + task.seconds
    while True:
        for at, workload in enumerate(workloads):
            best[at] = min(best[at], run(*workload))
        if time.perf_counter() > until:
            break
    return Found(task.prompt / best[0], task.new / best[1], STREAMS * task.new / best[2])


def prompts_of(task: Task, streams: int, length: int, seed: int) -> list[list[int]]:
    """Never the same twice, so that no cached prefix helps."""
    import random

    generator = random.Random(seed)
    return [
        [generator.randrange(2, task.vocabulary) for _ in range(length)] for _ in range(streams)
    ]


def run_inarch(task: Task) -> Found:
    from inarch.config import EngineConfig
    from inarch.engine.engine import Engine
    from inarch.sampling import SamplingParams

    options: dict[str, Any] = {"quantization": "none", "dtype": "auto"}
    if task.precision in ("int8", "int4"):
        options["quantization"] = task.precision
    if task.precision == "32":
        options["dtype"] = "float32"
    config = EngineConfig(
        model=task.folder,
        kv_tokens=8192,
        max_running_requests=STREAMS,
        max_step_tokens=1024,
        **options,
    )
    seed = 0
    with Engine(config) as engine:

        def run(streams: int, prompt: int, new: int) -> float:
            nonlocal seed
            seed += 1
            prompts = prompts_of(task, streams, prompt, seed)
            params = SamplingParams(temperature=0, max_tokens=new, ignore_eos=True)
            started = time.perf_counter()
            answers = engine.generate(prompts, params)
            seconds = time.perf_counter() - started
            assert all(len(answer.token_ids) == new for answer in answers)
            return seconds

        return measure(task, run)


def run_llama(task: Task) -> Found:
    """llama.cpp's server with its slots, called in this process: no HTTP on either side."""
    from concurrent.futures import ThreadPoolExecutor

    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(gguf_file(Path(task.folder), task.precision))
    params.n_ctx, params.n_parallel, params.n_batch, params.n_ubatch = 16384, STREAMS, 1024, 1024
    params.warmup, params.prompt_cache_all, params.cache_ram_mib = True, False, 0
    for threads in (params.cpuparams, params.cpuparams_batch):
        threads.n_threads = task.threads
    server, seed = xllamacpp.Server(params), 0
    pool = ThreadPoolExecutor(STREAMS)

    def run(streams: int, prompt: int, new: int) -> float:
        nonlocal seed
        seed += 1

        def ask(tokens: list[int]) -> None:
            question = {"prompt": tokens, "max_tokens": new, "n_predict": new, "temperature": 0}
            given = server.handle_completions(
                question | {"ignore_eos": True, "cache_prompt": False}
            )
            assert given.get("usage", {}).get("completion_tokens") == new, given

        prompts = prompts_of(task, streams, prompt, seed)
        started = time.perf_counter()
        list(pool.map(ask, prompts))
        return time.perf_counter() - started

    return measure(task, run)


def run_transformers(task: Task) -> Found:
    import torch
    import transformers

    torch.set_num_threads(task.threads)
    dtype = torch.float32 if task.precision == "32" else torch.bfloat16
    model = transformers.AutoModelForCausalLM.from_pretrained(task.folder, dtype=dtype).eval()
    seed = 0

    def run(streams: int, prompt: int, new: int) -> float:
        nonlocal seed
        seed += 1
        ids = torch.tensor(prompts_of(task, streams, prompt, seed))
        started = time.perf_counter()
        with torch.inference_mode():
            model.generate(ids, min_new_tokens=new, max_new_tokens=new, do_sample=False)
        return time.perf_counter() - started

    return measure(task, run)


RUN = {"inarch": run_inarch, "llama.cpp": run_llama, "transformers": run_transformers}
NEEDS = {"inarch": "inarch", "llama.cpp": "xllamacpp", "transformers": "transformers"}
CAN = {"inarch": GGUF_TYPES, "llama.cpp": GGUF_TYPES, "transformers": ("16", "32")}


def write_qwen(folder: Path) -> None:
    """A random model: small normal numbers, norms of one."""
    import torch
    from safetensors.torch import save_file

    sys.path.insert(0, str(HERE))
    from dummy_model import write

    write(folder, **QWEN)
    hidden, size, heads = QWEN["hidden_size"], QWEN["intermediate_size"], (896, 128, 128)
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> torch.Tensor:
        return (torch.randn(shape, generator=generator) * 0.02).to(torch.bfloat16)

    tensors = {"model.embed_tokens.weight": normal(QWEN["vocab_size"], hidden)}
    tensors["model.norm.weight"] = torch.ones(hidden, dtype=torch.bfloat16)
    for layer in range(QWEN["num_hidden_layers"]):
        base = f"model.layers.{layer}."
        for name in ("input_layernorm", "post_attention_layernorm"):
            tensors[f"{base}{name}.weight"] = torch.ones(hidden, dtype=torch.bfloat16)
        for name, outputs in zip("qkv", heads, strict=True):
            tensors[f"{base}self_attn.{name}_proj.weight"] = normal(outputs, hidden)
            tensors[f"{base}self_attn.{name}_proj.bias"] = normal(outputs)
        tensors[f"{base}self_attn.o_proj.weight"] = normal(hidden, hidden)
        for name in ("gate", "up"):
            tensors[f"{base}mlp.{name}_proj.weight"] = normal(size, hidden)
        tensors[f"{base}mlp.down_proj.weight"] = normal(hidden, size)
    save_file(tensors, folder / "model.safetensors")


NAMES = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def gguf_file(folder: Path, precision: str) -> Path:
    return folder / f"{GGUF_TYPES[precision]}.gguf"


def write_gguf(folder: Path, precision: str) -> None:
    """The same weights in llama.cpp's format, quantized by the gguf package where it is asked for."""
    import gguf
    import numpy as np
    import torch
    from safetensors.torch import load_file

    config = json.loads((folder / "config.json").read_text())
    kind = {"qwen2": "qwen2", "qwen3": "qwen3", "llama": "llama"}[config["model_type"]]
    writer = gguf.GGUFWriter(str(gguf_file(folder, precision)), kind)
    heads = config["num_attention_heads"]
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(config["num_key_value_heads"])
    size = config.get("head_dim") or config["hidden_size"] // heads
    writer.add_key_length(size)
    writer.add_value_length(size)
    writer.add_rope_dimension_count(size)
    writer.add_rope_freq_base(config.get("rope_theta") or config["rope_parameters"]["rope_theta"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])
    tokens = json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]
    words = sorted(tokens, key=tokens.__getitem__)
    words += [f"<unused{n}>" for n in range(len(words), config["vocab_size"])]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(words)
    writer.add_token_types([1] * len(words))
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    wanted = gguf.GGMLQuantizationType[GGUF_TYPES[precision]]
    for name, tensor in load_file(folder / "model.safetensors").items():
        array = tensor.to(torch.float32).numpy()
        used = wanted if array.ndim == 2 else gguf.GGMLQuantizationType.F32
        if array.shape[-1] % 32 and used.name.startswith("Q"):
            used = gguf.GGMLQuantizationType.F16
        data = gguf.quants.quantize(np.ascontiguousarray(array), used)
        writer.add_tensor(gguf_name(name), data, raw_dtype=used)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def gguf_name(name: str) -> str:
    if name in NAMES:
        return NAMES[name]
    _, _, layer, rest = name.split(".", 3)
    part, _, end = rest.rpartition(".")
    return f"blk.{layer}.{NAMES[part]}.{end}"


def prepared(arguments: argparse.Namespace) -> Path:
    """The folder of the model, made at the first run."""
    if arguments.model == "qwen":
        folder = arguments.folder / "qwen"
        if not (folder / "model.safetensors").is_file():
            write_qwen(folder)
        return folder
    from inarch_bundled_model.plugin import inarch_bundled_models

    source, folder = Path(inarch_bundled_models()[0].path), arguments.folder / "bundled"
    folder.mkdir(parents=True, exist_ok=True)
    for file in source.iterdir():
        if file.is_file() and not (folder / file.name).exists():
            (folder / file.name).write_bytes(file.read_bytes())
    return folder


def run_apart(task: Task, quiet: str | None) -> Found | None:
    """In a process of its own, so that no engine's threads or memory bear on another's."""
    environment = os.environ | {"OMP_NUM_THREADS": str(task.threads), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, __file__, "--task", json.dumps(dataclasses.asdict(task))]
    done = subprocess.run(
        [*([quiet] if quiet else []), *command], capture_output=True, text=True, env=environment
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode or not lines:
        print(f"{task.engine} {task.precision} failed:\n{done.stderr[-2000:]}", file=sys.stderr)
        return None
    return Found(**json.loads(lines[-1]))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--model", choices=("qwen", "bundled"), default="qwen")
    parser.add_argument("--engines", default=",".join(RUN))
    parser.add_argument("--precisions", default="int8,int4,16,32")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--prompt", type=int, default=512)
    parser.add_argument("--new", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--quiet", help="command under which each process is run")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--task", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.task:
        task = Task(**json.loads(arguments.task))
        print(json.dumps(dataclasses.asdict(RUN[task.engine](task))))
        return
    if arguments.folder is None:
        parser.error("FOLDER is needed")
    folder = prepared(arguments)
    vocabulary = json.loads((folder / "config.json").read_text())["vocab_size"]
    results = []
    print(f"{'engine':14}{'weights':9}{'prefill':>9}{'1 stream':>10}{'16':>9}   tokens a second")
    for precision in arguments.precisions.split(","):
        for engine in arguments.engines.split(","):
            if precision not in CAN[engine] or not importlib.util.find_spec(NEEDS[engine]):
                continue
            if engine == "llama.cpp" and not gguf_file(folder, precision).is_file():
                write_gguf(folder, precision)
            task = Task(
                engine, str(folder), precision, arguments.threads, arguments.prompt,
                arguments.new, arguments.seconds, vocabulary,
            )  # fmt: skip
            found = run_apart(task, arguments.quiet)
            if found is None:
                continue
            print(f"{engine:14}{precision:9}{found.prefill:9.0f}{found.one:10.1f}{found.many:9.1f}")
            results.append(dataclasses.asdict(task) | dataclasses.asdict(found))
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
