"""Calls a gateway: `python -m tests.fleet.gateway_caller URL MODEL EXPECTED.npz CALLS CONCURRENCY`.

The token comes in the environment. EXPECTED has `inputs` and `outputs`, row by row. Goes on after CALLS until standard
input ends, then prints one JSON object: calls, failures, wrong answers, and the slowest call in seconds.
"""

from __future__ import annotations

import asyncio
import json
import sys
import threading
import time
from collections import Counter
from typing import Any

import numpy as np

from inferd import AsyncClient
from inferd.errors import InferdError

TIMEOUT_S = 30.0


class Caller:
    """So many calls at once, one after the other in each of so many lanes."""

    def __init__(self, model: str, expected: dict[str, np.ndarray], calls: int) -> None:
        self._model = model
        self._expected = expected
        self._calls = calls
        self._is_told_to_end = False
        self.done = 0
        self.wrong = 0
        self.slowest_s = 0.0
        self.failures: Counter[str] = Counter()
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        sys.stdin.read()
        self._is_told_to_end = True

    async def run(self, client: AsyncClient) -> None:
        """One lane."""
        while self.done < self._calls or not self._is_told_to_end:
            row = self.done % len(self._expected["inputs"])
            self.done += 1
            began_s = time.monotonic()
            try:
                result = await client.infer(self._model, {"x": self._expected["inputs"][row : row + 1]})
            except InferdError as error:
                self.failures[f"{type(error).__name__}: {error}"] += 1
                continue
            finally:
                self.slowest_s = max(self.slowest_s, time.monotonic() - began_s)
            (output,) = result.values()
            self.wrong += not np.allclose(output, self._expected["outputs"][row], atol=1e-4)

    def told(self) -> dict[str, Any]:
        """For the test."""
        return {
            "calls": self.done, "failures": dict(self.failures), "wrong": self.wrong, "slowest_s": self.slowest_s,
        }  # fmt: skip


async def main(url: str, model: str, expected: str, calls: str, concurrency: str) -> None:
    with np.load(expected) as file:
        caller = Caller(model, dict(file), int(calls))
    async with AsyncClient(url, timeout_s=TIMEOUT_S, max_connections=int(concurrency)) as client:
        await asyncio.gather(*(caller.run(client) for _ in range(int(concurrency))))
    print(json.dumps(caller.told()))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
