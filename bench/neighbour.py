"""Whether inferd lives well with others: `python -m bench.neighbour`, and with `--quota` in a control group.

A neighbour that needs one core (it compresses, and has a figure of its own) runs beside inferd under saturating load,
under each policy of the governor, and beside both engines threaded as their libraries do by themselves. Asked is how
much of its solo speed the neighbour keeps, and how much inferd makes of what is left. What is left: a daemon with a
fixed budget and its load generator have all cores but one for themselves, and the neighbour is stopped.

A shared machine changes its speed from second to second. So the neighbour's solo speed is taken right before and right
after each stretch under load, what is left right after it, and the tables show medians of rounds; beside the speed
stands the CPU time that the neighbour got. With --quota: in a control group that may use one core of CPU time, inferd
with its own choice of cores against every fixed one; that needs a writable cgroup.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import re
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from bench import servers
from bench.overhead import LINE, RECOGNISER, machine
from bench.workload import Diary, Neighbour

CONNECTIONS = 8
CORES = frozenset(os.sched_getaffinity(0))
LEFT = CORES - {min(CORES)}
ALONE_S = 1.0
# The load generator and its process end so long after it has counted the last answer.
END_S = 0.1
MODES = ("polite", "fair", "fixed")
# Each engine with as many callers as make it busy.
ENGINES = {"onnxruntime": ("onnxruntime", 1), "ov-latency": ("openvino", 1), "ov-throughput": ("openvino", 2)}
REACTIONS, STAY_S, AWAY_S = 5, 2.0, 2.5
CGROUP = Path("/sys/fs/cgroup")

Run = Callable[[float], float]


@contextlib.contextmanager
def on(cores: Collection[int]) -> Iterator[None]:
    """Processes that are started meanwhile stay on these cores."""
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, CORES)


@dataclass(frozen=True, slots=True)
class Stretch:
    """Some seconds beside a load, which got `per_s` done, with the time alone right before and after."""

    before_s: float
    start_s: float
    end_s: float
    after_s: float
    per_s: float
    left_per_s: float

    def kept(self, diary: Diary) -> tuple[float, float]:
        """(share of its solo speed, share of its solo CPU time) that the neighbour kept."""
        beside = diary.between(self.start_s, self.end_s)
        before = diary.between(self.before_s, self.before_s + ALONE_S)
        after = diary.between(self.after_s - ALONE_S, self.after_s)
        return 2 * beside[0] / (before[0] + after[0]), 2 * beside[1] / (before[1] + after[1])


def measure(run: Run, left: Run, neighbour: Neighbour, seconds: float) -> Stretch:
    """The neighbour alone, beside `run`, alone again; then, with it stopped, what is left."""
    before_s = time.monotonic()
    time.sleep(ALONE_S)
    per_s = run(seconds)
    end_s = time.monotonic() - END_S
    time.sleep(ALONE_S + 2 * END_S)
    after_s = time.monotonic()
    with neighbour.stopped():
        return Stretch(before_s, end_s - seconds, end_s, after_s, per_s, left(seconds))


class Daemons:
    """Real daemons that serve the recogniser, each with the load that saturates it."""

    def __init__(self, folder: Path, models: Path, stack: contextlib.ExitStack) -> None:
        self._folder = folder
        self._models = models
        self._stack = stack
        self._line = np.random.default_rng(1).uniform(-1, 1, LINE).astype(np.float32)

    def start(self, name: str, cores: Collection[int] = CORES, **settings: str) -> Run:
        """A daemon on these cores; what is given back runs load on it, from there too, and says requests a second."""
        with on(cores):
            settings["INFERD_LOG_LEVEL"] = "debug"
            running = self._stack.enter_context(servers.daemon(self._folder / name, self._models, **settings))
        request = self._folder / f"{name}.http"
        request.write_bytes(servers.infer_request(RECOGNISER, "x", self._line, running.token))
        log = self._folder / name / "log"
        servers.wait_for(lambda: "inferd is up" in log.read_text(), running.process)

        def run(seconds: float) -> float:
            with on(cores):
                return float(servers.generate(running.plain, None, request, CONNECTIONS, seconds)["per_s"])

        return run

    def budget_changes(self, name: str) -> list[tuple[float, int]]:
        """When the daemon's core budget became what, by the wall clock."""
        lines = (self._folder / name / "log").read_text().splitlines()
        changes = [(line, change) for line in lines if (change := re.search(r"core budget \d+ -> (\d+)", line))]
        return [(datetime.fromisoformat(json.loads(line)["time"]).timestamp(), int(to[1])) for line, to in changes]


def raw_engine(model: Path, engine: str, callers: int) -> Run:
    """An engine in a process of its own, with as many threads as its library wants."""

    def run(seconds: float) -> float:
        command = [sys.executable, "-m", "bench.engine", "--model", str(model), "--engine", engine]
        command += ["--streams", str(callers), "--threads", "0", "--seconds", str(seconds)]
        return float(servers.output_of(command)["per_s"])

    return run


# Beside others


def beside_others(
    folder: Path, models: Path, rounds: int, seconds: float, *, wanted: Collection[str], is_apart: bool
) -> dict[str, Any]:
    """The wanted policies of the governor and engines by themselves, beside the neighbour and against what is left."""
    model = models / RECOGNISER / "1" / "model.int8.onnx"
    with contextlib.ExitStack() as stack:
        daemons = Daemons(folder, models, stack)
        left = daemons.start("left", LEFT, INFERD_RUNTIME_GOVERNOR="fixed", INFERD_RUNTIME_CORES=str(len(LEFT)))
        runs = {mode: daemons.start(mode, INFERD_RUNTIME_GOVERNOR=mode) for mode in MODES if mode in wanted}
        runs |= {name: raw_engine(model, *how) for name, how in ENGINES.items() if name in wanted}
        with Neighbour(is_apart=is_apart) as neighbour:
            found: dict[str, list[Stretch]] = {name: [] for name in runs}
            for _ in range(rounds):
                for name, run in runs.items():
                    found[name].append(measure(run, left, neighbour, seconds))
            moves = come_and_go(runs["polite"], neighbour) if "polite" in runs else []
        changes = daemons.budget_changes("polite") if moves else []
    return {
        "loads": {name: summary(neighbour.diary, stretches) for name, stretches in found.items()},
        "reaction": reaction(moves, changes),
    }


def summary(diary: Diary, stretches: list[Stretch]) -> dict[str, float]:
    """Medians over the rounds."""
    kept = [stretch.kept(diary) for stretch in stretches]
    return {
        "neighbour_speed": round(statistics.median(speed for speed, _ in kept), 3),
        "neighbour_cpu": round(statistics.median(cpu for _, cpu in kept), 3),
        "per_s": round(statistics.median(stretch.per_s for stretch in stretches), 1),
        "left_per_s": round(statistics.median(stretch.left_per_s for stretch in stretches), 1),
        "of_what_is_left": round(statistics.median(stretch.per_s / stretch.left_per_s for stretch in stretches), 3),
    }


def come_and_go(run: Run, neighbour: Neighbour) -> list[tuple[float, float]]:
    """Under load all the time; when the neighbour came and went, by the wall clock."""
    moves = []
    with neighbour.stopped():
        load = threading.Thread(target=run, args=(REACTIONS * (STAY_S + AWAY_S) + AWAY_S,))
        load.start()
        time.sleep(AWAY_S)
    for _ in range(REACTIONS):
        came_s = time.time()
        time.sleep(STAY_S)
        with neighbour.stopped():
            moves.append((came_s, time.time()))
            time.sleep(AWAY_S)
    load.join()
    return moves


def reaction(moves: list[tuple[float, float]], changes: list[tuple[float, int]]) -> dict[str, list[float | None]]:
    """Seconds until the budget was smaller after the neighbour came, and whole again after it went."""

    def first(after_s: float, until_s: float, is_wanted: Callable[[int], bool]) -> float | None:
        times = [at_s - after_s for at_s, size in changes if after_s < at_s < until_s and is_wanted(size)]
        return round(times[0], 2) if times else None

    return {
        "gives_s": [first(came, went, lambda size: size < len(CORES)) for came, went in moves],
        "takes_s": [first(went, went + AWAY_S, lambda size: size == len(CORES)) for _, went in moves],
    }


# In a control group


class Group:
    """A control group that may use one core of CPU time, whatever cores its processes run on."""

    def __init__(self) -> None:
        is_v2 = (CGROUP / "cgroup.controllers").exists()
        self._parent = CGROUP if is_v2 else CGROUP / "cpu"
        self._group = self._parent / "inferd-bench"
        self._group.mkdir()
        limit, value = ("cpu.max", "100000 100000") if is_v2 else ("cpu.cfs_quota_us", "100000")
        (self._group / limit).write_text(value)

    @contextlib.contextmanager
    def inside(self) -> Iterator[None]:
        """Processes that are started meanwhile belong to it."""
        me = str(os.getpid())
        (self._group / "cgroup.procs").write_text(me)
        try:
            yield
        finally:
            (self._parent / "cgroup.procs").write_text(me)

    def remove(self) -> None:
        """Once its processes have ended."""
        self._group.rmdir()


def within_quota(folder: Path, models: Path, rounds: int, seconds: float) -> dict[str, float]:
    """Requests a second with the daemon's own choice of cores and with every fixed one, in turns."""
    settings: dict[str, dict[str, str]] = {"its own choice": {}}
    for count in range(1, len(CORES) + 1):
        fixed = {"INFERD_RUNTIME_GOVERNOR": "fixed", "INFERD_RUNTIME_CORES": str(count)}
        settings[f"fixed, cores = {count}"] = fixed
    with contextlib.ExitStack() as stack:
        group = Group()
        stack.callback(group.remove)
        daemons = Daemons(folder, models, stack)
        with group.inside():
            runs = {name: daemons.start(f"q{i}", **each) for i, (name, each) in enumerate(settings.items())}
        rates: dict[str, list[float]] = {name: [] for name in runs}
        for _ in range(rounds):
            for name, run in runs.items():
                rates[name].append(run(seconds))
    return {name: round(statistics.median(found), 1) for name, found in rates.items()}


# What came of it


def checks(found: Mapping[str, Any]) -> list[tuple[str, float, str, float]]:
    """What is measured, its value, and the bound it must keep."""
    if "quota" in found:
        rates = found["quota"]
        best = max(rate for name, rate in rates.items() if name.startswith("fixed"))
        return [("its own choice of the best fixed", rates["its own choice"] / best, ">=", 0.95)]
    polite = found["loads"].get("polite")
    if polite is None:
        return []
    return [
        ("speed that the neighbour keeps, polite", polite["neighbour_speed"], ">=", 0.95),
        ("CPU time that the neighbour keeps, polite", polite["neighbour_cpu"], ">=", 0.95),
        ("inferd of what is left, polite", polite["of_what_is_left"], ">=", 0.9),
        ("seconds until cores are given", middle(found["reaction"]["gives_s"]), "<=", 0.75),
        ("seconds until cores are back", middle(found["reaction"]["takes_s"]), "<=", 1.5),
    ]


def middle(times: list[float | None]) -> float:
    """The median, where one that never came took without end."""
    return statistics.median(math.inf if each is None else each for each in times)


def report(found: Mapping[str, Any]) -> None:
    """The tables."""
    for name, rate in found.get("quota", {}).items():
        print(f"{name:<26}{rate:>8.1f} requests/s")
    if "loads" in found:
        print(f"{'beside':<26}{'speed kept':>11}{'CPU kept':>10}{'load, /s':>10}{'left, /s':>10}{'of it':>7}")
        for name, row in found["loads"].items():
            print(
                f"{name:<26}{row['neighbour_speed']:>11.2f}{row['neighbour_cpu']:>10.2f}{row['per_s']:>10.1f}"
                f"{row['left_per_s']:>10.1f}{row['of_what_is_left']:>7.2f}"
            )
        print(f"gives cores after {found['reaction']['gives_s']} s, takes them after {found['reaction']['takes_s']} s")
    for name, value, sign, bound in checks(found):
        is_kept = value >= bound if sign == ">=" else value <= bound
        print(f"{'PASS' if is_kept else 'FAIL'}  {name:<48}{value:>9.3f}  {sign} {bound}")


def main() -> None:
    """Measure and print; with --json a file for the figures."""
    from tests.models.fetch import cache_root, fetch

    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--seconds", type=float, default=2.0, help="of each stretch under load")
    arguments.add_argument("--only", nargs="+", choices=[*MODES, *ENGINES], default=[*MODES, *ENGINES])
    arguments.add_argument(
        "--apart", action="store_true", help="the neighbour in a session, so an autogroup, of its own"
    )
    arguments.add_argument("--quota", action="store_true", help="in a control group instead of beside a neighbour")
    arguments.add_argument("--json", type=Path, help="where to keep the figures")
    given = arguments.parse_args()
    if len(CORES) < 2:
        sys.exit("a neighbour needs a core beside ours; there is only one")
    with tempfile.TemporaryDirectory(prefix="inferd-bench-") as name:
        folder = Path(name)
        models = servers.only(fetch(cache_root()), (RECOGNISER,), folder / "models")
        found: dict[str, Any] = {"machine": machine(), "rounds": given.rounds, "seconds": given.seconds}
        if given.quota:
            found["quota"] = within_quota(folder, models, given.rounds, given.seconds)
        else:
            found |= beside_others(folder, models, given.rounds, given.seconds, wanted=given.only, is_apart=given.apart)
    report(found)
    if given.json:
        given.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
