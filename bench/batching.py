"""What a batch size that adapts is worth beside fixed ones: `python -m bench.batching [--models mlp,encoder]`.

Closed loops of 1 to 64 callers ask lanes in this process: one whose size adapts from the measured curve, and one for
each fixed size, a cap that never changes. Short rounds go through all of them in changing order. At every load the
adaptive size is to reach 0.95 of the best fixed one, which is another at each load and which nobody knows beforehand.
Of sizes that do the same the luckiest would look best, so the best is picked by the medians of every other round and
compared in those between, and the other way round; the ratio is the median of all these rounds' ratios. At one
connection nothing may wait longer than with a batch size of one.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Sequence

from bench.lanes import ClosedLoop, Pace, Served, find_model
from inferd_runtime.job import Job
from inferd_runtime.scheduling.lane import Lane
from tests.models.fetch import cache_root

FIXED = (1, 2, 4, 8, 16, 32)
CALLERS = (1, 2, 4, 8, 16, 32, 64)
BOUND = 0.95
WARM_UP_S = 0.03
# At one connection: medians of the same thing differ by so much between two runs on a busy machine.
WAIT_SLACK_US = 20.0
Deliver = Callable[[Sequence[Job]], None]


def fixed(served: Served, rows: int) -> Callable[[Deliver], Lane]:
    """Lanes whose batch size is `rows` for good."""

    def make(deliver: Deliver) -> Lane:
        lane = served.lane(deliver, rows)
        sizing = lane._sizing
        sizing.rows = rows
        sizing.ran = lambda *_: None  # type: ignore[method-assign]
        return lane

    return make


def measure(loops: dict[int, ClosedLoop], callers: int, rounds: int, seconds: float) -> dict[int, list[Pace]]:
    """Figures of each round by batch size; 0 is the one that adapts."""
    found: dict[int, list[Pace]] = {size: [] for size in loops}
    sizes = list(loops)
    for turn in range(rounds):
        at = turn * 3 % len(sizes)
        for size in sizes[at:] + sizes[:at]:
            found[size].append(loops[size].run(callers, seconds, WARM_UP_S))
    return found


def ratio_to_best(found: dict[int, list[Pace]]) -> float:
    """What the adaptive size reaches of the best fixed one, judged in rounds that had no part in picking that."""
    ratios: list[float] = []
    for picked, judged in ((0, 1), (1, 0)):
        rates = {rows: middle(found[rows][picked::2], "per_s") for rows in FIXED}
        best = max(FIXED, key=rates.__getitem__)
        pairs = zip(found[0][judged::2], found[best][judged::2], strict=True)
        ratios += [adaptive.per_s / fixed.per_s for adaptive, fixed in pairs]
    return statistics.median(ratios)


def middle(paces: Sequence[Pace], name: str) -> float:
    return float(statistics.median(getattr(pace, name) for pace in paces))


def report(served: Served, callers: Sequence[int], rounds: int, seconds: float) -> list[str]:
    """The table of one model; the checks it leads to."""
    curve = ", ".join(f"{rows}: {took:.0f}" for rows, took in served.curve)
    print(f"\n{served.model.name}, {served.streams} streams, microseconds a run by rows: {curve}")
    print(
        f"{'callers':>7}{'adaptive/s':>12}{'rows':>6}"
        + "".join(f"{f'fixed {rows}':>10}" for rows in FIXED)
        + f"{'ratio':>8}"
    )
    checks = []
    loops = {0: ClosedLoop(served, lambda deliver: served.lane(deliver, FIXED[-1]))}
    loops |= {rows: ClosedLoop(served, fixed(served, rows)) for rows in FIXED}
    for count in callers:
        found = measure(loops, count, rounds, seconds)
        rates = {size: middle(paces, "per_s") for size, paces in found.items()}
        ratio = ratio_to_best(found)
        cells = "".join(f"{rates[rows]:>10.0f}" for rows in FIXED)
        print(f"{count:>7}{rates[0]:>12.0f}{middle(found[0], 'mean_rows'):>6.1f}{cells}{ratio:>8.3f}", flush=True)
        name = f"{served.model.name}, {count} callers: of the best fixed size"
        checks.append(check(name, ratio, ratio >= BOUND, BOUND))
        if count == 1:
            extra = statistics.median(a.wait_us - b.wait_us for a, b in zip(found[0], found[1], strict=True))
            name = f"{served.model.name}, 1 caller: longer wait than with one row, us"
            checks.append(check(name, extra, extra <= WAIT_SLACK_US, WAIT_SLACK_US))
    for loop in loops.values():
        loop.close()
    return checks


def check(name: str, value: float, is_kept: bool, bound: float) -> str:
    return f"{'PASS' if is_kept else 'FAIL'}  {name:<58}{value:>9.3f}  bound {bound}"


def main() -> None:
    """Measure and print."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--models", default="mlp,encoder")
    arguments.add_argument("--engine", default="onnxruntime", choices=["onnxruntime", "openvino"])
    arguments.add_argument("--callers", default=",".join(map(str, CALLERS)))
    arguments.add_argument("--rounds", type=int, default=14)
    arguments.add_argument("--seconds", type=float, default=0.12, help="of each closed loop")
    given = arguments.parse_args()
    checks = []
    for name in given.models.split(","):
        served = Served(find_model(name, cache_root()), given.engine)
        checks += report(served, [int(count) for count in given.callers.split(",")], given.rounds, given.seconds)
    print("\n" + "\n".join(checks))


if __name__ == "__main__":
    main()
