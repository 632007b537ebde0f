"""Static INT8 quantisation of one ONNX file: calibrate, write Q/DQ pairs, check that the result still agrees, report.

Only operators whose weights are constants are quantised (they hold the bytes and the arithmetic); every operator with
weights that stays float is in the report with its reason. The target appears whole or not at all.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from inferd_runtime.engines.quiet import silence_telemetry
from inferd_runtime.errors import EngineRefused, InvalidModel, InvalidRequest, Unsupported

Array = np.ndarray[Any, Any]
Feeds = Mapping[str, Array]

DEFAULT_OPERATORS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
# Operators that only pass INT8 values on: between quantised neighbours they need no float form of their own.
PASSING_OPERATORS = ("Relu", "Clip", "MaxPool", "Flatten", "Reshape", "Squeeze", "Unsqueeze", "Transpose")
COMPARED_SAMPLES = 8


@dataclass(frozen=True, slots=True)
class Left:
    """An operator with weights that stays float, and why."""

    node: str
    operator: str
    reason: str


@dataclass(frozen=True, slots=True)
class Report:
    """What was done. `similarity` is the lowest cosine between float and INT8 outputs over some calibration samples."""

    before_bytes: int
    after_bytes: int
    opset: int
    samples: int
    quantised: dict[str, int]
    left: tuple[Left, ...]
    similarity: dict[str, float]


def quantise(
    source: Path,
    target: Path,
    calibration: Iterable[Feeds],
    *,
    per_channel: bool = True,
    operators: tuple[str, ...] = DEFAULT_OPERATORS,
    keep_float: tuple[str, ...] = (),
    percentile: float = 100.0,
) -> Report:
    """Write an INT8 variant of the ONNX model `source` to `target`.

    `calibration` yields real inputs by name, as the model takes them; `keep_float` names nodes to leave alone, or
    outputs of theirs; a `percentile` below 100 clips the activations' outliers so that scales become finer. Raises
    InvalidModel, InvalidRequest, EngineRefused, or Unsupported where a library is missing.
    """
    silence_telemetry()
    try:
        import onnx

        from inferd_runtime.quantisation import prepare
    except ImportError as error:
        raise Unsupported(f"quantising needs the extras inferd[cpu,quantize]: {error}") from error

    if not 50.0 < percentile <= 100.0:
        raise InvalidRequest(f"percentile: expected more than 50 and at most 100, got {percentile}")
    samples = list(calibration)
    model = prepare.prepare(source)
    check_samples(model, samples)
    chosen, left = choose(model, operators, keep_float)
    if not chosen:
        raise InvalidModel(f"{source.name}: nothing to quantise: {reasons(left) or 'no operator has constant weights'}")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".quantise-", dir=target.parent) as folder:
        ready, made = Path(folder, "float.onnx"), Path(folder, "int8.onnx")
        onnx.save_model(model, ready)
        nodes = chosen | passing(model, chosen)
        write_pairs(ready, made, samples, nodes, per_channel=per_channel, percentile=percentile)
        similarity = compare(ready, made, samples[:COMPARED_SAMPLES])
        report = Report(
            before_bytes=source.stat().st_size,
            after_bytes=made.stat().st_size,
            opset=prepare.opset_of(onnx.load(made)),
            samples=len(samples),
            quantised=dict(Counter(chosen.values())),
            left=left,
            similarity=similarity,
        )
        publish(made, target)
    return report


def check_samples(model: Any, samples: list[Feeds]) -> None:
    """Every sample names exactly the model's inputs."""
    if not samples:
        raise InvalidRequest("calibration is empty: give at least one real input")
    constants = {tensor.name for tensor in model.graph.initializer}
    expected = {value.name for value in model.graph.input} - constants
    for index, sample in enumerate(samples):
        if set(sample) != expected:
            raise InvalidRequest(
                f"calibration sample {index}: expected inputs {sorted(expected)}, got {sorted(sample)}"
            )


def choose(
    model: Any, operators: tuple[str, ...], keep_float: tuple[str, ...]
) -> tuple[dict[str, str], tuple[Left, ...]]:
    """Nodes to quantise (name to operator), and those with weights that stay float."""
    import onnx

    constants = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    chosen: dict[str, str] = {}
    left: list[Left] = []
    for node in model.graph.node:
        reason = obstacle(node, constants, operators, keep_float, onnx.TensorProto.FLOAT)
        if reason is None:
            chosen[node.name] = node.op_type
        elif reason:
            left.append(Left(node.name, node.op_type, reason))
    return chosen, tuple(left)


def passing(model: Any, chosen: Mapping[str, str]) -> dict[str, str]:
    """Nodes that pass on what chosen ones give (name to operator): activations are then fused into the INT8 operator
    before them, and no values go to float and back between two INT8 operators."""
    made_by_chosen: set[str] = set()
    found: dict[str, str] = {}
    for node in model.graph.node:
        is_passing = node.op_type in PASSING_OPERATORS and node.input and node.input[0] in made_by_chosen
        if is_passing:
            found[node.name] = node.op_type
        if is_passing or node.name in chosen:
            made_by_chosen.update(node.output)
    return found


def obstacle(
    node: Any, constants: Mapping[str, int], operators: tuple[str, ...], keep_float: tuple[str, ...], float32: int
) -> str | None:
    """Why a node stays float: None if it is quantised, "" if it has no weights worth a word."""
    if any(attribute.HasField("g") for attribute in node.attribute):
        return "its weights are inside a subgraph"
    if node.op_type in ("LSTM", "GRU", "RNN"):
        return "recurrent operators have no static INT8 form"
    if node.op_type not in DEFAULT_OPERATORS + operators:
        return ""
    if node.op_type in DEFAULT_OPERATORS:
        weight = constants.get(node.input[1])
        if weight is None:
            return "its second input is computed, not a constant weight"
        if weight != float32:
            return "its weights are not float32"
    if node.op_type not in operators:
        return "not among the operators asked for"
    if node.name in keep_float or set(node.output) & set(keep_float):
        return "asked to stay float"
    return None


def reasons(left: tuple[Left, ...]) -> str:
    """The reasons, each once with its count."""
    return "; ".join(f"{count} x {reason}" for reason, count in Counter(item.reason for item in left).items())


def write_pairs(
    source: Path, target: Path, samples: list[Feeds], nodes: dict[str, str], *, per_channel: bool, percentile: float
) -> None:
    """Calibrate and write the Q/DQ model, by onnxruntime's quantiser."""
    from onnxruntime import quantization as ort

    class Reader(ort.CalibrationDataReader):  # type: ignore[misc]
        """Hands the samples out one by one, as the calibrator wants them."""

        def __init__(self) -> None:
            self._samples = iter(samples)

        def get_next(self) -> dict[str, Array] | None:
            sample = next(self._samples, None)
            return None if sample is None else dict(sample)

    clips = percentile < 100.0
    logger = logging.getLogger()
    level = logger.level
    logger.setLevel(logging.ERROR)  # the quantiser advises, on the root logger, what `prepare` has done already
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # the percentile calibrator prints
            ort.quantize_static(
                source,
                target,
                Reader(),
                quant_format=ort.QuantFormat.QDQ,
                op_types_to_quantize=sorted(set(nodes.values())),
                nodes_to_quantize=list(nodes),
                per_channel=per_channel,
                activation_type=ort.QuantType.QUInt8,
                weight_type=ort.QuantType.QInt8,
                calibrate_method=ort.CalibrationMethod.Percentile if clips else ort.CalibrationMethod.MinMax,
                extra_options={"WeightSymmetric": True, **({"CalibPercentile": percentile} if clips else {})},
            )
    except Exception as error:  # the quantiser raises ValueError, RuntimeError and onnxruntime's own kinds
        raise EngineRefused(f"onnxruntime cannot quantise the model: {error}") from error
    finally:
        logger.setLevel(level)


def compare(reference: Path, made: Path, samples: list[Feeds]) -> dict[str, float]:
    """Lowest cosine of every float output over the samples; the made model must open and run."""
    import onnxruntime

    from inferd_runtime.quantisation.prepare import session_options

    try:
        sessions = [
            onnxruntime.InferenceSession(path, session_options(), providers=["CPUExecutionProvider"])
            for path in (reference, made)
        ]
        names = [output.name for output in sessions[0].get_outputs() if output.type == "tensor(float)"]
        lowest = dict.fromkeys(names, 1.0)
        for sample in samples:
            pair = [session.run(names, dict(sample)) for session in sessions]
            for name, expected, got in zip(names, *pair, strict=True):
                lowest[name] = min(lowest[name], cosine(expected, got))
    except Exception as error:  # onnxruntime's exceptions share no public base
        raise EngineRefused(f"onnxruntime cannot run the model it made: {error}") from error
    return lowest


def cosine(one: Array, other: Array) -> float:
    """Cosine of the angle between two tensors; 1.0 for two zeros."""
    a, b = one.ravel().astype(np.float64), other.ravel().astype(np.float64)
    scale = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / scale if scale else float(np.array_equal(a, b))


def publish(made: Path, target: Path) -> None:
    """Move a finished file into place, durable and whole."""
    with made.open("rb") as file:
        os.fsync(file.fileno())
    made.chmod(0o644)
    made.replace(target)
