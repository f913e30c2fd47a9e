"""Time small random models with experts, latents and recurrent states, with our kernels and without.

    python backends/intel_cpu/bench_models.py MODEL [--quantization int4] [--reference] [--dtype D]

MODEL: qwen3-moe, deepseek or qwen3-next, of about half a billion parameters. --reference: the ops that
those models have and plain Llamas do not run on the reference. Run it on an idle machine. Prints tokens
a second of a prompt, of one stream, and of eight.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from inarch.config import EngineConfig
from inarch.engine.engine import Engine
from inarch.sampling import SamplingParams

sys.path.insert(0, str(Path(__file__).parents[2] / "ci"))
from dummy_model import write

OPS = {
    "qwen3-moe": (),
    "deepseek": ("latent_attention",),
    "qwen3-next": ("causal_conv", "gated_delta_rule", "gated_rms_norm"),
}
PROMPT, ANSWER, STREAMS = 256, 24, 8
COMMON = {
    "vocab_size": 32_000,
    "hidden_size": 1024,
    "num_hidden_layers": 12,
    "num_attention_heads": 16,
    "num_key_value_heads": 4,
    "intermediate_size": 2816,
    "max_position_embeddings": 4096,
    "num_experts_per_tok": 4,
    "rope_theta": 1e6,
    "bos_token_id": 0,
    "eos_token_id": 1,
}
EXPERTS = {"num_experts": 32, "head_dim": 64, "decoder_sparse_step": 1, "mlp_only_layers": []}
MODELS: dict[str, dict[str, Any]] = {
    "qwen3-moe": {
        **EXPERTS,
        "architectures": ["Qwen3MoeForCausalLM"],
        "model_type": "qwen3_moe",
        "moe_intermediate_size": 384,
    },
    "deepseek": {
        "architectures": ["DeepseekV3ForCausalLM"],
        "model_type": "deepseek_v3",
        "num_key_value_heads": 16,
        "q_lora_rank": None,
        "kv_lora_rank": 512,
        "qk_nope_head_dim": 128,
        "qk_rope_head_dim": 64,
        "v_head_dim": 128,
        "n_routed_experts": 32,
        "n_shared_experts": 1,
        "moe_intermediate_size": 256,
        "first_k_dense_replace": 1,
        "n_group": 4,
        "topk_group": 2,
        "norm_topk_prob": True,
        "routed_scaling_factor": 2.5,
        "rope_interleave": True,
    },
    "qwen3-next": {
        **EXPERTS,
        "architectures": ["Qwen3NextForCausalLM"],
        "model_type": "qwen3_next",
        "moe_intermediate_size": 256,
        "shared_expert_intermediate_size": 256,
        "linear_num_key_heads": 8,
        "linear_num_value_heads": 16,
        "linear_key_head_dim": 128,
        "linear_value_head_dim": 128,
        "linear_conv_kernel_dim": 4,
        "partial_rotary_factor": 0.25,
        "layer_types": (["linear_attention"] * 3 + ["full_attention"]) * 3,
    },
}


def seconds(engine: Engine, streams: int, tokens: int) -> float:
    """Prompts that differ from the first token on."""
    prompts = [[2 + s, *range(100 + s, 99 + s + PROMPT)] for s in range(streams)]
    params = SamplingParams(temperature=0, max_tokens=tokens, ignore_eos=True)
    begin = time.perf_counter()
    engine.generate(prompts, params)
    return time.perf_counter() - begin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", choices=MODELS)
    parser.add_argument("--quantization", default="none")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--reference", action="store_true")
    parser.add_argument("--repeats", type=int, default=2)
    asked = parser.parse_args()
    options: dict[str, Any] = {"quantization": asked.quantization, "dtype": asked.dtype}
    if asked.reference:
        few = "" if asked.quantization == "none" else "quantized_"
        ops = ("route", f"{few}experts", f"{few}grouped_linear", *OPS[asked.model])
        options["kernels"] = dict.fromkeys(ops, "reference")
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder), **COMMON | MODELS[asked.model])
        config = EngineConfig(
            model=folder, load_format="dummy", backend="intel_cpu", kv_tokens=16_384,
            prefix_cache=False, max_running_requests=STREAMS, **options,
        )  # fmt: skip
        with Engine(config) as engine:
            seconds(engine, STREAMS, 2)
            rates: dict[str, float] = {}
            for _ in range(asked.repeats):
                first = seconds(engine, 1, 1)
                found = {"prompt": PROMPT / first}
                found["1 stream"] = ANSWER / (seconds(engine, 1, ANSWER + 1) - first)
                begun = seconds(engine, STREAMS, 1)
                spent = seconds(engine, STREAMS, ANSWER + 1) - begun
                found[f"{STREAMS} streams"] = STREAMS * ANSWER / spent
                rates = {name: max(rate, rates.get(name, 0)) for name, rate in found.items()}
            told = {
                "model": asked.model,
                "dtype": engine.info.dtype,
                "weights": engine.info.weights,
            }
            told["ops"] = "reference" if asked.reference else engine.info.device
    print(json.dumps(told | {name: round(rate, 1) for name, rate in rates.items()}))


if __name__ == "__main__":
    main()
