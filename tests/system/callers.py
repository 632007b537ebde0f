"""Runs in the container, on inferd's own Python: callers who connect, ask one thing, check the answer, and begin again.

Ends when its standard input does, and prints how many answers came, the longest wait, and every error.
"""

from __future__ import annotations

import json
import sys
import threading
import time

from inferd import Client
from inferd_agent.demo.digits import INPUT, MODEL, OUTPUT, held_out

CALLERS = 4
TIMEOUT_S = 60.0


def main() -> None:
    """Call until nobody wants it any more."""
    digits = held_out()
    inputs, labels = digits.inputs()[:8], digits.labels[:8]
    stop, calling = threading.Event(), threading.Event()
    waits_s: list[float] = []
    errors: list[str] = []

    def call() -> None:
        while not stop.is_set():
            began_s = time.monotonic()
            try:
                with Client(timeout_s=TIMEOUT_S) as client:
                    answer = client.infer(MODEL, {INPUT: inputs})[OUTPUT]
                if answer.argmax(axis=1).tolist() != labels.tolist():
                    errors.append("a wrong answer")
            except Exception as error:
                errors.append(f"{type(error).__name__}: {error}")
            waits_s.append(time.monotonic() - began_s)
            if len(waits_s) >= CALLERS and not calling.is_set():
                calling.set()
                print("calling", flush=True)

    callers = [threading.Thread(target=call) for _ in range(CALLERS)]
    for caller in callers:
        caller.start()
    sys.stdin.read()
    stop.set()
    for caller in callers:
        caller.join()
    print(json.dumps({"answers": len(waits_s) - len(errors), "longest_s": max(waits_s), "errors": errors[:20]}))


main()
