"""The models of ci/bench_cpu.py, as safetensors and in llama.cpp's format."""

from __future__ import annotations

import json
import sys
from pathlib import Path

HERE = Path(__file__).parent
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
    """The same weights in llama.cpp's format, quantized by the gguf package where it is asked for.

    For speed alone: neither the tokenizer nor the order of rotated features is the model's own.
    """
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


def prepared(root: Path, model: str) -> Path:
    """The folder of a model ("qwen" or "bundled"), made at the first run."""
    folder = root / model
    if model == "qwen":
        if not (folder / "model.safetensors").is_file():
            write_qwen(folder)
        return folder
    from inarch_bundled_model.plugin import inarch_bundled_models

    folder.mkdir(parents=True, exist_ok=True)
    for file in Path(inarch_bundled_models()[0].path).iterdir():
        if file.is_file() and not (folder / file.name).exists():
            (folder / file.name).write_bytes(file.read_bytes())
    return folder
