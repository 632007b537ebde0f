"""A model that was measured, as the runtime tells of it: a text-line recogniser on two cores, with every outcome."""

from __future__ import annotations

from typing import Any

import pytest

from inferd_runtime import Candidate, Evidence, ModelNotFound, Plan, PlanState, Runtime, Trial, Veto
from inferd_runtime.spec import Shape


def trial(candidate: Candidate, run_us: float, rows_per_s: float, batch: int, **more: Any) -> Trial:
    """A candidate that was measured."""
    curve = ((1, run_us), (2, run_us * 1.5))[:batch]
    figures = {"memory_bytes": 96 << 20, "compile_ms": 850.0, "metric": "cosine", "rounds": 2, **more}
    return Trial(
        candidate, "measured", run_us=run_us, run_p95_us=run_us + 700, rows_per_s=rows_per_s, best_batch=batch,
        curve=curve, **figures,
    )  # fmt: skip


OV = ("openvino", "cpu")
ORT = ("onnxruntime", "cpu")
CHOSEN = Candidate(*OV, "int8", "f32", 2, 1)
IDLE = Candidate(*OV, "int8", "f32", 1, 2)
TRIALS = (
    trial(Candidate(*ORT, "", "f32", 2, 1), 31200, 63.7, 1, rounds=1),
    trial(IDLE, 6100, 147.0, 2, error=0.0021),
    trial(CHOSEN, 8200, 206.4, 2, error=0.0021),
    trial(Candidate(*OV, "", "f32", 2, 1), 11900, 150.2, 2),
    trial(Candidate(*ORT, "int8", "auto", 2, 1), 43500, 46.0, 1, error=0.0044, rounds=1),
    Trial(
        Candidate(*OV, "", "bf16", 2, 1), "vetoed", error=0.031, metric="cosine", run_us=5100.0, rows_per_s=231.0,
        reason="answers stray from the reference: cosine distance 0.031, at most 0.01",
    ),
    Trial(Candidate(*OV, "int8", "f16", 2, 1), "failed", reason="the process crashed: SIGSEGV"),
    Trial(Candidate(*OV, "int8", "f16", 1, 2), "failed", reason="the process crashed: SIGSEGV"),
    Trial(Candidate(*ORT, "", "f32", 1, 2), "skipped", reason="the time ended first"),
)  # fmt: skip
EVIDENCE = Evidence(
    key="0123abcd",
    objective="balanced",
    reference="variant fp32 in onnxruntime f32",
    trials=TRIALS,
    chosen=str(CHOSEN),
    idle=str(IDLE),
    reason="Measured: openvino cpu int8 f32 2x1 has the most rows per second with a lone request within 1.5 times the "
    "quickest, of 5 candidates (8.2 ms for one row, 206 rows per second).",
    budget_s=20.0,
    took_s=19.4,
    made_at_s=1_760_000_000.0,
    inputs="calibration",
)
MEASURED = PlanState("measured", evidence=EVIDENCE)
MEASURING = PlanState("measuring", done=3, total=9, now=str(TRIALS[3].candidate))
PLAN = Plan(
    "openvino", "cpu", "int8", "f32", 2, 1, 2, False, 8200.0, EVIDENCE.reason, curve=((1, 8200.0), (2, 12300.0)),
    idle=Shape(1, 2, 2, 0, 6100.0),
)  # fmt: skip
STATIC_PLAN = Plan(
    "onnxruntime", "cpu", "int8", "auto", 2, 1, 16, True, 90.0,
    "Static rule: onnxruntime on cpu, variant int8, because a run of this small model is shortest there.",
    (Veto("openvino cpu int8", "a run of one row took 120 us, 90 us on onnxruntime cpu int8"),),
)  # fmt: skip


class Planner:
    """Answers for `runtime` until the test ends: `now`, and after an order to measure `then`, one after the other."""

    def __init__(self, runtime: Runtime, patch: pytest.MonkeyPatch, now: PlanState, *then: PlanState) -> None:
        self.now = now
        self.then = list(then) or [MEASURING]
        self.asked: list[tuple[str, int | None]] = []
        self.orders: list[dict[str, Any]] = []
        patch.setattr(runtime, "evidence", self.evidence, raising=False)
        patch.setattr(runtime, "measure", self.measure, raising=False)

    def evidence(self, name: str, version: int | None = None) -> PlanState:
        """What is known at this moment."""
        self.asked.append((name, version))
        if self.orders and self.then:
            self.now = self.then.pop(0)
        return self.now

    def measure(self, name: str, **order: Any) -> None:
        """Take an order for mlp."""
        if name != "mlp":
            raise ModelNotFound(f"there is no model {name!r}")
        self.orders.append(order)
