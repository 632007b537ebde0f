"""What callers notice when a model moves to a measured plan: `python -m bench.swap [--model ppocr-recogniser]`.

One caller asks the daemon again and again over its TLS socket while the model is measured, opened anew and swapped. The
table has the latencies before, while trials run beside it, around the swap (from a second before the new plan is told
to a second after), and afterwards. No request may fail; the slowest one around the swap is told as a multiple of the
slowest before.
"""

from __future__ import annotations

import argparse
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bench import servers, subjects
from bench.batching import check
from inferd import Client
from inferd_agent import demo

BEFORE_S = 5.0
AROUND_S = 1.0
ASK_EVERY_S = 0.05
# The new session is compiled beside the traffic, on the same cores.
BOUND = 3.0


class Caller:
    """Asks until told to stop; `took` has (when it began, how long it took) of every request."""

    def __init__(self, url: str, model: str, inputs: Mapping[str, Any]) -> None:
        self.took: list[tuple[float, float]] = []
        self.failure = ""
        self._call = (url, model, inputs)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        url, model, inputs = self._call
        try:
            with Client(url) as client:
                while not self._stop.is_set():
                    begin = time.perf_counter()
                    client.infer(model, inputs)
                    self.took.append((begin, time.perf_counter() - begin))
        except Exception as error:  # told in the table, whatever it was
            self.failure = f"{type(error).__name__}: {error}"


def measure(model: str, budget_s: float) -> tuple[Caller, list[float]]:
    """The caller, and when it began to be measured, when the new plan was told, and when all ended."""
    with tempfile.TemporaryDirectory() as folder, servers.daemon(Path(folder), models_around(model)) as running:
        servers.wait_for(running.ca.exists, running.process)
        with Client(f"unix:{running.socket}", wait_s=60) as client:
            servers.wait_for(client.is_ready, running.process)
            inputs = {name: array[:1] for name, array in subjects.golden(model).items()}
            client.infer(model, inputs)
            caller = Caller(f"unix:{running.socket}", model, inputs)
            time.sleep(BEFORE_S)
            marks = [time.perf_counter()]
            before = client.descriptions(model)[0]["plan"]["reason"]
            client.measure(model, budget_s=budget_s)
            while client.descriptions(model)[0]["plan"]["reason"] == before and not caller.failure:
                time.sleep(ASK_EVERY_S)
            marks.append(time.perf_counter())
            time.sleep(BEFORE_S)
            caller.stop()
            return caller, [*marks, time.perf_counter()]


def models_around(model: str) -> Path:
    """The folder that the model lies in, with others."""
    from tests.models.fetch import cache_root, fetch

    return demo.MODELS if model == demo.MODEL else fetch(cache_root())


def main() -> None:
    """Measure and print."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--model", default="ppocr-recogniser")
    arguments.add_argument("--budget", type=float, default=8.0, help="seconds of measuring")
    given = arguments.parse_args()
    caller, (began, swapped, ended) = measure(given.model, given.budget)
    windows = {
        "before": (0.0, began),
        "while it is measured": (began, swapped - AROUND_S),
        "around the swap": (swapped - AROUND_S, swapped + AROUND_S),
        "afterwards": (swapped + AROUND_S, ended),
    }
    print(f"{given.model}, milliseconds of one caller's requests over the TLS socket\n")
    print(f"{'':22}{'requests':>9}{'p50':>8}{'p99':>8}{'slowest':>9}")
    slowest = {}
    for name, (since, until) in windows.items():
        took = np.array([took for begin, took in caller.took if since <= begin < until]) * 1e3
        slowest[name] = took.max(initial=0.0)
        p50, p99 = np.percentile(took, [50, 99]) if len(took) else (0.0, 0.0)
        print(f"{name:22}{len(took):>9}{p50:>8.1f}{p99:>8.1f}{slowest[name]:>9.1f}")
    ratio = slowest["around the swap"] / slowest["before"]
    print("\n" + check("requests that failed", float(bool(caller.failure)), not caller.failure, 0.0), caller.failure)
    print(check("slowest around the swap, of the slowest before", ratio, ratio <= BOUND, BOUND))


if __name__ == "__main__":
    main()
