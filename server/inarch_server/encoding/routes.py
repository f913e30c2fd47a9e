"""Where clients of several APIs expect vectors, scores and classes to be."""

from __future__ import annotations

from collections.abc import Sequence

from inarch_server.encoding import native
from inarch_server.encoding.classify import classify
from inarch_server.encoding.embeddings import embeddings
from inarch_server.encoding.protocol import (
    ClassifyRequest,
    EmbeddingRequest,
    EncodeRequest,
    RerankRequest,
    ScoreRequest,
)
from inarch_server.encoding.scoring import rerank, score
from inarch_server.http.route import Route

ROUTES: Sequence[Route] = (
    Route("POST", "/v1/embeddings", embeddings, "Vectors of texts", "Embeddings", EmbeddingRequest),
    Route(
        "POST",
        "/v1/rerank",
        rerank,
        "Documents by how well they answer",
        "Ranking",
        RerankRequest,
        also=(("POST", "/rerank"), ("POST", "/v2/rerank")),
    ),
    Route(
        "POST",
        "/v1/score",
        score,
        "How well texts match, or how likely tokens come next",
        "Scores",
        ScoreRequest,
        also=(("POST", "/score"),),
    ),
    Route("POST", "/v1/classify", classify, "Labels of texts", "Classes", ClassifyRequest),
    Route("POST", "/classify", native.classify, "Raw scores of labels", "Encoded", EncodeRequest),
    Route(
        "POST",
        "/encode",
        native.encode,
        "SGLang's native request for vectors",
        "Encoded",
        EncodeRequest,
        also=(("PUT", "/encode"),),
    ),
)
