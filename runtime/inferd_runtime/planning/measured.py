"""The measured plan: `measure_plan` finds and keeps it, `plan_from` opens it.

Measuring happens beside a version that serves already; opening happens whenever one is loaded whose evidence is known.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from inferd_runtime.errors import InvalidModel, LoadFailed, ModelNotReady
from inferd_runtime.planning.candidates import list_candidates
from inferd_runtime.planning.choose import choose
from inferd_runtime.planning.evidence import Evidence, Trial
from inferd_runtime.planning.kind import Kind
from inferd_runtime.planning.plan import Ground, Planned, Wishes
from inferd_runtime.planning.search import Progress, Search, Trier
from inferd_runtime.planning.static import plan_version
from inferd_runtime.planning.store import PlanStore, plan_key
from inferd_runtime.spec import ModelSpec, Plan, Shape, Veto


def measure_plan(
    ground: Ground,
    variants: Mapping[str, Path],
    wishes: Wishes,
    *,
    spec: ModelSpec,
    kind: Kind,
    file_bytes: int,
    digest: str,
    trier: Trier,
    store: PlanStore,
    budget_s: float,
    thorough: bool = False,
    spare_bytes: int | None = None,
    progress: Progress = lambda done, total, now: None,
    should_stop: Callable[[], bool] = lambda: False,
    is_unchanged: Callable[[], bool] = lambda: True,
    clock: Callable[[], float] = time.monotonic,
    now_s: Callable[[], float] = time.time,
) -> Evidence:
    """Measure for about `budget_s`, choose, and keep the evidence. Blocks; closes `trier`.

    `spec` and `digest` are those of the version that serves. `spare_bytes` bounds what two sessions may take together.
    `is_unchanged` tells whether the files are still those that `digest` stands for. Raises ModelNotReady where they are
    not, Closed when `should_stop` said so, InvalidModel where the wishes cannot be.
    """
    objective = wishes.objective or ground.objective
    begin_s = clock()
    try:
        candidates, vetoed = list_candidates(ground, variants, wishes, spec=spec, kind=kind, file_bytes=file_bytes)
        trials = Search(
            candidates,
            trier,
            objective=objective,
            budget_s=budget_s,
            thorough=thorough,
            progress=progress,
            should_stop=should_stop,
            clock=clock,
        ).run()
        reference, inputs = trier.reference, trier.inputs
    finally:
        trier.close()
    if not is_unchanged():
        raise ModelNotReady("its files changed while it was measured")
    choice = choose(trials, objective, spare_bytes=spare_bytes)
    evidence = Evidence(
        key=plan_key(ground, wishes, digest),
        objective=objective,
        reference=reference,
        inputs=inputs,
        trials=(*trials, *vetoed),
        chosen=_named(choice.chosen),
        idle=_named(choice.idle),
        reason=choice.reason,
        budget_s=budget_s,
        took_s=round(clock() - begin_s, 1),
        made_at_s=now_s(),
    )
    store.save(evidence)
    return evidence


def plan_from(evidence: Evidence, ground: Ground, variants: Mapping[str, Path], wishes: Wishes) -> Planned:
    """Open and warm what was chosen. The static rule's plan where nothing was; and where it cannot be opened any more,
    with a veto that says so. Raises what `plan_version` raises."""
    chosen = _find(evidence, evidence.chosen)
    if chosen is None:
        return plan_version(ground, variants, wishes)
    try:
        planned = plan_version(ground, variants, _pinned(wishes, chosen))
    except (LoadFailed, InvalidModel) as error:
        safe = plan_version(ground, variants, wishes)
        veto = Veto(f"measured: {chosen.candidate}", str(error))
        return replace(safe, plan=replace(safe.plan, vetoes=(veto, *safe.plan.vetoes)))
    vetoes = list(_vetoes(evidence))
    idle = _find(evidence, evidence.idle)
    beside: Planned | None = None
    try:
        if idle is not None:
            beside = plan_version(ground, variants, _pinned(wishes, idle))
    except (LoadFailed, InvalidModel) as error:
        vetoes.append(Veto(f"idle: {evidence.idle}", str(error)))
    except BaseException:
        planned.session.close()
        raise
    plan = replace(
        planned.plan,
        run_us=round(chosen.run_us, 1),
        reason=f"{evidence.reason} {_gathering(planned.plan)}",
        vetoes=tuple(vetoes),
        idle=_shape(idle) if idle is not None and beside is not None else None,
        curve=chosen.curve,
    )
    return replace(planned, plan=plan, idle_session=beside.session if beside is not None else None)


def _named(trial: Trial | None) -> str:
    return "" if trial is None else str(trial.candidate)


def _find(evidence: Evidence, name: str) -> Trial | None:
    return next((trial for trial in evidence.trials if str(trial.candidate) == name), None)


def _pinned(wishes: Wishes, trial: Trial) -> Wishes:
    """Wishes that leave the static rule exactly this candidate."""
    candidate = trial.candidate
    return replace(
        wishes,
        variant=candidate.variant,
        engine=candidate.engine,
        device=candidate.device,
        precision=candidate.precision,
        streams=candidate.streams,
        threads=candidate.threads,
        rows=candidate.rows,
        batch=wishes.batch or trial.best_batch,
        inline="on" if candidate.inline else "off",
    )


def _shape(trial: Trial) -> Shape:
    candidate = trial.candidate
    return Shape(candidate.streams, candidate.threads, trial.best_batch, candidate.rows, round(trial.run_us, 1))


def _gathering(plan: Plan) -> str:
    if plan.batch == 0:
        return "Requests run one by one."
    return "Requests run side by side, not together." if plan.batch == 1 else f"Up to {plan.batch} rows run together."


def _vetoes(evidence: Evidence) -> Iterator[Veto]:
    for trial in evidence.trials:
        if trial.outcome in ("vetoed", "failed"):
            yield Veto(str(trial.candidate), trial.reason)
