"""ci/grafana.json shows only numbers that a server really has."""

from __future__ import annotations

import json
import re
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from .harness import Server

BOARD = json.loads((Path(__file__).parents[2] / "ci" / "grafana.json").read_text())
NAME = re.compile(r"\b(?:sglang|inarch):\w+")
MATCHER = re.compile(r"(\w+)=~?\"")


def expressions() -> list[str]:
    panels = [target["expr"] for panel in BOARD["panels"] for target in panel["targets"]]
    return panels + [v["definition"] for v in BOARD["templating"]["list"] if "definition" in v]


def test_every_expression_names_numbers_and_labels_of_a_running_server(server: Server) -> None:
    server.post("/v1/completions", {"prompt": "one"})
    text = server.get("/metrics").body.decode()
    labels = {
        sample.name: set(sample.labels)
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    for expression in expressions():
        names = NAME.findall(expression)
        assert names, expression
        for name in names:
            assert name in labels, expression
            # Prometheus adds `instance`; `le` and others are asked for in by (…).
            assert set(MATCHER.findall(expression)) - {"instance"} <= labels[name], expression


def test_panels_do_not_overlap_and_each_has_an_id_of_its_own() -> None:
    taken: dict[tuple[int, int], int] = {}
    for panel in BOARD["panels"]:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24
        for x in range(at["x"], at["x"] + at["w"]):
            for y in range(at["y"], at["y"] + at["h"]):
                assert taken.setdefault((x, y), panel["id"]) == panel["id"]
    assert len({panel["id"] for panel in BOARD["panels"]}) == len(BOARD["panels"])
