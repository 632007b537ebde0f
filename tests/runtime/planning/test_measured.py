"""A measured plan from beginning to end: measured, kept, opened in real engines; figures are made up."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from msgspec.structs import replace

from inferd_runtime.engines.discover import open_engines
from inferd_runtime.errors import Closed, EngineFault, ModelNotReady
from inferd_runtime.planning import Ground, Planned, Wishes, plan_version
from inferd_runtime.planning.candidates import list_candidates
from inferd_runtime.planning.evidence import Candidate, Evidence, Trial
from inferd_runtime.planning.measured import measure_plan, plan_from
from inferd_runtime.planning.store import PlanStore, plan_key
from inferd_runtime.spec import ModelSpec
from tests import onnx_models
from tests.runtime.planning.landscapes import FakeClock, Simulated, made_up


@pytest.fixture(scope="module")
def ground() -> Ground:
    """Both engines, two cores."""
    engines, missing = open_engines()
    return Ground(engines, 2, missing, inline="off")


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    return {"": onnx_models.mlp(tmp_path / "m.onnx")}


def spec_of(ground: Ground, files: dict[str, Path]) -> ModelSpec:
    """What the safe plan finds."""
    planned = plan_version(ground, files, Wishes())
    planned.session.close()
    return planned.spec


def measure(
    ground: Ground,
    files: dict[str, Path],
    store: PlanStore,
    *,
    wishes: Wishes | None = None,
    stop_after: int = 1000,
    is_unchanged: bool = True,
) -> tuple[Evidence, Simulated]:
    """Measure on a made-up landscape."""
    wishes, spec, clock = wishes or Wishes(), spec_of(ground, files), FakeClock()
    listed, _ = list_candidates(ground, files, wishes, spec=spec, kind="mlp", file_bytes=40_000)
    trier = Simulated(made_up(listed, 3, cores=2), clock)
    evidence = measure_plan(
        ground,
        files,
        wishes,
        spec=spec,
        kind="mlp",
        file_bytes=40_000,
        digest="digest",
        trier=trier,
        store=store,
        budget_s=20.0,
        should_stop=lambda: len(trier.tried) >= stop_after,
        is_unchanged=lambda: is_unchanged,
        clock=clock,
        now_s=lambda: 1e9,
    )
    return evidence, trier


def evidence_of(*trials: Trial, chosen: int | None = 0, idle: int | None = None) -> Evidence:
    """Evidence that chose one of these trials."""

    def name(index: int | None) -> str:
        return "" if index is None else str(trials[index].candidate)

    return Evidence("key", "balanced", "itself", "generated", trials, name(chosen), name(idle), "Measured.", 20, 9, 1e9)


def measured(text: str, *, rows: int = 0, batch: int = 8, inline: bool = False) -> Trial:
    """A trial of a name such as "openvino f32 2x1"."""
    engine, precision, shape = text.split()
    streams, threads = map(int, shape.split("x"))
    candidate = Candidate(engine, "cpu", "", precision, streams, threads, rows, inline)
    curve = ((1, 12.34), (8, 50.0))
    return Trial(candidate, "measured", run_us=12.34, curve=curve, rows_per_s=9000, best_batch=batch)


@contextmanager
def opened(evidence: Evidence, ground: Ground, files: dict[str, Path], **wishes: object) -> Iterator[Planned]:
    """What comes of the evidence, closed in the end."""
    planned = plan_from(evidence, ground, files, Wishes(**wishes))  # type: ignore[arg-type]
    try:
        yield planned
    finally:
        planned.session.close()
        if planned.idle_session is not None:
            planned.idle_session.close()


def test_what_was_measured_is_kept_and_opened(ground: Ground, files: dict[str, Path], tmp_path: Path) -> None:
    """The evidence is found again by its key, and the plan made of it is the choice."""
    store = PlanStore(tmp_path / "plans")
    evidence, trier = measure(ground, files, store)
    assert trier.is_closed
    assert store.load(plan_key(ground, Wishes(), "digest")) == evidence
    assert (evidence.objective, evidence.budget_s, evidence.made_at_s) == ("balanced", 20.0, 1e9)
    assert (evidence.reference, evidence.inputs) == ("onnxruntime f32", "generated")
    assert 0 < evidence.took_s <= 22
    with opened(evidence, ground, files) as planned:
        plan = planned.plan
        shape = Candidate(
            plan.engine, plan.device, plan.variant, plan.precision, plan.streams, plan.threads, plan.rows, plan.inline
        )
        assert str(shape) == evidence.chosen
        assert plan.reason.startswith(evidence.reason)


def test_a_stop_keeps_nothing(ground: Ground, files: dict[str, Path], tmp_path: Path) -> None:
    """Measuring that is broken off leaves no evidence, and no children."""
    with pytest.raises(Closed):
        measure(ground, files, PlanStore(tmp_path / "plans"), stop_after=2)
    assert not (tmp_path / "plans").exists()


def test_the_models_objective_overrules_the_daemons(ground: Ground, files: dict[str, Path], tmp_path: Path) -> None:
    """`objective` of the settings is what is strived for and told."""
    wishes = Wishes(objective="latency")
    evidence, _ = measure(ground, files, PlanStore(tmp_path / "plans"), wishes=wishes)
    assert evidence.objective == "latency"
    assert "the quickest lone request" in evidence.reason


def test_the_plan_is_what_was_chosen(ground: Ground, files: dict[str, Path]) -> None:
    """Shape, precision, batch, figures and curve come from the trial; vetoes and failures are told."""
    failed = Trial(Candidate("openvino", "cpu", "", "auto", 1, 2), "failed", "killed by SIGSEGV")
    with opened(evidence_of(measured("onnxruntime f32 1x2"), failed), ground, files) as planned:
        plan = planned.plan
        assert (plan.engine, plan.precision, plan.streams, plan.threads, plan.batch) == ("onnxruntime", "f32", 1, 2, 8)
        assert (plan.run_us, plan.curve, plan.rows, plan.idle) == (12.3, ((1, 12.34), (8, 50.0)), 0, None)
        assert plan.reason == "Measured. Up to 8 rows run together."
        assert [(veto.candidate, veto.reason) for veto in plan.vetoes] == [("openvino cpu 1x2", "killed by SIGSEGV")]
        assert planned.spec.max_batch == 64


def test_fixed_rows_and_an_idle_shape_serve(ground: Ground, files: dict[str, Path]) -> None:
    """Two sessions of the same file, one for loaded queues and one for lone requests; both take any number of rows."""
    pair = evidence_of(measured("openvino f32 2x1", rows=4, batch=4), measured("openvino f32 1x2", rows=1), idle=1)
    with opened(pair, ground, files) as planned:
        shape = planned.plan.idle
        assert planned.plan.rows == 4
        assert shape is not None
        assert (shape.streams, shape.threads, shape.rows, shape.run_us) == (1, 2, 1, 12.3)
        assert planned.idle_session is not None
        x = np.ones((6, 64), np.float32)
        for session in (planned.session, planned.idle_session):
            assert session.run([x], [0])[0].shape[0] == 6


def test_inline_and_the_settings_batch(ground: Ground, files: dict[str, Path]) -> None:
    """An inline choice runs inline where the daemon may; a batch in the settings outweighs the measured one."""
    may = Ground(ground.engines, 2)
    with opened(evidence_of(measured("onnxruntime auto 1x1", inline=True)), may, files, batch=5) as planned:
        assert planned.plan.inline
        assert planned.plan.batch == 5


@pytest.mark.parametrize("chosen", [0, None])
def test_what_no_longer_opens_gives_way_to_the_safe_plan(ground: Ground, tmp_path: Path, chosen: int | None) -> None:
    """The static rule serves, and a veto says what became of the measured plan; without a choice it serves at once."""
    files = {"": onnx_models.qoperator(tmp_path / "m.onnx")}  # which OpenVINO refuses
    with opened(evidence_of(measured("openvino auto 2x1"), chosen=chosen), ground, files) as planned:
        assert planned.plan.engine == "onnxruntime"
        assert planned.plan.reason.startswith("Static rule")
        told = [veto.candidate for veto in planned.plan.vetoes]
        assert ("measured: openvino cpu 2x1" in told) == (chosen is not None)


def test_an_idle_shape_that_no_longer_opens_is_left_out(ground: Ground, files: dict[str, Path]) -> None:
    """The loaded shape serves alone."""
    idle = measured("onnxruntime bf16 1x2")
    with opened(evidence_of(measured("onnxruntime auto 2x1"), idle, idle=1), ground, files) as planned:
        assert planned.plan.idle is planned.idle_session is None
        assert [veto.candidate for veto in planned.plan.vetoes] == ["idle: onnxruntime cpu bf16 1x2"]


def test_evidence_of_a_variant_that_is_gone(ground: Ground, files: dict[str, Path]) -> None:
    """Evidence never makes a model fail that the static rule can serve."""
    gone = measured("openvino auto 2x1")
    gone = replace(gone, candidate=replace(gone.candidate, variant="int8"))
    with opened(evidence_of(gone), ground, files) as planned:
        assert planned.plan.reason.startswith("Static rule")


def test_figures_of_files_that_changed_are_not_kept(ground: Ground, files: dict[str, Path], tmp_path: Path) -> None:
    """Nobody knows which content they are of."""
    with pytest.raises(ModelNotReady, match="changed while it was measured"):
        measure(ground, files, PlanStore(tmp_path / "plans"), is_unchanged=False)
    assert not (tmp_path / "plans").exists()


def test_a_fault_of_the_trier_is_not_swallowed(ground: Ground, files: dict[str, Path], tmp_path: Path) -> None:
    """What a trier itself fails at is raised, after it was closed."""
    spec, trier = spec_of(ground, files), Simulated({}, FakeClock())

    def fail(candidate: Candidate) -> None:
        raise EngineFault("no child could be started")

    trier.before = fail
    with pytest.raises(EngineFault):
        measure_plan(
            ground, files, Wishes(), spec=spec, kind="mlp", file_bytes=1, digest="d", trier=trier,
            store=PlanStore(tmp_path), budget_s=1.0,
        )  # fmt: skip
    assert trier.is_closed
