"""A model folder of the shape of Llama 3.1 8B without weights, to be served with dummy ones.

    python ci/dummy_model.py FOLDER [--layers N]

The tokenizer has no merges: any text is bytes, and every id has a text of its own, which is all that
a server needs while prompts come as token ids.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers

VOCABULARY = 128_256
BEGIN, END = 128_000, 128_001
CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": VOCABULARY,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-5,
    "rope_theta": 500_000.0,
    "max_position_embeddings": 131_072,
    "tie_word_embeddings": False,
    "bos_token_id": BEGIN,
    "eos_token_id": END,
    "torch_dtype": "bfloat16",
}


def write(folder: Path, **changes: object) -> None:
    """Write config.json and the tokenizer's files; `changes` are made to the config."""
    config = CONFIG | changes
    size = int(str(config["vocab_size"]))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config, indent=1))
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = [*letters, *(f"\u0120t{i}" for i in range(len(letters), size))][:size]
    tokenizer = Tokenizer(models.BPE({word: i for i, word in enumerate(words)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "PreTrainedTokenizerFast"})
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--layers", type=int, default=CONFIG["num_hidden_layers"])
    arguments = parser.parse_args()
    write(arguments.folder, num_hidden_layers=arguments.layers)


if __name__ == "__main__":
    main()
