"""Metrics beyond counting requests: plans, work in vain, and what the governor sees."""

from __future__ import annotations

from typing import Any, cast

from prometheus_client.parser import text_string_to_metric_families

from inferd_agent.metrics import Metrics
from inferd_runtime import ModelDescription, RuntimeFigures, State, StatsSnapshot
from tests.agent.plans import PLAN, STATIC_PLAN


class Quiet:
    """A runtime with a measured model, one on the static rule, and one that failed."""

    def models(self) -> tuple[ModelDescription, ...]:
        return (
            ModelDescription("recogniser", 3, State.READY, plan=PLAN),
            ModelDescription("digits", 1, State.READY, plan=STATIC_PLAN),
            ModelDescription("broken", 1, State.FAILED),
        )

    def stats(self) -> tuple[StatsSnapshot, ...]:
        return (StatsSnapshot("digits", 1, wasted_left_rows=3, wasted_late_rows=2, wasted_ns=1_500_000_000),)

    def figures(self) -> RuntimeFigures:
        figures: dict[str, Any] = dict.fromkeys(RuntimeFigures.__dataclass_fields__, 0)
        return RuntimeFigures(**{**figures, "others_busy_cores": 0.75})


def samples(runtime: object) -> dict[tuple[str, ...], dict[str, Any]]:
    """The samples of one scrape, by name, model and version."""
    _, text = Metrics(cast(Any, runtime)).expose()
    return {
        (sample.name, sample.labels.get("model", ""), sample.labels.get("version", "")): {
            **sample.labels, "value": sample.value,
        }
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }  # fmt: skip


def test_each_plan_is_told_with_its_source() -> None:
    """Engine, device, variant and precision, measured or by the static rule; a version without a plan has none."""
    found = samples(Quiet())
    measured = found["inferd_model_plan_info", "recogniser", "3"]
    assert {key: measured[key] for key in ("engine", "device", "variant", "precision", "source", "value")} == {
        "engine": "openvino", "device": "cpu", "variant": "int8", "precision": "f32", "source": "measured", "value": 1,
    }  # fmt: skip
    assert found["inferd_model_plan_info", "digits", "1"]["source"] == "static"
    assert ("inferd_model_plan_info", "broken", "1") not in found


def test_work_in_vain_is_counted() -> None:
    """Rows by why nobody took them, and the engine's time, in seconds."""
    found = samples(Quiet())
    for name, value in (("left_rows", 3), ("late_rows", 2), ("seconds", 1.5)):
        assert found[f"inferd_wasted_{name}_total", "digits", "1"]["value"] == value


def test_the_host_is_told_apart() -> None:
    """Cores busy with everything, with us, and with what is neither ours nor for us."""
    found = samples(Quiet())
    assert [found[f"inferd_{who}_busy_cores", "", ""]["value"] for who in ("host", "own", "others")] == [0, 0, 0.75]
