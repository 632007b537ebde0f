"""Prometheus metrics, made when somebody scrapes: the hot path only adds to plain integers.

Labels come from our own words and from models that exist, so their number is bounded. Never imports the front ends.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import TYPE_CHECKING

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from inferd_runtime import LATENCY_BUCKETS_S, ModelDescription, StatsSnapshot

if TYPE_CHECKING:
    from inferd_runtime import Runtime, RuntimeFigures

_MODEL = ("model", "version")
_PLAN = (*_MODEL, "engine", "device", "variant", "precision", "source")


@dataclass(slots=True)
class Counters:
    """What the front end counts. `requests` is keyed by the kind of path and the status."""

    requests: dict[tuple[str, int], int] = field(default_factory=dict)
    auth_failures: int = 0
    connections: int = 0
    connections_total: int = 0
    connections_refused: int = 0

    def count(self, label: str, status: int) -> None:
        """One request was answered, or given up (499)."""
        key = (label, status)
        requests = self.requests
        requests[key] = requests.get(key, 0) + 1


class _Scrape(Collector):
    """One scrape, as the library wants it; it has no description, since registering must not read the runtime."""

    def __init__(self, collect: Callable[[], Iterator[Metric]]) -> None:
        self._collect = collect

    def describe(self) -> Iterator[Metric]:
        return iter(())

    def collect(self) -> Iterator[Metric]:
        return self._collect()


def _all(name: str) -> bool:
    return True


class Metrics:
    """Collects from the runtime and the counters."""

    def __init__(self, runtime: Runtime, *, clock: Callable[[], float] = time.time) -> None:
        self.counters = Counters()
        self._runtime = runtime
        self.version = version("inferd")
        self._started_s = clock()
        self._held_bytes: list[Callable[[], int]] = []

    def watch(self, held_bytes: Callable[[], int]) -> None:
        """Add a front end's request bodies to the bytes in flight."""
        self._held_bytes.append(held_bytes)

    def expose(self, sees: Callable[[str], bool] | None = None) -> tuple[str, bytes]:
        """The content type and the text of one scrape, of the models that the caller sees; None: of all."""
        registry = CollectorRegistry(auto_describe=False)
        registry.register(_Scrape(lambda: self._collect(sees or _all)))
        return CONTENT_TYPE_LATEST, generate_latest(registry)

    def _collect(self, sees: Callable[[str], bool]) -> Iterator[Metric]:
        build = GaugeMetricFamily("inferd_build_info", "What runs.", labels=("version",))
        build.add_metric((self.version,), 1)
        yield build
        yield _gauge("start_time_seconds", "When the daemon started, since the epoch.", self._started_s)
        yield from self._front_end()
        runtime = self._runtime
        yield from _figures(runtime.figures())
        models = [each for each in runtime.models() if sees(each.name)]
        yield from _models(models)
        yield from _plans(models)
        yield from _statistics([each for each in runtime.stats() if sees(each.name)])

    def _front_end(self) -> Iterator[Metric]:
        counters = self.counters
        requests = CounterMetricFamily(
            "inferd_requests", "Requests answered, by kind of path and status (499: the caller left).",
            labels=("path", "code"),
        )  # fmt: skip
        for (label, status), count in sorted(counters.requests.items()):
            requests.add_metric((label, str(status)), count)
        yield requests
        yield _counter("auth_failures", "Requests of nobody known.", counters.auth_failures)
        yield _counter("connections", "Connections accepted.", counters.connections_total)
        yield _counter("connections_refused", "Connections over the limit.", counters.connections_refused)
        yield _gauge("connections_open", "Connections open now.", counters.connections)
        yield _gauge("request_body_bytes", "Request bodies held now.", sum(held() for held in self._held_bytes))


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(f"inferd_{name}", text, value=value)


def _counter(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(f"inferd_{name}", text, value=value)


def _figures(figures: RuntimeFigures) -> Iterator[Metric]:
    yield _gauge("core_budget", "Cores that batches may use now.", figures.core_size)
    yield _gauge("core_budget_floor", "Cores that stay ours.", figures.core_floor)
    yield _gauge("core_budget_ceiling", "Cores at most.", figures.core_ceiling)
    yield _gauge("cores_used", "Cores that batches hold, those on the event loop too.", figures.core_used)
    yield _gauge("queued_jobs", "Jobs waiting, all models.", figures.queued_jobs)
    yield _gauge("running_jobs", "Jobs running, all models.", figures.running_jobs)
    yield _gauge("queue_bytes", "Input bytes of waiting and running jobs.", figures.held_bytes)
    yield _gauge("queue_limit_bytes", "Input bytes at most.", figures.max_held_bytes)
    if figures.host_busy_cores is not None:
        yield _gauge("host_busy_cores", "Cores that are busy, with whatever.", figures.host_busy_cores)
    if figures.own_busy_cores is not None:
        yield _gauge("own_busy_cores", "Cores that this daemon keeps busy.", figures.own_busy_cores)
    if figures.others_busy_cores is not None:
        yield _gauge("others_busy_cores", "Cores busy with what is not for us.", figures.others_busy_cores)


def _models(models: Sequence[ModelDescription]) -> Iterator[Metric]:
    states = GaugeMetricFamily("inferd_model_state", "1 for the state that a version is in.", labels=(*_MODEL, "state"))
    for model in models:
        states.add_metric((model.name, str(model.version), model.state.value.lower()), 1)
    yield states


def _plans(models: Sequence[ModelDescription]) -> Iterator[Metric]:
    plans = GaugeMetricFamily("inferd_model_plan_info", "1 for the plan that a version runs by.", labels=_PLAN)
    for model in models:
        if plan := model.plan:
            source = "measured" if plan.curve else "static"
            words = (plan.engine, plan.device, plan.variant, plan.precision, source)
            plans.add_metric((model.name, str(model.version), *words), 1)
    yield plans


# Name, help, and how to read it; times are told in seconds.
_PER_MODEL: tuple[tuple[str, str, Callable[[StatsSnapshot], float]], ...] = (
    ("inference_rows", "Rows inferred.", lambda s: s.inference_count),
    ("executions", "Engine runs.", lambda s: s.execution_count),
    ("inferences", "Requests that got a result.", lambda s: s.success_count),
    ("inference_failures", "Requests that an engine fault failed.", lambda s: s.fail_count),
    ("inference_cancellations", "Requests whose callers left.", lambda s: s.cancelled_count),
    ("inference_late", "Requests whose deadline passed or could not be met.", lambda s: s.late_count),
    ("inference_rejections", "Requests that found the queue full.", lambda s: s.rejected_count),
    ("wasted_left_rows", "Rows that ran although their callers had left.", lambda s: s.wasted_left_rows),
    ("wasted_late_rows", "Rows that were done after their deadlines.", lambda s: s.wasted_late_rows),
    ("wasted_seconds", "Time in the engine that went into both.", lambda s: s.wasted_ns / 1e9),
    ("queue_seconds", "Time that requests waited.", lambda s: s.queue_ns / 1e9),
    ("compute_input_seconds", "Time that inputs were gathered.", lambda s: s.compute_input_ns / 1e9),
    ("compute_infer_seconds", "Time in the engine.", lambda s: s.compute_infer_ns / 1e9),
    ("compute_output_seconds", "Time that outputs were split.", lambda s: s.compute_output_ns / 1e9),
)


def _statistics(snapshots: Sequence[StatsSnapshot]) -> Iterator[Metric]:
    for name, text, read in _PER_MODEL:
        family = CounterMetricFamily(f"inferd_{name}", text, labels=_MODEL)
        for each in snapshots:
            family.add_metric((each.name, str(each.version)), read(each))
        yield family
    latency = HistogramMetricFamily("inferd_inference_latency_seconds", "From admission to result.", labels=_MODEL)
    for each in snapshots:
        latency.add_metric((each.name, str(each.version)), _buckets(each.latency_counts), each.latency_sum_ns / 1e9)
    yield latency


def _buckets(counts: Sequence[int]) -> list[tuple[str, float]]:
    """Prometheus counts everything up to a bound."""
    bounds = [*(str(bound) for bound in LATENCY_BUCKETS_S), "+Inf"]
    total = 0
    cumulative = []
    for bound, count in zip(bounds, counts, strict=True):
        total += count
        cumulative.append((bound, float(total)))
    return cumulative
