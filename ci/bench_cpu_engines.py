"""The engines of ci/bench_cpu.py. Each runs in a process of its own and is asked over a pipe.

The process reads lines "streams prompt new" and answers each with the seconds that so many greedy
answers took, of `new` tokens after prompts of `prompt` random tokens that no cache has seen.
"""

from __future__ import annotations

import json
import os
import random
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench_cpu_models import gguf_file

STREAMS, CONTEXT = 16, 1024  # the most answers at once, and the most tokens of each


@dataclass(frozen=True)
class Task:
    engine: str
    folder: str  # of the model
    precision: str
    threads: int


Answer = Callable[[list[list[int]], int], None]  # (prompts, new tokens of each)


def inarch(task: Task) -> Answer:
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
        backend="intel_cpu",
        kv_tokens=8192,
        max_running_requests=STREAMS,
        max_step_tokens=1024,
        **options,
    )
    engine = Engine(config).__enter__()

    def answer(prompts: list[list[int]], new: int) -> None:
        params = SamplingParams(temperature=0, max_tokens=new, ignore_eos=True)
        assert all(len(given.token_ids) == new for given in engine.generate(prompts, params))

    return answer


def llama_server(task: Task) -> Answer:
    """llama.cpp's server with its slots, called in this process: no HTTP on either side."""
    from concurrent.futures import ThreadPoolExecutor

    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(gguf_file(Path(task.folder), task.precision))
    params.n_ctx, params.n_parallel = STREAMS * CONTEXT, STREAMS
    params.n_batch = params.n_ubatch = 1024
    params.warmup, params.prompt_cache_all, params.cache_ram_mib = True, False, 0
    for threads in (params.cpuparams, params.cpuparams_batch):
        threads.n_threads = task.threads
    server, pool = xllamacpp.Server(params), ThreadPoolExecutor(STREAMS)

    def answer(prompts: list[list[int]], new: int) -> None:
        wanted = {"max_tokens": new, "n_predict": new, "temperature": 0, "ignore_eos": True}

        def ask(prompt: list[int]) -> None:
            given = server.handle_completions({"prompt": prompt, "cache_prompt": False} | wanted)
            assert given.get("usage", {}).get("completion_tokens") == new, given

        list(pool.map(ask, prompts))

    return answer


def llama_library(task: Task) -> Answer:
    """llama.cpp's library as llama-cpp-python built it, without a server: what it can do at best."""
    import llama_cpp as ll
    import numpy as np

    ll.llama_backend_init()
    path = str(gguf_file(Path(task.folder), task.precision)).encode()
    model = ll.llama_model_load_from_file(path, ll.llama_model_default_params())
    options = ll.llama_context_default_params()
    options.n_ctx, options.n_seq_max = STREAMS * CONTEXT, STREAMS
    options.n_batch = options.n_ubatch = 1024
    options.n_threads = options.n_threads_batch = task.threads
    context = ll.llama_init_from_model(model, options)
    words = ll.llama_vocab_n_tokens(ll.llama_model_get_vocab(model))
    batch = ll.llama_batch_init(1024, 0, 1)

    def run(given: list[tuple[int, int, int, bool]]) -> list[int]:
        """(token, position, sequence, whether the next one is wanted) -> the next ones."""
        batch.n_tokens = len(given)
        for n, (token, position, sequence, wanted) in enumerate(given):
            batch.token[n], batch.pos[n], batch.logits[n] = token, position, wanted
            batch.n_seq_id[n], batch.seq_id[n][0] = 1, sequence
        assert ll.llama_decode(context, batch) == 0
        rows = (ll.llama_get_logits_ith(context, n) for n in range(len(given)) if given[n][3])
        return [int(np.ctypeslib.as_array(row, (words,)).argmax()) for row in rows]

    def answer(prompts: list[list[int]], new: int) -> None:
        ll.llama_memory_clear(ll.llama_get_memory(context), True)
        length = len(prompts[0])
        tokens = run(
            [
                (token, at, sequence, at == length - 1)
                for sequence, prompt in enumerate(prompts)
                for at, token in enumerate(prompt)
            ]
        )
        for step in range(new - 1):
            tokens = run([(token, length + step, n, True) for n, token in enumerate(tokens)])

    return answer


def transformers(task: Task) -> Answer:
    import torch
    import transformers

    torch.set_num_threads(task.threads)
    dtype = torch.float32 if task.precision == "32" else torch.bfloat16
    model = transformers.AutoModelForCausalLM.from_pretrained(task.folder, dtype=dtype).eval()

    def answer(prompts: list[list[int]], new: int) -> None:
        ids = torch.tensor(prompts)
        with torch.inference_mode():
            model.generate(ids, min_new_tokens=new, max_new_tokens=new, do_sample=False)

    return answer


def vllm(task: Task) -> Answer:
    """vLLM's CPU build, where the installed vLLM is one."""
    os.environ |= {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_TARGET_DEVICE": "cpu"}
    from vllm import LLM, SamplingParams

    model = LLM(
        task.folder,
        dtype="float32" if task.precision == "32" else "bfloat16",
        max_model_len=CONTEXT,
        max_num_seqs=STREAMS,
        enable_prefix_caching=False,
        skip_tokenizer_init=True,
    )

    def answer(prompts: list[list[int]], new: int) -> None:
        params = SamplingParams(temperature=0, max_tokens=new, ignore_eos=True, detokenize=False)
        given = model.generate([{"prompt_token_ids": p} for p in prompts], params, use_tqdm=False)
        assert all(len(each.outputs[0].token_ids) == new for each in given)

    return answer


START = {
    "inarch": inarch,
    "llama.cpp": llama_server,
    "llama-cpp-python": llama_library,
    "transformers": transformers,
    "vllm": vllm,
}


def main() -> None:
    task = Task(**json.loads(sys.argv[1]))
    words = json.loads((Path(task.folder) / "config.json").read_text())["vocab_size"]
    # Engines write to standard output what they please: answers go where it led before.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    answer, generator = START[task.engine](task), random.Random(0)
    print("ready", file=answers)
    for line in sys.stdin:
        streams, prompt, new = map(int, line.split())
        prompts = [[generator.randrange(2, words) for _ in range(prompt)] for _ in range(streams)]
        began = time.perf_counter()
        answer(prompts, new)
        print(time.perf_counter() - began, file=answers)
    os._exit(0)  # nothing is to be saved, and some engines take long to end


if __name__ == "__main__":
    main()
