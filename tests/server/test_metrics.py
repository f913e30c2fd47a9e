"""What Prometheus sees: SGLang's names, whole numbers of a server of several processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from prometheus_client import CollectorRegistry, Histogram, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from inarch.engine.messages import Stats
from inarch_server.watching.metrics import HISTOGRAMS, Metrics
from inarch_server.watching.rates import WINDOW_S, Rates
from inarch_server.watching.tally import METRICS_DIR, Tally

from .harness import Server
from .standin import StandIn


def numbers(text: str, **labels: str) -> dict[str, float]:
    """Samples by name, of those that have these labels."""
    return {
        sample.name: sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if labels.items() <= sample.labels.items()
    }


def scrape(server: Server, **labels: str) -> dict[str, float]:
    answer = server.get("/metrics")
    assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    return numbers(answer.body.decode(), model_name=server.engine.info.name, **labels)


def test_metrics_count_requests_tokens_and_times(server: Server) -> None:
    server.post("/v1/completions", {"prompt": "one"})
    server.post("/v1/completions", {"prompt": ""})
    server.post("/v1/no/such/thing", {})
    found = scrape(server)
    assert found["sglang:prompt_tokens_total"] == 3
    assert found["sglang:generation_tokens_total"] == 4
    assert found["sglang:num_requests_total"] == 1
    assert found["sglang:num_aborted_requests_total"] == 0
    assert found["sglang:time_to_first_token_seconds_count"] == 1
    assert found["sglang:inter_token_latency_seconds_count"] == 3
    assert found["sglang:e2e_request_latency_seconds_count"] == 1
    assert found["sglang:queue_time_seconds_count"] == 1
    assert found["sglang:prompt_tokens_histogram_sum"] == 3
    assert found["sglang:generation_tokens_histogram_sum"] == 4
    assert found["sglang:num_running_reqs"] == found["sglang:num_queue_reqs"] == 0
    assert found["sglang:num_used_tokens"] == 3 * 16
    assert found["sglang:token_usage"] == 3 / 64
    assert found["sglang:max_total_num_tokens"] == 4 * 2048
    assert (found["inarch:kv_pages_used"], found["inarch:kv_pages_total"]) == (3, 64)
    assert found["inarch:reference_ops"] == 1
    assert found["inarch:engine_alive"] == 1
    for endpoint, status in (
        ("/v1/completions", "200"),
        ("/v1/completions", "400"),
        ("unknown", "404"),
    ):
        labels = {"endpoint": endpoint, "status_code": status, "method": "POST"}
        assert scrape(server, **labels)["sglang:http_responses_total"] == 1
    assert scrape(server, endpoint="/v1/completions")["sglang:http_requests_total"] == 2


def test_each_sample_of_a_request_counts(server: Server) -> None:
    server.post("/v1/completions", {"prompt": ["one", "two"], "n": 3, "temperature": 1})
    found = scrape(server)
    assert found["sglang:num_requests_total"] == 6
    assert found["sglang:time_to_first_token_seconds_count"] == 6


def test_an_answer_that_breaks_off_counts_as_aborted(server: Server) -> None:
    server.engine.fail_after = 2
    assert server.post("/v1/completions", {"prompt": "one"}).status == 500
    found = scrape(server)
    assert found["sglang:num_aborted_requests_total"] == 1
    assert found["sglang:num_requests_total"] == 0


def test_methods_that_nobody_knows_make_no_numbers_of_their_own(server: Server) -> None:
    for method in ("PROPFIND", "REPORT"):
        server.request(method, "/v1/models")
    labels = {"method": "unknown", "endpoint": "unknown"}
    assert scrape(server, **labels)["sglang:http_requests_total"] == 2


def test_metrics_still_answer_when_the_engine_does_not(server: Server) -> None:
    server.engine.alive = False
    found = scrape(server)
    assert found["inarch:engine_alive"] == 0
    assert "sglang:num_running_reqs" not in found


def test_times_are_shown_as_prometheus_shows_its_own_histograms() -> None:
    metrics, theirs = Metrics(), CollectorRegistry()
    name = "sglang:queue_time_seconds"
    bounds = HISTOGRAMS[name][1]
    histogram = Histogram(name, "Some time", ["model_name"], buckets=bounds, registry=theirs)
    for seconds, count in ((0.0001, 3), (0.2, 1), (0.26, 2), (9999.0, 1)):
        for _ in range(count):
            metrics.queue_seconds.observe(seconds)
            histogram.labels("").observe(seconds)

    def shown(text: bytes) -> dict[str, float]:
        pairs = (line.rsplit(" ", 1) for line in text.decode().splitlines())
        return {k: pytest.approx(float(v)) for k, v in pairs if k.startswith(name)}

    expected = {k: v for k, v in shown(generate_latest(theirs)).items() if "_created" not in k}
    assert shown(metrics.render(None)) == expected


COUNT = """
import sys
from pathlib import Path
from inarch_server.watching.metrics import Metrics
metrics = Metrics(folder=Path(sys.argv[1]))
for _ in range(int(sys.argv[2])):
    metrics.response("/generate", "POST", 200)
    for _ in range(5):
        metrics.between_tokens.observe(0.003)
print("counted", flush=True)
sys.stdin.read() if sys.argv[3] == "wait" else __import__("os")._exit(9)
"""


def test_a_scrape_of_one_process_shows_all_of_them_and_those_that_died(tmp_path: Path) -> None:
    def start(count: int, then: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", COUNT, str(tmp_path), str(count), then]
        return subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )  # the folder alone joins them

    with start(7, "wait") as alive, start(11, "die") as dead:
        assert dead.stdout is not None
        assert alive.stdout is not None
        assert dead.stdout.readline() == alive.stdout.readline() == "counted\n"
        assert dead.wait() == 9
        mine = Metrics(folder=tmp_path)
        mine.response("/generate", "POST", 200)
        mine.response("/generate", "POST", 503)
        found = numbers(mine.render(None).decode(), status_code="200")
        assert found["sglang:http_responses_total"] == 7 + 11 + 1
        found = numbers(mine.render(None).decode())
        assert found["sglang:inter_token_latency_seconds_count"] == 5 * (7 + 11)
        assert found["sglang:inter_token_latency_seconds_sum"] == pytest.approx(0.003 * 5 * 18)
        alive.communicate("")


def test_a_server_counts_in_the_folder_that_the_environment_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(METRICS_DIR, str(tmp_path))
    with Server(StandIn()) as first, Server(StandIn()) as second:
        first.post("/v1/completions", {"prompt": "one"})
        assert scrape(second)["sglang:num_requests_total"] == 1
    assert len(os.listdir(tmp_path)) == 2


def test_a_name_that_does_not_fit_is_refused_and_harms_no_other() -> None:
    tally = Tally()
    tally.of("a")[0] += 2
    for name, count in (("x" * 300, 1), ("y", 1 << 20)):
        with pytest.raises(ValueError, match="no room to count"):
            tally.of(name, count)
    tally.of("b", 3)[1] += 1
    assert tally.total() == {"a": [2], "b": [0, 1, 0]}


def stats(steps: int, generated: int = 0, prompt: int = 0, cached: int = 0) -> Stats:
    return Stats(
        ticket=0, running=0, waiting=0, kv_pages_total=1, kv_pages_used=0, kv_pages_cached=0,
        page_tokens=1, retractions=0, steps=steps, prompt_tokens=prompt, cached_tokens=cached,
        generated_tokens=generated,
    )  # fmt: skip


def test_slots_of_recurrent_states_are_shown_where_there_are_any() -> None:
    told = {"state_slots_total": 8, "state_slots_used": 2, "state_checkpoints": 5}
    now = msgspec.structs.replace(stats(1), **told)
    found = numbers(Metrics().render(now).decode(), model_name="")
    assert found["sglang:mamba_usage"] == 0.25
    assert {name: found[f"inarch:{name}"] for name in told} == told
    assert "inarch:state" not in Metrics().render(stats(1)).decode()


def test_rates_are_those_of_the_last_seconds_however_often_one_asks() -> None:
    clock = [0.0]
    rates = Rates(lambda: clock[0])
    for tenth in range(100):
        clock[0] = tenth / 10
        rates.add(
            stats(tenth + 1, generated=tenth * 5 if clock[0] < 5 else 250 + (tenth - 50) * 20)
        )
        if clock[0] == 4:
            assert rates.generated_per_s == pytest.approx(50)
    assert rates.generated_per_s == pytest.approx(200)
    clock[0] += 60  # nobody asked meanwhile
    rates.add(stats(200, generated=1230 + 600))
    assert rates.generated_per_s == pytest.approx(10, rel=0.01)
    assert WINDOW_S < 60


def test_the_hit_rate_is_that_of_the_last_prompts() -> None:
    clock = [0.0]
    rates = Rates(lambda: clock[0])
    for second, prompt, cached in ((0, 0, 0), (10, 100, 0), (20, 200, 75), (30, 200, 75)):
        clock[0] = second
        rates.add(stats(second + 1, prompt=prompt, cached=cached))
    assert rates.cache_hit_rate == 0.75


def test_an_engine_that_was_restarted_makes_no_negative_rates() -> None:
    clock = [0.0]
    rates = Rates(lambda: clock[0])
    rates.add(stats(100, generated=1000))
    clock[0] = 3.0
    rates.add(stats(2, generated=20))
    assert rates.generated_per_s == 0
    clock[0] = 5.0
    rates.add(stats(4, generated=40))
    assert rates.generated_per_s == 10
