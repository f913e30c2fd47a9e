from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from inarch.engine.text.tokenizer import Tokenizer
from inarch.engine.text.vocabulary import TokenizerVocabulary
from inarch.grammar import Compiled, Compiler, GrammarEngine
from inarch_grammars.plugin import inarch_grammar_engines

DATA = Path(__file__).parents[2] / "bundled_model/inarch_bundled_model/data"
ENGINES = {engine.name: engine for engine in inarch_grammar_engines()}
Walk = Callable[..., str | None]


@pytest.fixture(scope="session")
def vocabulary() -> TokenizerVocabulary:
    return TokenizerVocabulary(Tokenizer.load(DATA), 2048, (4, 2))


@pytest.fixture(scope="session", params=ENGINES)
def compiler(request: pytest.FixtureRequest, vocabulary: TokenizerVocabulary) -> Compiler:
    engine: GrammarEngine = ENGINES[request.param]
    if missing := engine.missing():
        pytest.skip(missing)
    return engine.open(vocabulary)


@pytest.fixture(scope="session")
def walk(vocabulary: TokenizerVocabulary) -> Walk:
    """Takes any allowed tokens to the end, and answers the text; None if there is no end in sight."""

    def walk(compiled: Compiled, seed: int, limit: int = 250) -> str | None:
        chance, matcher, ids = random.Random(seed), compiled.matcher(), []
        bitmask = np.zeros(64, dtype=np.int32)
        while len(ids) < limit:
            forced = matcher.forced()
            matcher.fill(bitmask)
            bits = np.unpackbits(bitmask.view(np.uint8), bitorder="little")
            allowed = np.flatnonzero(bits).tolist()
            assert allowed, "no end, and nothing allowed"
            assert not forced or allowed == [forced[0]]
            ends = [token for token in allowed if token in vocabulary.stop_ids]
            assert not matcher.finished or ends == allowed
            token = chance.choice(ends if ends and chance.random() < 0.5 else allowed)
            for other in chance.sample(range(2048), 3):
                assert other in allowed or not matcher.accept(other)
            assert matcher.accept(token)
            if token in ends:
                assert matcher.finished
                assert not matcher.accept(token)
                return b"".join(vocabulary.pieces[i] for i in ids).decode()
            ids.append(token)
        return None

    return walk
