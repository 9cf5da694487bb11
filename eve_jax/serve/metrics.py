"""Figures of the server for Prometheus, by the names that vLLM has, so that dashboards made for it work."""

import itertools
import time
from collections.abc import Iterable, Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from eve_jax.infer.image_cache import ImageCache
from eve_jax.infer.pace import BOUNDS
from eve_jax.infer.requests import Ticket
from eve_jax.serve.runner import Scheduling

SECONDS = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80, 160, 640)
TOKENS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000)
LABELS = ("model_name", "engine")
TIMES = {
    "time_to_first_token_seconds": "from the request to the first token",
    "inter_token_latency_seconds": "between two tokens",
    "request_time_per_output_token_seconds": "of a request's tokens after the first, on average",
    "e2e_request_latency_seconds": "from the request to its end",
    "request_queue_time_seconds": "a request waited",
    "request_prefill_time_seconds": "until the first token, once it was begun",
    "request_decode_time_seconds": "from the first token to the last",
    "request_inference_time_seconds": "from the begin to the last token",
}
COUNTS = {
    "request_prompt_tokens": "tokens of a prompt, image tokens included",
    "request_generation_tokens": "tokens of an answer",
    "request_params_n": "answers asked for",
    "request_params_max_tokens": "tokens that an answer may have",
}


class Metrics:
    """The figures of one server; `model` is the label of the model."""

    def __init__(self, model: str, scheduler: Scheduling, images: ImageCache):
        self.registry = CollectorRegistry()
        self.labels = (model, "0")
        self.registry.register(_Load(scheduler, images, self.labels))

        def counter(name: str, text: str) -> Counter:
            return Counter(f"vllm:{name}", text, LABELS, registry=self.registry).labels(*self.labels)

        def histogram(name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
            made = Histogram(f"vllm:{name}", text, LABELS, buckets=buckets, registry=self.registry)
            return made.labels(*self.labels)

        self.prompt_tokens = counter("prompt_tokens", "tokens of prompts")
        self.generated = counter("generation_tokens", "tokens of answers")
        self.successes = Counter(
            "vllm:request_success", "answers that ended", (*LABELS, "finished_reason"), registry=self.registry
        )
        self.histograms = {name: histogram(name, text, SECONDS) for name, text in TIMES.items()}
        self.histograms |= {name: histogram(name, text, TOKENS) for name, text in COUNTS.items()}
        by = ("method", "handler", "status")
        self.requests = Counter("http_requests", "requests", by, registry=self.registry)
        self.durations = Histogram(
            "http_request_duration_seconds", "of requests", by[:2], buckets=SECONDS, registry=self.registry
        )
        self.held = Gauge("eve:held_body_bytes", "bytes of the bodies of requests under way", registry=self.registry)

    def text(self) -> bytes:
        """What GET /metrics says."""
        return generate_latest(self.registry)

    def http(self, method: str, handler: str, status: int, seconds: float) -> None:
        """Count a request."""
        self.requests.labels(method, handler, f"{status // 100}xx").inc()
        self.durations.labels(method, handler).observe(seconds)

    def ended(self, ticket: Ticket, tokens: int, reason: str) -> None:
        """Count an answer of so many tokens."""
        labels = dict(zip((*LABELS, "finished_reason"), (*self.labels, reason), strict=True))
        self.successes.labels(**labels).inc()
        prompt = len(ticket.request.prompt)
        self.prompt_tokens.inc(prompt)
        self.generated.inc(tokens)
        seen: dict[str, float] = {"request_prompt_tokens": prompt, "request_generation_tokens": tokens}
        seen["request_params_max_tokens"] = ticket.request.max_new_tokens
        seen |= _times(ticket, tokens)
        for name, value in seen.items():
            self.histograms[name].observe(value)

    def between(self, seconds: float) -> None:
        """Note the time between two tokens."""
        self.histograms["inter_token_latency_seconds"].observe(seconds)


def _times(ticket: Ticket, tokens: int) -> dict[str, float]:
    """Seconds of an answer's phases, as far as it went through them."""
    end = ticket.finished or time.monotonic()
    found = {"e2e_request_latency_seconds": end - ticket.queued}
    if ticket.started is not None:
        found["request_queue_time_seconds"] = ticket.started - ticket.queued
        found["request_inference_time_seconds"] = end - ticket.started
    if ticket.first is not None and ticket.started is not None:
        found["time_to_first_token_seconds"] = ticket.first - ticket.queued
        found["request_prefill_time_seconds"] = ticket.first - ticket.started
        found["request_decode_time_seconds"] = end - ticket.first
        if tokens > 1:
            found["request_time_per_output_token_seconds"] = (end - ticket.first) / (tokens - 1)
    return found


class _Load(Collector):
    """What the scheduler and the cache of images have, asked when the figures are."""

    def __init__(self, scheduler: Scheduling, images: ImageCache, labels: Iterable[str]):
        self.scheduler, self.images, self.labels = scheduler, images, list(labels)

    def collect(self) -> Iterator[Metric]:
        """The figures of now."""
        stats = self.scheduler.stats()
        gauges = {
            "vllm:num_requests_running": (stats.running, "answers under way"),
            "vllm:num_requests_waiting": (stats.waiting, "requests that wait"),
            "vllm:kv_cache_usage_perc": (stats.used_tokens / max(stats.total_tokens, 1), "of the cache, 1 = all"),
            "eve:compiled_programs": (stats.compiled, "programs compiled since the start"),
        }
        counters = {
            "vllm:prefix_cache_queries": (stats.prefix_queries, "tokens of prompts looked up in the prefix cache"),
            "vllm:prefix_cache_hits": (stats.prefix_hits, "tokens of prompts found in the prefix cache"),
            "vllm:mm_cache_queries": (self.images.queries, "images looked up in the cache of images"),
            "vllm:mm_cache_hits": (self.images.hits, "images found in the cache of images"),
        }
        kinds = ((GaugeMetricFamily, gauges), (CounterMetricFamily, counters))
        for family, figures in kinds:
            for name, (value, text) in figures.items():
                metric = family(name, text, labels=LABELS)
                metric.add_metric(self.labels, value)
                yield metric
        bounds = [*(str(bound) for bound in BOUNDS), "+Inf"]
        counts = list(zip(bounds, itertools.accumulate(stats.stalls), strict=True))
        text = "of answers for pieces of prompts before a block, in times of that block"
        stalls = HistogramMetricFamily("eve:prompt_stall_blocks", text, labels=LABELS)
        stalls.add_metric(self.labels, counts, stats.stalled)
        yield stalls
