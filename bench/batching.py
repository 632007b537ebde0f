"""What a batch size that adapts is worth beside fixed ones: `python -m bench.batching [--models mlp,encoder]`.

Closed loops of 1 to 64 callers ask a lane in this process, once with the size that adapts from the measured curve and
once with each fixed size, a cap that never changes. Rounds go through all of them in turn; a figure is the median of
its rounds. At every load the adaptive size is to reach 0.95 of the best fixed one, which is another at each load and
which nobody knows beforehand; and at one connection nothing may wait longer than with a batch size of one.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Sequence

from bench.lanes import Pace, Served, find_model, keep_asking
from inferd_runtime.job import Job
from inferd_runtime.scheduling.lane import Lane
from tests.models.fetch import cache_root

FIXED = (1, 2, 4, 8, 16, 32)
CALLERS = (1, 2, 4, 8, 16, 32, 64)
BOUND = 0.95
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


def measure(served: Served, callers: int, rounds: int, seconds: float) -> dict[int, Pace]:
    """Median figures by batch size; 0 is the one that adapts."""
    makers: dict[int, Callable[[Deliver], Lane]] = {0: lambda deliver: served.lane(deliver, FIXED[-1])}
    makers |= {rows: fixed(served, rows) for rows in FIXED}
    found: dict[int, list[Pace]] = {size: [] for size in makers}
    for turn in range(rounds):
        order = list(makers) if turn % 2 == 0 else list(makers)[::-1]
        for size in order:
            found[size].append(keep_asking(served, makers[size], callers, seconds))
    return {size: middle(paces) for size, paces in found.items()}


def middle(paces: Sequence[Pace]) -> Pace:
    return Pace(*(statistics.median(getattr(pace, name) for pace in paces) for name in Pace.__slots__))


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
    for count in callers:
        found = measure(served, count, rounds, seconds)
        best = max(found[rows].per_s for rows in FIXED)
        ratio = found[0].per_s / best
        rates = "".join(f"{found[rows].per_s:>10.0f}" for rows in FIXED)
        print(f"{count:>7}{found[0].per_s:>12.0f}{found[0].mean_rows:>6.1f}{rates}{ratio:>8.3f}", flush=True)
        checks.append(
            check(f"{served.model.name}, {count} callers: of the best fixed size", ratio, ratio >= BOUND, BOUND)
        )
        if count == 1:
            extra = found[0].wait_us - found[1].wait_us
            name = f"{served.model.name}, 1 caller: longer wait than with one row, us"
            checks.append(check(name, extra, extra <= WAIT_SLACK_US, WAIT_SLACK_US))
    return checks


def check(name: str, value: float, is_kept: bool, bound: float) -> str:
    return f"{'PASS' if is_kept else 'FAIL'}  {name:<58}{value:>9.3f}  bound {bound}"


def main() -> None:
    """Measure and print."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--models", default="mlp,encoder")
    arguments.add_argument("--engine", default="onnxruntime", choices=["onnxruntime", "openvino"])
    arguments.add_argument("--callers", default=",".join(map(str, CALLERS)))
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--seconds", type=float, default=0.5, help="of each closed loop")
    given = arguments.parse_args()
    checks = []
    for name in given.models.split(","):
        served = Served(find_model(name, cache_root()), given.engine)
        checks += report(served, [int(count) for count in given.callers.split(",")], given.rounds, given.seconds)
    print("\n" + "\n".join(checks))


if __name__ == "__main__":
    main()
