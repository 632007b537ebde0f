"""Are answers right on this machine's NVIDIA GPUs, and how quick? `make ENGINES=cuda gpu-check` tells.

Every model of bench/models.py goes through CUDA and TensorRT in every precision, with free and with fixed rows. Its
answers are held against the same file on the CPU, alone and with several callers at once. Exit code: 0 when what was
tried is right, 1 when something is wrong, 3 when nothing was proven because no GPU can be used.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from bench import models
from inferd_runtime.engines import Engine, Session, SessionOptions
from inferd_runtime.engines.gpu import GpuMemory, count_nvidia_gpus
from inferd_runtime.engines.host.measure import measure
from inferd_runtime.engines.ort import OrtEngine
from inferd_runtime.errors import EngineRefused, InferdError
from inferd_runtime.probe import probe
from tests.models.fetch import cache_root

Array = np.ndarray[Any, Any]

RIGHT, WRONG, UNPROVEN = 0, 1, 3
ROWS, CALLERS = 16, 4
# The largest error of an answer, in terms of the largest answer. TF32 and f16 keep 10 bits, bf16 keeps 7. In an INT8
# file a rounding that falls the other way moves a value by a whole step; both engines on the CPU differ by 0.03.
TOLERANCE = {"f32": 1e-4, "auto": 1e-2, "f16": 2e-2, "bf16": 1e-1}
INT8_TOLERANCE = 1e-1
FILES = {"f32": "model.onnx", "int8": "model.int8.onnx"}


@dataclass(frozen=True, slots=True)
class Case:
    """One way to run one file; `rows` 0 leaves them free."""

    model: str
    variant: str
    path: Path
    device: str
    precision: str
    rows: int

    @property
    def tolerance(self) -> float:
        return INT8_TOLERANCE if self.variant == "int8" else TOLERANCE[self.precision]


@dataclass(frozen=True, slots=True)
class Finding:
    """What came of a case. `fault`: why it could not be opened, or failed. Megabytes are the device's."""

    case: Case
    fault: str = ""
    is_refused: bool = False
    error: float = math.nan
    alone_us: float = 0.0
    rows_per_s: float = 0.0
    megabytes: float = math.nan

    @property
    def is_right(self) -> bool:
        return self.error <= self.case.tolerance

    def cells(self) -> list[str]:
        """A row of the table."""
        case = self.case
        way = [f"{case.model} {case.variant}", case.device, case.precision, str(case.rows or "free")]
        if self.fault:
            return [*way, "not proven" if self.is_refused else "WRONG", "", "", "", self.fault]
        figures = [f"{self.error:.1e}", f"{self.alone_us:.0f}", f"{self.rows_per_s:.0f}"]
        memory = "not known" if math.isnan(self.megabytes) else f"{self.megabytes:.0f}"
        return [*way, "right" if self.is_right else "WRONG", *figures, memory]


def cases(engine: Engine, model: str, folder: Path, variant: str, devices: Sequence[str]) -> Iterator[Case]:
    """TensorRT with fixed rows only: for free ones it would build anew at every number."""
    for device in devices:
        for precision in ("auto", *engine.precisions(device)):
            for rows in (ROWS,) if device.startswith("tensorrt") else (0, ROWS):
                yield Case(model, variant, folder / "1" / FILES[variant], device, precision, rows)


def check(engine: Engine, case: Case, inputs: Array, expected: Array, memory: GpuMemory, seconds: float) -> Finding:
    """Open, compare, measure and close. Nothing that the engine raises stops the others."""
    before = memory.look(case.device)
    try:
        session = engine.open(case.path, SessionOptions(case.device, CALLERS, 1, case.precision, rows=case.rows))
    except EngineRefused as refusal:
        return Finding(case, str(refusal), is_refused=True)
    try:
        error = max(distance(session, inputs[:rows], expected[:rows]) for rows in (1, 3, len(inputs)))
        alone = measure(session, [inputs[:1]], 1, seconds)
        crowd = measure(session, [inputs], CALLERS, seconds)
        error = max(error, distance(session, inputs, expected))  # nobody left anything behind
        after = memory.look(case.device)
        taken = (after.used_bytes - before.used_bytes) / 1e6 if before and after else math.nan
        return Finding(case, "", False, error, alone.p50_us, crowd.runs_per_s * len(inputs), taken)
    except InferdError as fault:
        return Finding(case, str(fault))
    finally:
        session.close()


def distance(session: Session, inputs: Array, expected: Array) -> float:
    """The largest error in terms of the largest answer; infinite where the answer is no number."""
    [got] = session.run([inputs], [0])
    error = float(np.abs(got - expected).max() / np.abs(expected).max()) if got.shape == expected.shape else math.inf
    return math.inf if math.isnan(error) else error


def findings(engine: Engine, folders: Mapping[str, Path], devices: Sequence[str], seconds: float) -> Iterator[Finding]:
    """One after the other, as they come."""
    memory = GpuMemory()
    for (model, folder), variant in product(folders.items(), FILES):
        recipe = models.RECIPES[model]
        inputs = recipe.draw(np.random.default_rng(models.SEED + 1), ROWS)
        with closing(engine.open(folder / "1" / FILES[variant], SessionOptions(precision="f32"))) as reference:
            [expected] = reference.run([inputs], [0])
        for case in cases(engine, model, folder, variant, devices):
            yield check(engine, case, inputs, expected, memory, seconds)


def start(engine: Engine, path: Path, devices: Sequence[str]) -> None:
    """Open something everywhere: the first session of a device pays for CUDA itself, which is no model's memory."""
    for device in devices:
        with suppress(EngineRefused), closing(engine.open(path, SessionOptions(device, rows=1))) as session:
            session.run([np.zeros((1, models.FEATURES), np.float32)], [0])


def report(found: Iterable[Finding]) -> int:
    """The table as it comes, in the form of the documentation's, and the exit code."""
    print("| model | device | precision | rows | answers | error | one row, us | rows/s, 4 callers | MB |")
    print("|---|---|---|---|---|---|---|---|---|")
    right = wrong = unproven = 0
    for finding in found:
        print("|", " | ".join(finding.cells()), "|", flush=True)
        right += finding.is_right
        unproven += finding.is_refused
        wrong += not (finding.is_right or finding.is_refused)
    print(f"\n{right} right, {wrong} wrong, {unproven} not proven")
    return WRONG if wrong else RIGHT if right else UNPROVEN


def why_nothing(engine: Engine, gpus: int) -> str:
    """Why nothing can be proven here; empty where something can."""
    if not gpus:
        return "There is no NVIDIA GPU here (no /dev/nvidia0)"
    if len(engine.devices()) == 1:
        return f"The installed onnxruntime {engine.version} has no CUDA (try: make ENGINES=cuda gpu-check)"
    return ""


def main() -> int:
    """Say where this is, look, tell."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--models", nargs="+", choices=list(models.RECIPES), default=list(models.RECIPES))
    arguments.add_argument("--seconds", type=float, default=1.0, help="of each measurement")
    given = arguments.parse_args()
    engine = OrtEngine()
    nothing = why_nothing(engine, count_nvidia_gpus())
    if nothing:
        print(f"{nothing}: nothing was proven about CUDA or TensorRT.")
        return UNPROVEN
    for gpu in probe().devices:
        print(f"{gpu.name}, {gpu.driver} {gpu.driver_version}; onnxruntime {engine.version}\n")
    devices = [device for device in engine.devices() if device != "cpu"]
    folders = models.made(cache_root(), [models.MLP, *given.models])
    start(engine, folders[models.MLP] / "1" / FILES["f32"], devices)
    return report(findings(engine, {name: folders[name] for name in given.models}, devices, given.seconds))


if __name__ == "__main__":
    sys.exit(main())
