"""What measured plans are worth: `python -m bench.planning [--models digits,mlp]`, from the repository's folder.

Each model is planned for latency, for throughput and balanced, in the time that a daemon takes. An exhaustive search
then measures every candidate, and beside them what a static rule would do. The figures that count come from a final:
what was planned, the best of the exhaustive search and the best that each rule could do run in turns, and a choice is
judged by the ratio of its median to the best. Everything runs in engine hosts on worker threads: what running on the
submitting thread saves is no engine's time, so it cannot be seen here. A planned choice may be 5 % off: PASS or FAIL is
printed, the exit code is 0 either way. Results go to bench/results/, models of other runs stay there.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import re
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from bench.overhead import RESULTS, machine
from bench.rivals import ORT_DEFAULTS, OV_LATENCY, OV_THROUGHPUT, RIVALS, start
from bench.subjects import MODELS, Subject, subject
from inferd_runtime.engines import SessionOptions
from inferd_runtime.engines.discover import open_engines
from inferd_runtime.planning.candidates import list_candidates
from inferd_runtime.planning.evidence import Candidate, Evidence, Trial
from inferd_runtime.planning.hosts import Hosts, NamedSession
from inferd_runtime.planning.kind import model_kind
from inferd_runtime.planning.measured import measure_plan
from inferd_runtime.planning.plan import BALANCED, LATENCY, OBJECTIVES, THROUGHPUT, Ground
from inferd_runtime.planning.reference import find_reference
from inferd_runtime.planning.speed import Speed
from inferd_runtime.planning.store import PlanStore
from inferd_runtime.planning.trial import HostTrier
from inferd_runtime.probe import probe
from inferd_runtime.repository.examine import operators

BOUND = 1.05
# Who was within this of the best is measured again by the exhaustive search, and so many of them are in the final.
NEAR, BEST = 1.5, 3
PATIENCE_S = 60.0
# Of one turn in the final: short ones, so that what slows the machine down for some seconds meets all alike.
ALONE_S, BUSY_S = 0.15, 0.3
PLANNED, ALWAYS_OPENVINO, ALWAYS_INT8 = "planned", "always OpenVINO", "always INT8"
RULES = {
    ALWAYS_OPENVINO: ALWAYS_OPENVINO,
    ALWAYS_INT8: ALWAYS_INT8,
    ORT_DEFAULTS: "ONNX Runtime, defaults",
    OV_LATENCY: "OpenVINO, LATENCY",
    OV_THROUGHPUT: "OpenVINO, THROUGHPUT",
}


@dataclasses.dataclass(frozen=True, slots=True)
class Entry:
    """A way to run the model, and with how many rows a run it is kept busy; 0 where lone rows are what counts."""

    candidate: Candidate
    batch: int = 0

    def __str__(self) -> str:
        return f"{self.candidate}, {self.batch} rows" if self.batch > 1 else str(self.candidate)


def lone_us(trial: Trial) -> float:
    return trial.run_us


def row_us(trial: Trial) -> float:
    return 1e6 / max(trial.rows_per_s, 1e-6)


COSTS: Mapping[str, Callable[[Trial], float]] = {LATENCY: lone_us, THROUGHPUT: row_us}


# Planning, as a daemon does it, and everything else


def plan(model: Subject, objective: str, budget_s: float, store: PlanStore) -> Evidence:
    return measure_plan(
        model.ground,
        model.variants,
        dataclasses.replace(model.wishes, objective=objective),
        spec=model.spec,
        kind=model_kind(operators(next(iter(model.variants.values())))),
        file_bytes=max(path.stat().st_size for path in model.variants.values()),
        digest=model.name,
        trier=HostTrier(model.ground, model.variants, model.spec, model.wishes, folder=model.folder),
        store=store,
        budget_s=budget_s,
    )


def search_all(model: Subject, seconds: float) -> list[Trial]:
    """Every candidate and every rival: once, and once more in reverse where one is near the best. Noise only ever makes
    slower, so the better figure stands."""
    file_bytes = max(path.stat().st_size for path in model.variants.values())
    candidates, _ = list_candidates(
        model.ground, model.variants, model.wishes, spec=model.spec, kind="other", file_bytes=file_bytes
    )
    cores = model.ground.cores
    rivals = [Candidate(name, "cpu", variant, "auto", cores, 0) for name in RIVALS for variant in model.variants]
    trier = HostTrier(model.ground, model.variants, model.spec, model.wishes, folder=model.folder, start=start)
    with closing(trier):
        first = [trier.try_out(candidate, seconds=seconds, is_first=True) for candidate in (*candidates, *rivals)]
        found = {trial.candidate: [trial] for trial in first}
        near = {trial.candidate for cost in COSTS.values() for trial in ranked(first, cost, NEAR)}
        for candidate in [candidate for candidate in reversed(found) if candidate in near]:
            found[candidate].append(trier.try_out(candidate, seconds=seconds, is_first=False))
    return [better(trials) for trials in found.values()]


def ranked(trials: Iterable[Trial], cost: Callable[[Trial], float], near: float = float("inf")) -> list[Trial]:
    """Best first, those within `near` of the best."""
    order = sorted((trial for trial in trials if trial.outcome == "measured"), key=cost)
    return [trial for trial in order if cost(trial) <= near * cost(order[0])]


def better(trials: Sequence[Trial]) -> Trial:
    if trials[-1].outcome != "measured":
        return trials[-1]
    run_us, rows_per_s = min(map(lone_us, trials)), max(trial.rows_per_s for trial in trials)
    return replace(trials[0], run_us=run_us, rows_per_s=rows_per_s, rounds=len(trials))


# The final


def contenders(objective: str, plans: Mapping[str, Evidence], trials: Sequence[Trial]) -> dict[str, Entry]:
    """Who is in the final, by what stands for; the best that each static rule could do, where it could do anything."""
    cost = COSTS[objective]
    own = ranked((trial for trial in trials if trial.candidate.engine not in RIVALS), cost)
    found = {PLANNED: chosen(plans[objective], is_lone=False)}
    found[BALANCED] = chosen(plans[BALANCED], is_lone=objective == LATENCY)
    found |= {f"exhaustive {place + 1}": trial for place, trial in enumerate(own[:BEST])}
    groups = {
        ALWAYS_OPENVINO: [trial for trial in own if trial.candidate.engine == "openvino"],
        ALWAYS_INT8: [trial for trial in own if trial.candidate.variant == "int8"],
    }
    groups |= {name: ranked((t for t in trials if t.candidate.engine == name), cost) for name in RIVALS}
    found |= {rule: group[0] for rule, group in groups.items() if group}
    return {
        role: Entry(trial.candidate, trial.best_batch if objective == THROUGHPUT else 0)
        for role, trial in found.items()
    }


def chosen(evidence: Evidence, *, is_lone: bool) -> Trial:
    name = evidence.idle if is_lone and evidence.idle else evidence.chosen
    return next(trial for trial in evidence.trials if str(trial.candidate) == name)


def play(model: Subject, groups: Mapping[str, Mapping[str, Entry]], rounds: int) -> dict[str, dict[Entry, list[float]]]:
    """The cost of every entry by objective, in microseconds, round by round."""
    costs: dict[str, dict[Entry, list[float]]] = {
        objective: {entry: [] for entry in dict.fromkeys(group.values())} for objective, group in groups.items()
    }
    with closing(Hosts(start, PATIENCE_S)) as hosts:
        given = model.spec, model.folder, time.monotonic
        samples = find_reference(hosts, model.ground, model.variants, *given).samples
        sessions = {
            candidate: opened(hosts, model, candidate)
            for candidate in dict.fromkeys(entry.candidate for found in costs.values() for entry in found)
        }
        for number in range(rounds):
            for objective, found in costs.items():
                for entry in list(found)[:: -1 if number % 2 else 1]:
                    session = sessions[entry.candidate]
                    speed = Speed(session, entry.candidate, samples, model.spec.max_batch, 0, time.monotonic)
                    found[entry].append(measured(speed, objective, entry.batch))
    return costs


def opened(hosts: Hosts, model: Subject, candidate: Candidate) -> NamedSession:
    options = SessionOptions(
        candidate.device, candidate.streams, candidate.threads, candidate.precision, None, candidate.rows
    )
    return hosts.open(candidate.engine, model.variants[candidate.variant], options, model.spec)


def measured(speed: Speed, objective: str, batch: int) -> float:
    return speed.alone(ALONE_S).p50_us if objective == LATENCY else 1e6 / speed.saturated(batch, BUSY_S)


def judged(group: Mapping[str, Entry], costs: Mapping[Entry, Sequence[float]]) -> dict[str, dict[str, Any]]:
    """How many times as slow as the best of our own each is. A library may do better in ways that we do not allow: ONNX
    Runtime's threads spin while they wait."""
    usual = {entry: statistics.median(rounds) for entry, rounds in costs.items()}
    best = min(us for entry, us in usual.items() if entry.candidate.engine not in RIVALS)
    return {
        role: {
            "way": str(entry),
            "us": round(usual[entry], 2),
            "times": round(usual[entry] / best, 3),
            "spread": round(spread(costs[entry]), 2),
            "rounds": " ".join(f"{us:.4g}" for us in costs[entry]),
        }
        for role, entry in group.items()
    }


def spread(rounds: Sequence[float]) -> float:
    """How many times as slow as its better quarter the worse one is: noise, for the most part."""
    better, _, worse = statistics.quantiles(rounds, n=4)
    return worse / better


def bench(name: str, folder: Path, budget_s: float, seconds: float, rounds: int) -> dict[str, Any]:
    """All that is found about one model."""
    engines, missing = open_engines()
    here = probe()
    cores = max(1, min(here.usable_cores, here.allowed_physical))
    ground = Ground(engines, cores, missing, inline="off")
    model = subject(name, folder / name, ground)
    store = PlanStore(folder / "plans")
    plans = {objective: plan(model, objective, budget_s, store) for objective in OBJECTIVES}
    begin_s = time.monotonic()
    trials = search_all(model, seconds)
    searched_s = time.monotonic() - begin_s
    groups = {objective: contenders(objective, plans, trials) for objective in COSTS}
    costs = play(model, groups, rounds)
    outcomes = [trial.outcome for trial in trials]
    return {
        "variants": sorted(model.variants),
        "candidates": {outcome: outcomes.count(outcome) for outcome in sorted(set(outcomes))},
        "searched_s": round(searched_s, 1),
        "planned": {objective: told(evidence) for objective, evidence in plans.items()},
        "final": {objective: judged(groups[objective], costs[objective]) for objective in groups},
        "exhaustive": figures(trials),
        "left_out": left_out(trials),
    }


def told(evidence: Evidence) -> dict[str, Any]:
    """How a plan came about."""
    kept = {"chosen": evidence.chosen, "idle": evidence.idle, "took_s": evidence.took_s}
    return kept | {"trials": figures(evidence.trials)}


def figures(trials: Iterable[Trial]) -> dict[str, str]:
    """One line a candidate, for whoever wonders about a choice."""
    return {
        str(t.candidate): f"{t.run_us:.1f} us, {t.rows_per_s:.1f} rows/s" for t in trials if t.outcome == "measured"
    }


# What a reader sees


def report(name: str, found: Mapping[str, Any]) -> None:
    """One model's final."""
    print(f"\n{name}: {found['candidates']}, all of them in {found['searched_s']} s")
    for objective, group in found["final"].items():
        for role, row in group.items():
            shown = f"{row['us']:>12.2f} us{row['times']:>8.2f}{row['spread']:>8.2f}"
            print(f"  {objective:<11}{role:<17}{row['way']:<52}{shown}")
        times = group[PLANNED]["times"]
        print(f"{'PASS' if times <= BOUND else 'FAIL'}  {name}, planned for {objective}: {times:.3f} of the best")


def left_out(trials: Iterable[Trial]) -> dict[str, str]:
    """Who could not be measured, by the reason."""
    found: dict[str, list[str]] = {}
    for trial in trials:
        if trial.reason:
            found.setdefault(trial.reason, []).append(str(trial.candidate))
    return {reason: "; ".join(ways) for reason, ways in found.items()}


def table(found: Mapping[str, Any]) -> None:
    """All models that were ever measured here, ready for a page."""
    for objective in COSTS:
        print(f"\n| {objective} | planned | us a row | of the best | balanced | {' | '.join(RULES.values())} |")
        print("|---" * (5 + len(RULES)) + "|")
        for name, model in found["models"].items():
            group = model["final"][objective]
            way, us = group[PLANNED]["way"].replace(" cpu", ""), group[PLANNED]["us"]
            cells = [
                f"{group[role]['times']:.2f}" if role in group else absent(model, role)
                for role in (PLANNED, BALANCED, *RULES)
            ]
            print(f"| {name} | {way} | {us:.1f} | {' | '.join(cells)} |")


def absent(model: Mapping[str, Any], rule: str) -> str:
    """Why there is no figure for a rule."""
    mark = {ALWAYS_OPENVINO: "openvino ", ALWAYS_INT8: " int8 "}.get(rule, rule)
    reasons = [reason for reason, ways in model["left_out"].items() if mark in ways]
    if not reasons:
        return "none"
    return "strays" if any("strays" in reason for reason in reasons) else "refuses"


def keep(found: dict[str, Any], about: Mapping[str, Any]) -> dict[str, Any]:
    """Into one file a kind of machine; a later run replaces the models that it measured."""
    facts = machine()
    name = re.sub(r"[^a-z0-9]+", "-", f"{facts['cpu']} {facts['cores']} cores".lower()).strip("-")
    path = RESULTS / f"{name}-plans.json"
    kept = json.loads(path.read_text())["models"] if path.exists() else {}
    kept |= {model: {**about, **figures} for model, figures in found.items()}
    whole = {"machine": facts, "models": {model: kept[model] for model in MODELS if model in kept}}
    RESULTS.mkdir(exist_ok=True)
    path.write_text(json.dumps(whole, indent=2) + "\n")
    print(f"\nkept in bench/results/{path.name}")
    return whole


def main() -> None:
    """Measure, print, keep."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--models", default=",".join(MODELS), help="some of them, with commas between")
    arguments.add_argument("--budget", type=float, default=20.0, help="seconds for each plan")
    arguments.add_argument("--seconds", type=float, default=0.6, help="of each trial of the exhaustive search")
    arguments.add_argument("--rounds", type=int, default=15, help="of the final")
    arguments.add_argument("--quick", action="store_true", help="plans in 5 s, a short search and final; keeps nothing")
    given = arguments.parse_args()
    names = given.models.split(",")
    if not set(names) <= set(MODELS):
        arguments.error(f"models are {', '.join(MODELS)}")
    budget_s, seconds, rounds = (5.0, 0.2, 3) if given.quick else (given.budget, given.seconds, given.rounds)
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="inferd-bench-") as folder:
        for name in names:
            found[name] = bench(name, Path(folder), budget_s, seconds, rounds)
            report(name, found[name])
    table({"models": found} if given.quick else keep(found, {"budget_s": budget_s, "rounds": rounds}))


if __name__ == "__main__":
    main()
