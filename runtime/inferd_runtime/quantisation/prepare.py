"""Make a float model ready to be quantised: weights where a quantiser finds them, an opset with per-axis scales.

Exporters differ: Paddle keeps every weight in a Constant node and stays at opset 11 or 12. Here such nodes become
initializers, the opset is raised to 13, ONNX Runtime folds constants and batch normalisation, every node gets a name.
What the graph computes does not change. Models that are quantised already are refused.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import numpy_helper, shape_inference, version_converter

from inferd_runtime.errors import EngineRefused, InvalidModel

# DequantizeLinear has an axis from here on; below, OpenVINO refuses per-channel scales.
LOWEST_OPSET = 13
QUANTISED_OPERATORS = frozenset({"QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "FakeQuantize"})
QUANTISED_PREFIXES = (
    "QLinear",
    "QGemm",
    "QAttention",
    "MatMulInteger",
    "ConvInteger",
    "DynamicQuantize",
    "MatMulNBits",
)


def prepare(source: Path) -> onnx.ModelProto:
    """Read and normalise the model at `source`. Raises InvalidModel or EngineRefused."""
    model = read(source)
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    refuse_quantised(model)
    fold_constant_nodes(model.graph)
    model = optimise(raise_opset(model))
    fold_constant_nodes(model.graph)
    name_nodes(model.graph)
    onnx.helper.set_model_props(model, metadata)
    return shape_inference.infer_shapes(model)


def read(source: Path) -> onnx.ModelProto:
    """The model with external data read in."""
    try:
        model = onnx.load(source)
    except FileNotFoundError:
        raise InvalidModel(f"{source.name}: no such file") from None
    except Exception as error:  # protobuf's and onnx's own errors share no base
        raise InvalidModel(f"{source.name} is not an ONNX model: {error}") from error
    if not model.graph.node:
        raise InvalidModel(f"{source.name} is not an ONNX model: its graph has no nodes")
    return model


def refuse_quantised(model: onnx.ModelProto) -> None:
    """Quantising twice loses accuracy for nothing."""
    for node in model.graph.node:
        if node.op_type in QUANTISED_OPERATORS or node.op_type.startswith(QUANTISED_PREFIXES):
            raise InvalidModel(f"already quantised: it has a {node.op_type} node; start from the float model")


def fold_constant_nodes(graph: onnx.GraphProto) -> None:
    """Turn the graph's own Constant nodes into initializers; subgraphs stay as they are."""
    kept = []
    for node in graph.node:
        value = constant_of(node)
        if value is None:
            kept.append(node)
        else:
            value.name = node.output[0]
            graph.initializer.append(value)
    del graph.node[:]
    graph.node.extend(kept)


def constant_of(node: onnx.NodeProto) -> onnx.TensorProto | None:
    """The tensor a Constant node holds; None for other nodes and for sparse or text constants."""
    if node.op_type != "Constant" or node.domain not in ("", "ai.onnx"):
        return None
    attribute = node.attribute[0]
    if attribute.name == "value":
        return attribute.t
    dtypes = {"value_float": np.float32, "value_floats": np.float32, "value_int": np.int64, "value_ints": np.int64}
    if attribute.name in dtypes:
        value = onnx.helper.get_attribute_value(attribute)
        return numpy_helper.from_array(np.asarray(value, dtypes[attribute.name]))
    return None


def opset_of(model: onnx.ModelProto) -> int:
    """The version of the default operator set."""
    return max((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), default=1)


def raise_opset(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model at opset 13 or, where it is later already, as it is."""
    opset = opset_of(model)
    if opset >= LOWEST_OPSET:
        return model
    model.ir_version = max(model.ir_version, 7)
    try:
        return version_converter.convert_version(model, LOWEST_OPSET)
    except Exception as error:  # the converter raises RuntimeError and its own kinds
        raise InvalidModel(f"opset {opset} cannot be raised to {LOWEST_OPSET}: {error}") from error


def optimise(model: onnx.ModelProto) -> onnx.ModelProto:
    """Let ONNX Runtime fold constants and batch normalisation: the basic level, which stays within standard ONNX."""
    with tempfile.TemporaryDirectory(prefix="inferd-quantise-") as folder:
        before, after = Path(folder, "before.onnx"), Path(folder, "after.onnx")
        onnx.save_model(model, before, save_as_external_data=True, location="before.data")
        options = session_options()
        options.optimized_model_filepath = str(after)
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        try:
            onnxruntime.InferenceSession(before, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's exceptions share no public base
            raise EngineRefused(f"onnxruntime cannot open the model: {error}") from error
        folded = onnx.load(after)
    used = {node.domain for node in folded.graph.node} | {""}
    imports = [entry for entry in folded.opset_import if entry.domain in used]
    del folded.opset_import[:]
    folded.opset_import.extend(imports)
    return folded


def session_options() -> Any:
    """Quiet and without spinning, for the short runs of this room."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


def name_nodes(graph: onnx.GraphProto) -> None:
    """Give every node a name of its own, which the quantiser and the report need."""
    seen: set[str] = set()
    for index, node in enumerate(graph.node):
        if not node.name or node.name in seen:
            node.name = f"{node.op_type}_{index}"
        seen.add(node.name)
