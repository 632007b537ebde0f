"""`inferd explain` and `inferd plan`: the choice, the reasons and the way out, as a person reads them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from inferd_agent import views
from inferd_agent.cli import models, plan
from inferd_agent.cli.explain import ranked, show, span
from inferd_agent.cli.plan import follow
from inferd_runtime import ModelDescription, Plan, PlanState, State
from tests import onnx_models
from tests.agent.cli.conftest import Run
from tests.agent.plans import CHOSEN, EVIDENCE, MEASURED, MEASURING, PLAN, STATIC_PLAN, Planner
from tests.agent.rest.serving import Serving

NOW_S = EVIDENCE.made_at_s + 7000


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """A front end with the model mlp."""
    folder = tmp_path_factory.mktemp("r")
    onnx_models.mlp(folder / "models" / "mlp" / "1" / "model.onnx")
    serving = Serving(folder, folder / "models")
    serving.start()
    yield serving
    serving.stop()


@pytest.fixture
def where(served: Serving) -> tuple[str, str]:
    """Options that lead there."""
    return "--url", f"unix:{served.path}?tls=off"


def told(state: PlanState, plan: Plan | None) -> Any:
    """What the daemon answers."""
    description = ModelDescription("recogniser", 3, State.READY, plan=plan)
    return msgspec.json.decode(msgspec.json.encode(views.plan(description, state)))


def describe(plan: Plan) -> list[tuple[str, str]]:
    """The lines of `inferd models MODEL` about its plan."""
    return models.engine(told(MEASURED, plan)["plan"])


def printed(capsys: pytest.CaptureFixture[str], state: PlanState, plan: Plan | None = PLAN) -> str:
    show(told(state, plan), NOW_S)
    return capsys.readouterr().out


def test_the_choice_and_its_reason_come_first(capsys: pytest.CaptureFixture[str]) -> None:
    """What runs, how a lone request runs, why, and what that rests on, before any table."""
    head = printed(capsys, MEASURED).split("\n\n")[0].splitlines()
    assert head[0] == "recogniser  version 3  measured 117 min ago"
    assert [line.split("  ")[1].strip() for line in head[1:]] == [
        "runs on", "when idle", "why", "objective", "measured",
    ]  # fmt: skip
    assert "openvino cpu int8 f32 2x1: 2 stream(s) of 1 thread(s), up to 2 rows together" in head[1]
    assert "openvino cpu int8 f32 1x2" in head[2]
    assert EVIDENCE.reason in head[3]
    assert "19 of 20 s, calibration inputs, answers compared with variant fp32" in head[5]


@pytest.mark.parametrize(("batch", "said"), [(0, "by itself"), (1, "by itself"), (2, "up to 2 rows together")])
def test_how_many_rows_share_a_run_is_told(batch: int, said: str) -> None:
    """One row is never together."""
    assert said in models.how(told(MEASURED, replace(PLAN, batch=batch))["plan"])


def test_the_table_has_every_measured_candidate(capsys: pytest.CaptureFixture[str]) -> None:
    """Best first, in one unit each, with the error and its metric; within 100 columns."""
    table = printed(capsys, MEASURED).split("\n\n")[1].splitlines()
    assert table[0].split() == ["candidate", "p50", "ms", "p95", "ms", "rows/s", "memory", "error"]
    assert table[1].split() == [
        "chosen", "openvino", "cpu", "int8", "f32", "2x1", "8.20", "8.90", "206", "96.0", "MiB", "0.0021",
        "cosine",
    ]  # fmt: skip
    assert table[3].startswith("when idle  openvino cpu int8 f32 1x2")
    assert len(table) == 7
    assert max(map(len, table)) <= 100


def test_what_was_ruled_out_says_why_once(capsys: pytest.CaptureFixture[str]) -> None:
    """Vetoed, failed and skipped candidates, with equal reasons told together."""
    lines = printed(capsys, MEASURED).split("\n\n")[2].splitlines()
    assert lines == [
        "vetoed   openvino cpu bf16 2x1: answers stray from the reference: cosine distance 0.031, at most 0.01",
        "failed   openvino cpu int8 f16 2x1 and 1 like it: the process crashed: SIGSEGV",
        "skipped  1 without promise, or for want of time: inferd explain recogniser --json",
    ]


def test_a_long_reason_is_cut(capsys: pytest.CaptureFixture[str]) -> None:
    """An engine's page on why it refuses a model is for the JSON; its beginning is enough here."""
    failed = msgspec.structs.replace(EVIDENCE.trials[6], reason="no such operator; " * 50)
    out = printed(capsys, PlanState("measured", evidence=msgspec.structs.replace(EVIDENCE, trials=(failed,))))
    (line,) = [line for line in out.splitlines() if line.startswith("failed")]
    assert "no such operator; no such operator" in line
    assert line.endswith("... (--json has the rest)")
    assert len(line) < 300


def test_the_way_out_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    """How to overrule the choice and how to measure again; only objectives that are others."""
    advice = printed(capsys, MEASURED).split("\n\n")[3]
    assert 'engine = "onnxruntime"' in advice
    assert 'objective = "latency" or "throughput"' in advice
    assert "inferd plan recogniser" in advice


@pytest.mark.parametrize(
    ("objective", "second", "third"),
    [("latency", "1x2", "f32 2x1"), ("throughput", "f32 2x1", "1x2"), ("balanced", "f32 2x1", "1x2")],
)
def test_the_objective_sorts(objective: str, second: str, third: str) -> None:
    """The chosen one, then the others by the lone request where that is the objective, else by rows a second."""
    evidence = {**told(MEASURED, PLAN)["evidence"], "objective": objective}
    names = [trial["name"] for trial in ranked(evidence)]
    assert names[0] == str(CHOSEN)
    assert names[1].endswith(second)
    assert names[2].endswith(third)
    assert names[3:] == ["onnxruntime cpu f32 2x1", "onnxruntime cpu int8 2x1"]


def test_a_micro_model_is_told_in_microseconds(capsys: pytest.CaptureFixture[str]) -> None:
    """Where the choice takes less than a millisecond, thousandths of one would tell nothing apart."""
    trials = tuple(msgspec.structs.replace(trial, run_us=trial.run_us / 1000) for trial in EVIDENCE.trials)
    table = printed(capsys, PlanState("measured", evidence=msgspec.structs.replace(EVIDENCE, trials=trials)))
    assert "p50 us" in table
    assert " 8.2 " in table


def test_a_long_table_is_cut(capsys: pytest.CaptureFixture[str]) -> None:
    """Half a minute is enough: twelve lines, and where the others are."""
    many = msgspec.structs.replace(EVIDENCE, trials=EVIDENCE.trials[:5] * 4)
    out = printed(capsys, PlanState("measured", evidence=many))
    assert "and 8 more: inferd explain recogniser --json" in out
    assert len(out.split("\n\n")[1].splitlines()) == 15


def test_a_static_plan_is_explained_too(capsys: pytest.CaptureFixture[str]) -> None:
    """The rule's reason, how long a row takes, what was passed over, and how to have it measured."""
    out = printed(capsys, PlanState("static"), STATIC_PLAN)
    assert out.startswith("recogniser  version 3  not measured yet\n")
    assert "onnxruntime cpu int8: inline on the event loop, up to 16 rows together" in out
    assert "Static rule: onnxruntime on cpu, variant int8" in out
    assert "90 us" in out
    assert "not openvino cpu int8  a run of one row took 120 us" in out
    assert "inferd plan recogniser" in out
    assert "candidate " not in out


@pytest.mark.parametrize(
    ("state", "said"),
    [
        (PlanState("off"), 'planning.mode = "off"'),
        (PlanState("queued"), "waits to be measured"),
        (MEASURING, "being measured: 3 of 9 tried, now openvino cpu f32 2x1"),
    ],
)
def test_every_state_has_its_words(capsys: pytest.CaptureFixture[str], state: PlanState, said: str) -> None:
    """Off, queued, and how far a measuring is."""
    assert said in printed(capsys, state, STATIC_PLAN).splitlines()[0]


def test_a_second_shape_is_told_where_it_serves(capsys: pytest.CaptureFixture[str]) -> None:
    """Where the session for lone requests could not be opened again, nothing claims it."""
    assert "  when idle  " not in printed(capsys, MEASURED, replace(PLAN, idle=None))


def test_models_leaves_the_many_vetoes_to_explain() -> None:
    """Those of the static rule are few and shown; those of a measured plan are in `inferd explain`."""
    vetoes = STATIC_PLAN.vetoes
    shown = [describe(replace(plan, vetoes=vetoes)) for plan in (STATIC_PLAN, PLAN)]
    assert [[label for label, _ in lines if label.startswith("not ")] for lines in shown] == [
        ["not openvino cpu int8"], [],
    ]  # fmt: skip


def test_a_choice_that_does_not_serve_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    """Where the static rule serves although something was measured, both are named; a version may serve nowhere."""
    out = printed(capsys, MEASURED, STATIC_PLAN)
    assert "runs on                onnxruntime cpu int8: inline" in out
    assert "openvino cpu int8 f32 2x1 was the measured choice" in out
    assert "nothing: it does not serve now" in printed(capsys, MEASURED, None)


def test_nothing_that_works_is_shown_as_such(capsys: pytest.CaptureFixture[str]) -> None:
    """Evidence without one measured candidate has no table, only the reasons."""
    none = msgspec.structs.replace(EVIDENCE, trials=EVIDENCE.trials[5:], chosen="", idle="")
    out = printed(capsys, PlanState("measured", evidence=none), STATIC_PLAN)
    assert "p50" not in out
    assert "nothing was the measured choice" in out
    assert "SIGSEGV" in out


@pytest.mark.parametrize(
    ("seconds", "text"), [(-5, "0 s"), (59, "59 s"), (600, "10 min"), (7200, "2 h"), (400_000, "5 days")]
)
def test_spans_have_their_unit(seconds: float, text: str) -> None:
    """Two figures are enough; a clock that was set back is no riddle."""
    assert span(seconds) == text


def test_explain_asks_the_daemon(
    inferd: Run, served: Serving, where: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command over a real front end: text for people, all facts as JSON, exit code 5 for no such model."""
    planner = Planner(served.runtime, monkeypatch, MEASURED)
    assert "chosen     openvino cpu int8 f32 2x1" in inferd("explain", "mlp", *where).out
    found = json.loads(inferd("explain", "mlp", "--version", 1, "--json", *where).out)
    assert [trial["outcome"] for trial in found["evidence"]["trials"]].count("measured") == 5
    assert planner.asked[-1] == ("mlp", 1)
    assert inferd("explain", "nobody", *where).exit_code == 5


def test_plan_orders_follows_and_explains(
    inferd: Run, served: Serving, where: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The order arrives as given, the command ends when the measuring does, and shows what came of it."""
    monkeypatch.setattr(plan, "ASK_EVERY_S", 0)
    planner = Planner(served.runtime, monkeypatch, PlanState("static"), PlanState("queued"), MEASURING, MEASURED)
    done = inferd("plan", "mlp", "--budget", 60, "--thorough", *where)
    assert (done.exit_code, done.err) == (0, "")
    assert "chosen     openvino cpu int8 f32 2x1" in done.out
    assert planner.orders == [{"budget_s": 60.0, "thorough": True}]
    planner.orders.clear()
    planner.then = [MEASURING, PlanState("measured", evidence=msgspec.structs.replace(EVIDENCE, made_at_s=NOW_S))]
    found = json.loads(inferd("plan", "mlp", "--json", *where).out)
    assert found["evidence"]["made_at_s"] == NOW_S
    assert planner.orders == [{"budget_s": None, "thorough": False}]


def test_a_measuring_that_comes_to_nothing_is_a_failure(
    inferd: Run, served: Serving, where: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit code 1, with what is known all the same; the evidence of before is not taken for a new one."""
    monkeypatch.setattr(plan, "ASK_EVERY_S", 0)
    for before in (PlanState("static"), MEASURED):
        busy = msgspec.structs.replace(before, state="measuring")
        Planner(served.runtime, monkeypatch, before, busy, busy, before)
        done = inferd("plan", "mlp", *where)
        assert done.exit_code == 1
        assert "nothing came of the measuring" in done.err
        assert "runs on" in done.out
    assert inferd("plan", "nobody", *where).exit_code == 5


def test_ctrl_c_leaves_the_daemon_to_it(
    inferd: Run, served: Serving, where: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """130, and where the result will be."""

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(plan, "follow", interrupted)
    Planner(served.runtime, monkeypatch, PlanState("static"))
    done = inferd("plan", "mlp", *where)
    assert done.exit_code == 130
    assert "inferd explain mlp" in done.err


def test_progress_tells_share_and_candidate() -> None:
    """Each time it asks it tells how far things are, and it sleeps between."""
    answers = iter([told(PlanState("queued"), PLAN), told(MEASURING, PLAN), told(MEASURED, PLAN)])
    ticks: list[tuple[float, str]] = []
    slept: list[float] = []
    found = follow(lambda: next(answers), lambda *tick: ticks.append(tick), slept.append)
    assert found["state"] == "measured"
    assert ticks == [(0, ""), (3 / 9, MEASURING.now)]
    assert slept == [plan.ASK_EVERY_S] * 2
