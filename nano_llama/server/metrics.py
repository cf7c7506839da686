"""What /metrics reports, under the names of vLLM's dashboard: the engine's state and totals, histograms of requests.

The prefix is a setting: with "vllm" that dashboard works unchanged. Our own: rejected_total{reason},
aborted_total{phase}, blocks{state}. Tests: tests/server/test_metrics.py.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest

if TYPE_CHECKING:
    from nano_llama.vol3_engine.requests import Request
    from nano_llama.vol3_engine.statistics import EngineStats
    from nano_llama.vol3_engine.timing import Timing

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4
SHORT = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1.0, 2.5, 5.0)  # seconds
LONG = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 320.0)  # seconds
TOKENS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000)
Stats = Callable[[], "EngineStats | None"]  # None while the model loads


class Registry(CollectorRegistry):
    """Without the series NAME_created, which nobody asked for: the library's own switch is for the whole process."""

    def collect(self) -> Iterator[Metric]:
        for metric in super().collect():
            metric.samples = [sample for sample in metric.samples if sample.name != f"{metric.name}_created"]
            yield metric


class Metrics:
    """One registry per server."""

    def __init__(self, prefix: str, model_id: str, stats: Stats):
        self.registry = Registry(auto_describe=False)
        self.registry.register(EngineCollector(prefix, model_id, stats))

        def histogram(name: str, about: str, buckets: tuple[float, ...]) -> Histogram:
            made = Histogram(f"{prefix}:{name}", about, ["model_name"], buckets=buckets, registry=self.registry)
            return made.labels(model_id)

        self.token_interval = histogram("inter_token_latency_seconds", "Between two tokens of a sample.", SHORT)
        self._first_token = histogram("time_to_first_token_seconds", "From arrival to the first token.", LONG)
        self._whole = histogram("e2e_request_latency_seconds", "From arrival to the last token.", LONG)
        self._queue = histogram("request_queue_time_seconds", "From arrival to the first step.", LONG)
        self._prefill = histogram("request_prefill_time_seconds", "From the first step to the first token.", LONG)
        self._decode = histogram("request_decode_time_seconds", "From the first token to the last.", LONG)
        self._prompt = histogram("request_prompt_tokens", "Tokens of the prompt.", TOKENS)
        self._generated = histogram("request_generation_tokens", "Tokens of all samples.", TOKENS)
        self._longest = histogram("request_max_num_generation_tokens", "Tokens of the longest sample.", TOKENS)

        def counter(name: str, about: str, label: str) -> Counter:
            return Counter(f"{prefix}:{name}", about, ["model_name", label], registry=self.registry)

        self._model_id = model_id
        self._success = counter("request_success", "Samples that ended.", "finished_reason")
        self._rejected = counter("rejected", "Requests that were refused before the engine saw them.", "reason")
        self._aborted = counter("aborted", "Requests whose client left, or that were given up.", "phase")

    def rejected(self, reason: str) -> None:
        self._rejected.labels(self._model_id, reason).inc()

    def ended(self, request: "Request") -> None:
        """A request that the engine had: finished, or aborted amid its work."""
        timing = request.timing
        if not has_finished(request):
            self._aborted.labels(self._model_id, phase_of(timing)).inc()
            return
        for sequence in request.sequences:
            self._success.labels(self._model_id, sequence.finish_reason).inc()
        lengths = [len(sequence.output_ids) for sequence in request.sequences]
        self._prompt.observe(len(request.prompt_ids))
        self._generated.observe(sum(lengths))
        self._longest.observe(max(lengths))
        for histogram, seconds in (
            (self._queue, between(timing.arrived, timing.scheduled)),
            (self._prefill, between(timing.scheduled, timing.first_token)),
            (self._decode, between(timing.first_token, timing.finished)),
            (self._first_token, between(timing.arrived, timing.first_token)),
            (self._whole, between(timing.arrived, timing.finished)),
        ):
            if seconds is not None:
                histogram.observe(seconds)

    def text(self) -> bytes:
        return generate_latest(self.registry)


class EngineCollector:
    """Reads the engine's statistics when it is asked: nothing is counted twice, and nothing costs a step."""

    def __init__(self, prefix: str, model_id: str, stats: Stats):
        self.prefix, self.model_id, self.stats = prefix, model_id, stats

    def collect(self) -> Iterable[Metric]:
        stats = self.stats()
        if stats is None:
            return
        for name, about, value in (
            ("num_requests_running", "Samples that the engine is computing.", stats.running),
            ("num_requests_waiting", "Samples that wait for a place.", stats.waiting),
            ("num_tokens_waiting", "Prompt tokens that wait.", stats.waiting_tokens),
            ("kv_cache_usage_perc", "Blocks that are held, of all; 1 is full.", stats.blocks_held / stats.blocks_total),
            ("seconds_since_step", "Age of the last step.", stats.seconds_since_step),
        ):
            gauge = GaugeMetricFamily(f"{self.prefix}:{name}", about, labels=["model_name"])
            if value is not None:  # there has been no step
                gauge.add_metric([self.model_id], value)
            yield gauge
        by_state = GaugeMetricFamily(
            f"{self.prefix}:blocks",
            "Blocks of the KV cache: held by sequences, kept for their prefix, or empty.",
            labels=["model_name", "state"],
        )
        for state in ("held", "kept", "empty"):
            by_state.add_metric([self.model_id, state], getattr(stats, f"blocks_{state}"))
        yield by_state
        for name, about, value in (
            ("prompt_tokens", "Prompt tokens read, those from the prefix cache too.", stats.prompt_tokens),
            ("generation_tokens", "Tokens generated.", stats.generation_tokens),
            ("prefix_cache_queries", "Prompt tokens that were looked up in the prefix cache.", stats.prefix_queries),
            ("prefix_cache_hits", "Prompt tokens that were found there.", stats.prefix_hits),
            (
                "num_preemptions",
                "Sequences that lost their blocks to others for a while.",
                stats.preemptions,
            ),
            ("num_steps", "Steps of the engine.", stats.steps),
        ):
            counter = CounterMetricFamily(f"{self.prefix}:{name}", about, labels=["model_name"])
            counter.add_metric([self.model_id], value)
            yield counter


def has_finished(request: "Request") -> bool:
    """Whether all its samples came to an end of their own."""
    return all(sequence.finish_reason in ("stop", "length") for sequence in request.sequences)


def phase_of(timing: "Timing") -> str:
    """Where a request was when it ended."""
    if timing.scheduled is None:
        return "queue"
    return "prefill" if timing.first_token is None else "decode"


def between(start: float | None, end: float | None) -> float | None:
    return None if start is None or end is None else max(0.0, end - start)
