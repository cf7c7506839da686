"""What /metrics says, under vLLM's names (metrics.py)."""

import shutil
import subprocess

import pytest
from prometheus_client.parser import text_string_to_metric_families

from helpers.served import GatedRunner, Served

# What vLLM's dashboard reads, without its prefix.
DASHBOARD = {
    "num_requests_running", "num_requests_waiting", "kv_cache_usage_perc", "prompt_tokens_total",
    "generation_tokens_total", "prefix_cache_queries_total", "prefix_cache_hits_total", "num_preemptions_total",
    "request_success_total", "time_to_first_token_seconds_bucket", "inter_token_latency_seconds_bucket",
    "e2e_request_latency_seconds_bucket", "request_queue_time_seconds_bucket", "request_prefill_time_seconds_bucket",
    "request_decode_time_seconds_bucket", "request_prompt_tokens_bucket", "request_generation_tokens_bucket",
    "request_max_num_generation_tokens_bucket",
}  # fmt: skip


def samples(text: str) -> dict[str, dict]:
    """name -> {labels without the model's: value}."""
    found: dict[str, dict] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = dict(sample.labels)
            assert labels.pop("model_name") == "tiny"
            found.setdefault(sample.name, {})[tuple(labels.values())] = sample.value
    return found


@pytest.mark.parametrize("prefix", ["nano_llama", "vllm"])
def test_the_dashboard_s_names(prefix):
    with Served(metrics_prefix=prefix) as served:
        assert served.ready.wait(10)
        served.runner.allow()
        served.post("/test/plain", {"prompt": "a" * 40, "max_tokens": 5})
        served.post("/test/plain", {"prompt": "a" * 40, "max_tokens": 5})
        answer = served.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    found = samples(answer.body.decode())
    assert {f"{prefix}:{name}" for name in DASHBOARD} <= found.keys()
    values = {name.partition(":")[2]: value for name, value in found.items()}
    assert values["generation_tokens_total"] == {(): 10}
    assert values["prompt_tokens_total"] == {(): 80}
    assert not any(name.endswith("_created") for name in found)
    assert values["request_success_total"] == {("length",): 2}
    assert values["prefix_cache_queries_total"] == {(): 80}
    assert values["prefix_cache_hits_total"][()] == 32  # two of the prompt's blocks of 16 tokens
    assert values["e2e_request_latency_seconds_count"] == {(): 2}
    assert sum(values["blocks"].values()) == served.stats().blocks_total
    assert set(values["blocks"]) == {("held",), ("kept",), ("empty",)}


def test_what_runs_and_waits():
    with Served(GatedRunner(), max_num_seqs=2) as served:
        assert served.ready.wait(10)
        connections = [served.start("/test/plain", {"prompt": "abc", "max_tokens": 5}) for _ in range(3)]
        served.until(lambda: served.stats().waiting + served.stats().running == 3)
        served.runner.allow(1)
        served.until(lambda: served.stats().running == 2)
        values = samples(served.get("/metrics").body.decode())
        assert values["nano_llama:num_requests_running"] == {(): 2}
        assert values["nano_llama:num_requests_waiting"] == {(): 1}
        assert values["nano_llama:kv_cache_usage_perc"][()] > 0
        for raw in connections:
            raw.close()


def test_overload_is_refused_and_counted():
    with Served(GatedRunner(), max_num_seqs=1, max_waiting=1) as served:
        assert served.ready.wait(10)
        connections = []
        for number in (1, 2):
            connections.append(served.start("/test/plain", {"prompt": "abc"}))
            served.until(lambda number=number: served.stats().waiting + served.stats().running == number)
        answer = served.post("/test/plain", {"prompt": "abc"})
        assert (answer.status, answer.error["type"], answer.error["code"]) == (429, "rate_limit_exceeded", "overloaded")
        assert int(answer.headers["retry-after"]) >= 1
        assert served.metric("rejected_total", reason="overloaded") == 1
        for raw in connections:
            raw.close()


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
def test_promtool_finds_no_fault():
    with Served() as served:
        assert served.ready.wait(10)
        served.runner.allow()
        served.post("/test/plain", {"prompt": "abc", "max_tokens": 5})
        text = served.get("/metrics").body
    done = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True)
    faults = [line for line in done.stderr.decode().splitlines() if "should not contain ':'" not in line]
    assert not faults  # vLLM's names have a colon, which promtool advises against
