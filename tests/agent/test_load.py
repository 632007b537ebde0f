"""ORCA's load reports of made-up figures."""

from __future__ import annotations

import json

import pytest

from inferd_agent.load import load_report
from inferd_runtime import RuntimeFigures

FIGURES = RuntimeFigures(
    core_floor=1, core_ceiling=8, core_size=4, core_used=3, queued_jobs=5, running_jobs=2,
    held_bytes=1, max_held_bytes=8, host_busy_cores=None, own_busy_cores=None,
)  # fmt: skip


@pytest.mark.parametrize("form", ["text", "TEXT", " text "])
def test_text(form: str) -> None:
    """Comma-separated, the maps' names before their keys."""
    assert load_report(FIGURES, form) == (
        "TEXT application_utilization=0.75, named_metrics.queue_utilization=0.125, named_metrics.queued_jobs=5, "
        "named_metrics.running_jobs=2"
    )


def test_json() -> None:
    """The same as one object."""
    form, _, text = load_report(FIGURES, "json").partition(" ")
    assert form == "JSON"
    assert json.loads(text) == {
        "application_utilization": 0.75,
        "named_metrics": {"queue_utilization": 0.125, "queued_jobs": 5, "running_jobs": 2},
    }


@pytest.mark.parametrize("form", ["", "bin", "text\r\nX: y"])
def test_other_forms_are_nobodys(form: str) -> None:
    """Nothing is told, and nothing of what was asked comes back."""
    assert load_report(FIGURES, form) == ""
