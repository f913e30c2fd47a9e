"""Vectors on an accelerator that answers late, captures, pads and poisons: the same ones."""

from __future__ import annotations

import pytest

from . import small_encoders
from .test_encoding import (
    test_a_language_model_answers_and_encodes_in_one_batch,
    test_a_prompt_that_was_set_back_is_pooled_anew,
    test_embeddings_in_batches_and_chunks,
    test_every_pooling_over_several_steps,
    test_leaving_while_prompts_are_encoded_leaves_nothing_behind,
    test_scores_of_labels,
)
from .test_engine_on_fake_accelerator import FAKE
from .test_scoring_pairs import test_a_cross_encoder_reads_both_texts

__all__ = [
    "test_a_cross_encoder_reads_both_texts",
    "test_a_language_model_answers_and_encodes_in_one_batch",
    "test_a_prompt_that_was_set_back_is_pooled_anew",
    "test_embeddings_in_batches_and_chunks",
    "test_every_pooling_over_several_steps",
    "test_leaving_while_prompts_are_encoded_leaves_nothing_behind",
    "test_scores_of_labels",
]


@pytest.fixture(autouse=True)
def _on_the_fake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(FAKE)
    monkeypatch.syspath_prepend(FAKE / "installed")  # its metadata
    monkeypatch.setattr(small_encoders, "BACKEND", "fake")
