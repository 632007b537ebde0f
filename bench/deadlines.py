"""Twice as many requests as can be served, each with a deadline: `python -m bench.deadlines`.

An open loop (Poisson arrivals, whatever becomes of the answers) offers a lane in this process `--load` times what a
closed loop of many callers gets out of it. Refused at the door, a request costs its caller nothing but the answer "not
now"; what counts is that those accepted are in time, and that refusing leaves no capacity unused. Beside it the same
lane as a naive queue: it knows no deadlines, takes all and serves first come, first served.

Rounds interleave the three; shares and ratios are medians of rounds. Of those accepted 99 % are to meet their deadline,
and answers in time are to come at 0.9 of the capacity measured in the same round.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bench.batching import FIXED, check
from bench.lanes import ClosedLoop, Served, find_model
from inferd_runtime.errors import DeadlineExceeded, Overloaded
from inferd_runtime.job import Job
from tests.models.fetch import cache_root

CALLERS = 64
WARM_UP_S = 0.5
IN_TIME, GOODPUT = 0.99, 0.9
_DRAIN_S = 60.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one open loop, the warm-up left out. `in_time` is a share of those accepted."""

    offered_per_s: float
    accepted: float
    in_time: float
    goodput_per_s: float
    wasted: float


def offer(served: Served, per_s: float, deadline_s: float, seconds: float, seed: int, *, is_naive: bool) -> Outcome:
    """An open loop on a fresh lane. A naive lane is not told the deadlines."""
    answered: list[tuple[Job, int]] = []

    def deliver(jobs: Sequence[Job]) -> None:
        now = time.monotonic_ns()
        answered.extend([(job, now) for job in jobs])

    lane = served.lane(deliver, FIXED[-1])
    gaps = np.random.default_rng(seed).exponential(1.0 / per_s, int(per_s * (seconds + WARM_UP_S)))
    start = time.monotonic_ns()
    counts_from = start + int(WARM_UP_S * 1e9)
    due_ns = {}
    offered = 0
    for at in start + np.cumsum(gaps) * 1e9:
        now = time.monotonic_ns()
        if now < at:
            time.sleep((at - now) / 1e9)
        due = int(at + deadline_s * 1e9)
        job = served.job(None if is_naive else due)
        offered += at >= counts_from
        try:
            lane.submit(job)
        except (DeadlineExceeded, Overloaded):
            continue
        if at >= counts_from:
            due_ns[job] = due
    took_s = (time.monotonic_ns() - counts_from) / 1e9
    lane.drain(_DRAIN_S)
    lane.close()
    in_time = sum(job.error is None and now <= due_ns[job] for job, now in answered if job in due_ns)
    late = sum(now > due_ns[job] and job.ran_ns > 0 for job, now in answered if job in due_ns)
    return Outcome(offered / took_s, len(due_ns) / offered, in_time / len(due_ns), in_time / took_s, late / len(due_ns))


def measure(served: Served, given: argparse.Namespace, deadline_s: float) -> dict[str, Any]:
    """Medians over rounds for one deadline."""
    ratios, inferd, naive = [], [], []
    for turn in range(given.rounds):
        loop = ClosedLoop(served, lambda deliver: served.lane(deliver, FIXED[-1]))
        capacity = loop.run(CALLERS, given.seconds, WARM_UP_S).per_s
        loop.close()
        per_s = given.load * capacity
        inferd.append(offer(served, per_s, deadline_s, given.seconds, turn, is_naive=False))
        naive.append(offer(served, per_s, deadline_s, given.seconds, turn, is_naive=True))
        ratios.append((capacity, inferd[-1].goodput_per_s / capacity, naive[-1].goodput_per_s / capacity))
    capacity, goodput, naive_goodput = (statistics.median(column) for column in zip(*ratios, strict=True))
    return {
        "capacity": capacity,
        "goodput": goodput,
        "naive_goodput": naive_goodput,
        "accepted": statistics.median(one.accepted for one in inferd),
        "in_time": statistics.median(one.in_time for one in inferd),
        "worst_in_time": min(one.in_time for one in inferd),
        "naive_in_time": statistics.median(one.in_time for one in naive),
        "wasted": statistics.median(one.wasted for one in inferd),
        "naive_wasted": statistics.median(one.wasted for one in naive),
    }


def main() -> None:
    """Measure and print."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--model", default="encoder")
    arguments.add_argument("--engine", default="onnxruntime", choices=["onnxruntime", "openvino"])
    arguments.add_argument("--load", type=float, default=2.0, help="offered, in capacities")
    arguments.add_argument("--deadlines-ms", default="25,50,100,250")
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--seconds", type=float, default=3.0, help="of each loop")
    given = arguments.parse_args()
    served = Served(find_model(given.model, cache_root()), given.engine)
    curve = ", ".join(f"{rows}: {took:.0f}" for rows, took in served.curve)
    print(f"{given.model}, {served.streams} streams, microseconds a run by rows: {curve}")
    print(f"{given.load:g} times the capacity is offered; shares of those accepted, goodput in capacities\n")
    print(
        f"{'':>12}{'capacity':>10}{'accepted':>10}{'in time':>9}{'wasted':>8}{'goodput':>9}"
        f"{'naive queue: in time, wasted, goodput':>42}"
    )
    checks = []
    for deadline_ms in map(float, given.deadlines_ms.split(",")):
        found = measure(served, given, deadline_ms / 1000)
        print(
            f"{deadline_ms:>9g} ms{found['capacity']:>8.0f}/s{found['accepted']:>10.3f}{found['in_time']:>9.4f}"
            f"{found['wasted']:>8.4f}{found['goodput']:>9.3f}{'':>16}{found['naive_in_time']:>7.3f}"
            f"{found['naive_wasted']:>8.3f}{found['naive_goodput']:>9.3f}",
            flush=True,
        )
        name = f"{given.model}, {deadline_ms:g} ms"
        checks.append(check(f"{name}: accepted in time", found["in_time"], found["in_time"] >= IN_TIME, IN_TIME))
        checks.append(check(f"{name}: goodput of capacity", found["goodput"], found["goodput"] >= GOODPUT, GOODPUT))
    print("\n" + "\n".join(checks))


if __name__ == "__main__":
    main()
