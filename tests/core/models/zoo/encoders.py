"""Models that end in vectors or scores: encoders, and decoders with another head."""

from __future__ import annotations

from .example import Example

ONE = {"num_labels": 1}
THREE = {"num_labels": 3}
BERT = {"type_vocab_size": 2}
ROBERTA = {"type_vocab_size": 1, "pad_token_id": 1}
NEAR = {
    "num_hidden_layers": 4,
    "local_attention": 8,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "cls_token_id": 1,
    "sep_token_id": 2,
}
PAD = {"pad_token_id": 0}

EMBEDDERS = {
    "bert": Example("BertModel", BERT),
    "roberta": Example("RobertaModel", ROBERTA),
    "xlm-roberta": Example("XLMRobertaModel", ROBERTA),
    "modernbert": Example("ModernBertModel", NEAR),
    "llama": Example("LlamaModel"),
    "mistral": Example("MistralModel", {"sliding_window": 9}),
    "qwen2": Example("Qwen2Model"),
    "qwen2-both-sides": Example("Qwen2Model", {"is_causal": False, "attn_implementation": "eager"}),
    "qwen3": Example("Qwen3Model", {"head_dim": 32}),
    "embedding-gemma": Example(
        "Gemma3TextModel",
        {
            "use_bidirectional_attention": True,
            "num_hidden_layers": 4,
            "sliding_window": 16,
            "sliding_window_pattern": 2,
            "head_dim": 16,
            "query_pre_attn_scalar": 16,
        },
    ),
}
CLASSIFIERS = {
    "bert": Example("BertForSequenceClassification", BERT | THREE),
    "bert-pairs": Example("BertForSequenceClassification", BERT | ONE),
    "roberta": Example("RobertaForSequenceClassification", ROBERTA | THREE),
    "xlm-roberta": Example("XLMRobertaForSequenceClassification", ROBERTA | ONE),
    "modernbert": Example("ModernBertForSequenceClassification", NEAR | ONE),
    "modernbert-mean": Example(
        "ModernBertForSequenceClassification", NEAR | THREE | {"classifier_pooling": "mean"}
    ),
    "llama": Example("LlamaForSequenceClassification", PAD | ONE),
    "gemma2": Example(
        "Gemma2ForSequenceClassification",
        PAD | ONE | {"sliding_window": 11, "head_dim": 16, "query_pre_attn_scalar": 16},
    ),
    "qwen2": Example("Qwen2ForSequenceClassification", PAD | THREE),
    "qwen3": Example("Qwen3ForSequenceClassification", PAD | ONE | {"head_dim": 32}),
    "bert-tokens": Example("BertForTokenClassification", BERT | THREE),
    "modernbert-near-only": Example(
        "ModernBertForSequenceClassification",
        NEAR | ONE | {"layer_types": ["sliding_attention"] * 4},
    ),
    "qwen2-tokens": Example("Qwen2ForTokenClassification", PAD | THREE),
}
