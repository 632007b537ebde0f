"""The other yardstick: an engine called directly, without inferd, as its own documentation would have it done.

    python -m bench.engine --model FILE.onnx --engine openvino --streams 2 --threads 1 --seconds 3

One Python thread a stream calls the engine in a closed loop on one row of noise; with `--threads 0` the library chooses
its own, OpenVINO by its hint for latency or, with several streams, for throughput. Nothing of inferd is imported.
"""

from __future__ import annotations

import argparse
import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

WARM_UP_S = 0.5
Infer = Callable[[], object]


def openvino_calls(model: Path, row: np.ndarray[Any, Any], streams: int, threads: int) -> list[Infer]:
    """One infer request a stream; the answer is copied out, as a caller who keeps it must."""
    import openvino

    settings = {"NUM_STREAMS": str(streams), "INFERENCE_NUM_THREADS": streams * threads, "ENABLE_CPU_PINNING": False}
    if not threads:
        settings = {"PERFORMANCE_HINT": "THROUGHPUT" if streams > 1 else "LATENCY"}
    compiled = openvino.Core().compile_model(model, "CPU", settings)

    def call() -> Infer:
        request = compiled.create_infer_request()
        return lambda: request.infer([row])

    return [call() for _ in range(streams)]


def onnxruntime_calls(model: Path, row: np.ndarray[Any, Any], streams: int, threads: int) -> list[Infer]:
    """One session shared by all streams."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    if threads:
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return [lambda: session.run(None, {name: row})] * streams


def saturate(calls: list[Infer], seconds: float) -> float:
    """Calls a second, all streams together, after a warm-up."""
    # OpenVINO's binding may deadlock when two threads are the first to look at a tensor: it starts its numpy side once,
    # under a C++ guard, without letting go of Python's lock in both.
    calls[0]()
    counts, over, counting = [0] * len(calls), threading.Event(), threading.Event()

    def work(index: int) -> None:
        while not over.is_set():
            calls[index]()
            if counting.is_set():
                counts[index] += 1

    workers = [threading.Thread(target=work, args=(index,)) for index in range(len(calls))]
    for worker in workers:
        worker.start()
    time.sleep(WARM_UP_S)
    counting.set()
    start_s = time.perf_counter()
    time.sleep(seconds)
    counting.clear()
    took_s = time.perf_counter() - start_s
    over.set()
    for worker in workers:
        worker.join()
    return sum(counts) / took_s


def main() -> None:
    """Parse, run, print."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--model", type=Path, required=True)
    arguments.add_argument("--engine", choices=["openvino", "onnxruntime"], required=True)
    arguments.add_argument("--streams", type=int, required=True)
    arguments.add_argument("--threads", type=int, required=True)
    arguments.add_argument("--shape", default="1,3,48,320")
    arguments.add_argument("--seconds", type=float, default=3.0)
    given = arguments.parse_args()
    shape = tuple(int(side) for side in given.shape.split(","))
    row = np.random.default_rng(1).uniform(-1, 1, shape).astype(np.float32)
    build = openvino_calls if given.engine == "openvino" else onnxruntime_calls
    calls = build(given.model, row, given.streams, given.threads)
    print(json.dumps({"per_s": round(saturate(calls, given.seconds), 2)}))


if __name__ == "__main__":
    main()
