"""Runs on a host of the test's network: calls the fleet as told line by line on stdin, and reports line by line.

In: `{"model", "calls", "at_once"}`, or `{"devices": n}` to wait until so many can be called. Out: a line when a tenth
of the calls is answered, so that whoever disturbs them knows that they run, then the report.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from inferd import Client, InferdError
from tests.onnx_models import mlp_reference

FEATURES = 64
TIMEOUT_S = 45.0


def say(**words: Any) -> None:
    """One line to the test."""
    print(json.dumps(words), flush=True)


def image(number: int) -> np.ndarray:
    """An input of its own for every call, so that an answer meant for another would be noticed."""
    return np.random.default_rng(number).normal(size=(1, FEATURES)).astype(np.float32)


class Caller:
    """Counts what comes of the calls."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self._number = 0

    def wait_for(self, devices: int) -> None:
        """Until so many can be called."""
        end = time.monotonic() + 100
        while len(self._client.devices()) != devices and time.monotonic() < end:
            time.sleep(0.01)
        say(devices=[device.name for device in self._client.devices()])

    def call(self, model: str, calls: int, at_once: int) -> None:
        """So many calls by so many threads, and the report."""
        outcomes: Counter[str] = Counter()
        slowest_s = 0.0
        lock = threading.Lock()
        begun_s = time.monotonic()

        def one(number: int) -> None:
            nonlocal slowest_s
            began_s = time.monotonic()
            outcome = self._outcome(model, number)
            with lock:
                outcomes[outcome] += 1
                slowest_s = max(slowest_s, time.monotonic() - began_s)
                if outcomes.total() == max(1, calls // 10):
                    say(running=True)

        with ThreadPoolExecutor(at_once) as threads:
            list(threads.map(one, range(self._number, self._number + calls)))
        self._number += calls
        say(outcomes=outcomes, slowest_s=round(slowest_s, 2), took_s=round(time.monotonic() - begun_s, 2))

    def _outcome(self, model: str, number: int) -> str:
        x = image(number) if model == "mlp" else np.full((1, 256), 0.1, np.float32)
        try:
            answer = self._client.infer(model, {"x": x}, timeout_s=TIMEOUT_S)
        except InferdError as error:
            return f"{type(error).__name__}: {error}"
        if model == "mlp":
            return "right" if np.allclose(answer["probabilities"], mlp_reference(x), atol=0.02) else "wrong"
        return "right" if answer["y"].shape == x.shape else "wrong"


def main() -> None:
    """Until stdin ends."""
    with Client.discover(wait_s=20.0) as client:
        caller = Caller(client)
        for line in sys.stdin:
            order = json.loads(line)
            if "devices" in order:
                caller.wait_for(order["devices"])
            else:
                caller.call(**order)


if __name__ == "__main__":
    main()
