"""Metrics of plans: what a version runs by, and whether that was measured."""

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
        return ()

    def figures(self) -> RuntimeFigures:
        return RuntimeFigures(**dict.fromkeys(RuntimeFigures.__dataclass_fields__, 0))


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
