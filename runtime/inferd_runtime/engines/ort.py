"""ONNX Runtime: CPU, and CUDA and TensorRT where the installed build has them.

`InferenceSession.run` is the whole run path: it reads read-only numpy inputs in place and hands its own output buffers
to numpy without a copy. I/O binding was measured slower (it copies outputs, and binding costs more than it saves), so
it is used for nothing; BF16, which numpy arrays cannot carry into ONNX Runtime, goes through OrtValues. No custom
operator library is ever registered.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import importlib.metadata
import io
import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from inferd_runtime.engines import Array, Session, SessionOptions
from inferd_runtime.engines.arrays import settled
from inferd_runtime.engines.fixed import FixedSession, require_free_rows
from inferd_runtime.engines.gpu import count_nvidia_gpus
from inferd_runtime.engines.providers import CPU, CUDA, TENSORRT, extra_precisions, providers
from inferd_runtime.engines.quiet import silence_telemetry
from inferd_runtime.engines.reason import reason
from inferd_runtime.errors import EngineFault, EngineRefused, InvalidRequest
from inferd_runtime.tensor import BFLOAT16, STRING, TensorSpec

_DISTRIBUTIONS = ("onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino", "onnxruntime-migraphx")
_BFLOAT16_ONNX = 16  # TensorProto.BFLOAT16
_SILENT = 4  # log only what is fatal: failures come back as exceptions
_DTYPES: dict[str, np.dtype[Any]] = {
    "tensor(bool)": np.dtype(np.bool_),
    "tensor(uint8)": np.dtype(np.uint8),
    "tensor(uint16)": np.dtype(np.uint16),
    "tensor(uint32)": np.dtype(np.uint32),
    "tensor(uint64)": np.dtype(np.uint64),
    "tensor(int8)": np.dtype(np.int8),
    "tensor(int16)": np.dtype(np.int16),
    "tensor(int32)": np.dtype(np.int32),
    "tensor(int64)": np.dtype(np.int64),
    "tensor(float16)": np.dtype(np.float16),
    "tensor(bfloat16)": BFLOAT16,
    "tensor(float)": np.dtype(np.float32),
    "tensor(double)": np.dtype(np.float64),
    "tensor(string)": STRING,
}


def import_library() -> Any:
    """The library itself, silent and alone."""
    silence_telemetry()
    library = importlib.import_module("onnxruntime")
    library.set_default_logger_severity(_SILENT)
    return library


class OrtEngine:
    """The `Engine` of ONNX Runtime; the library is imported on first use. Safe from any thread."""

    name = "onnxruntime"

    def __init__(
        self, *, gpus: Callable[[], int] = count_nvidia_gpus, load: Callable[[], Any] = import_library
    ) -> None:
        self._gpus = gpus
        self._load = load
        self._lock = threading.Lock()  # guards what follows
        self._library: Any = None
        self._cuda_fault: str | None = None  # None until a GPU is first asked for

    @property
    def version(self) -> str:
        for distribution in _DISTRIBUTIONS:
            with contextlib.suppress(importlib.metadata.PackageNotFoundError):
                return importlib.metadata.version(distribution)
        return str(self._import().__version__)

    def devices(self) -> tuple[str, ...]:
        try:
            known = self._import().get_available_providers()
        except EngineRefused:
            return ("cpu",)  # open() says why it is not
        names = ["cpu"]
        for kind, provider in (("cuda", CUDA), ("tensorrt", TENSORRT)):
            if provider in known:
                names += [f"{kind}:{index}" for index in range(self._gpus())]
        return tuple(names)

    def precisions(self, device: str) -> tuple[str, ...]:
        return extra_precisions(device)

    def reads(self, path: Path) -> bool:
        return path.suffix == ".onnx"

    def open(self, path: Path, options: SessionOptions) -> Session:
        library = self._import()
        if options.device not in self.devices():
            raise EngineRefused(f"ONNX Runtime has no device {options.device!r} here, only {', '.join(self.devices())}")
        try:
            settings = _session_options(library, options)
            if not options.rows:
                return self._session(path, settings, options)
            file, row_names = _look(library, path, options.rows)
            for name in row_names:
                settings.add_free_dimension_override_by_name(name, options.rows)
            session = self._session(path, settings, options)
            return FixedSession(session, options.rows, file.inputs, file.outputs, file.batch_symbols)
        except EngineRefused:
            raise
        except Exception as error:
            raise EngineRefused(f"ONNX Runtime: {reason(error, path)}") from error

    def _import(self) -> Any:
        with self._lock:
            if self._library is None:
                try:
                    self._library = self._load()
                except Exception as error:  # a broken native library raises more than ImportError
                    raise EngineRefused(f"onnxruntime cannot be imported: {reason(error)}") from error
            return self._library

    def _session(self, path: Path, settings: Any, options: SessionOptions) -> OrtSession:
        chain = providers(path, options)
        wanted = chain[0][0]
        fault = self._prepare_cuda() if wanted != CPU else ""
        # Its own fallback would serve on the CPU from then on and tell nobody but its standard output.
        session = self._library.InferenceSession(path, settings, providers=chain, enable_fallback=0)
        if wanted not in session.get_providers():
            raise EngineRefused(f"{wanted} could not be started here: {fault or 'driver or library missing'}")
        return OrtSession(self._library, session, path)

    def _prepare_cuda(self) -> str:
        """Once, before CUDA starts: what could not be loaded of NVIDIA's libraries, empty where all could."""
        with self._lock:
            if self._cuda_fault is None:
                # "cuda:1" is then the GPU that the probe, /dev and nvidia-smi call 1, and not the second fastest.
                os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
                self._cuda_fault = _preload(self._library)
            return self._cuda_fault


def _preload(library: Any) -> str:
    """Load CUDA and cuDNN from Python packages where they are, else from the system; the complaint, in one line."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(said):  # that is where it complains
            library.preload_dlls(directory="")
    except Exception as error:  # not final: the provider may start all the same
        return reason(error)
    return reason(RuntimeError(said.getvalue())) if said.getvalue().strip() else ""


def _session_options(library: Any, options: SessionOptions) -> Any:
    settings = library.SessionOptions()
    settings.intra_op_num_threads = options.threads
    settings.inter_op_num_threads = 1
    settings.execution_mode = library.ExecutionMode.ORT_SEQUENTIAL
    settings.log_severity_level = _SILENT
    # The arena keeps the most it ever held, and an output still being sent would pin a block of it. Without it runs
    # were measured to be as fast, and memory goes back after a big batch.
    settings.enable_cpu_mem_arena = False
    # Waiting threads sleep: the cores belong to others while this model has nothing to do.
    settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
    settings.add_session_config_entry("session.inter_op.allow_spinning", "0")
    return settings


def _look(library: Any, path: Path, rows: int) -> tuple[OrtSession, set[str]]:
    """A file that is to be compiled for exactly `rows`, as it is, and the names of the dimensions to fix.

    ONNX Runtime fixes a dimension by its name, wherever that stands.
    """
    settings = library.SessionOptions()
    settings.log_severity_level = _SILENT
    settings.graph_optimization_level = library.GraphOptimizationLevel.ORT_DISABLE_ALL  # it is never run
    settings.add_session_config_entry("session.disable_prepacking", "1")
    raw = library.InferenceSession(path, settings, providers=[CPU])
    file = OrtSession(library, raw, path)
    require_free_rows(file.inputs, file.outputs, rows)
    names = {arg.shape[0] for arg in raw.get_inputs()}
    others = {dim for arg in (*raw.get_inputs(), *raw.get_outputs()) for dim in arg.shape[1:]}
    problem = ""
    if None in names:
        problem = "the file gives a first dimension no name"
    elif names & others:
        problem = f"the name of the first dimension, {min(names & others)}, stands for other dimensions too"
    if problem:
        raise EngineRefused(f"ONNX Runtime cannot compile for exactly {rows} rows: {problem}")
    return file, names


class OrtSession:
    """The `Session` of ONNX Runtime: one InferenceSession, which concurrent callers share."""

    def __init__(self, library: Any, session: Any, path: Path) -> None:
        self._library = library
        self._session = session
        self._path = path
        self.inputs = tuple(_spec(arg, "input") for arg in session.get_inputs())
        self.outputs = tuple(_spec(arg, "output") for arg in session.get_outputs())
        self.batch_symbols = _symbols(session.get_inputs(), session.get_outputs())
        self._input_names = tuple(spec.name for spec in self.inputs)
        self._output_names = tuple(spec.name for spec in self.outputs)
        self._is_plain = BFLOAT16 not in {spec.dtype for spec in (*self.inputs, *self.outputs)}

    def run(self, inputs: Sequence[Array], outputs: Sequence[int]) -> list[Array]:
        feeds = dict(zip(self._input_names, map(_input, self.inputs, inputs), strict=True))
        names = [self._output_names[index] for index in outputs]
        try:
            results = self._session.run(names, feeds) if self._is_plain else self._run_values(names, feeds)
            return [_output(result) for result in results]
        except Exception as error:
            raise EngineFault(f"ONNX Runtime: {reason(error, self._path)}") from error

    def close(self) -> None:
        self._session = None

    def _run_values(self, names: list[str], feeds: dict[str, Array]) -> list[Array]:
        """The way for BF16: everything that goes in or comes out is an OrtValue."""
        value = self._library.OrtValue
        values = {
            name: value.ortvalue_from_numpy_with_onnx_type(array.view(np.uint16), _BFLOAT16_ONNX)
            if array.dtype == BFLOAT16
            else value.ortvalue_from_numpy(array)
            for name, array in feeds.items()
        }
        return [_from_value(result) for result in self._session.run_with_ort_values(names, values)]


def _spec(arg: Any, role: str) -> TensorSpec:
    dtype = _DTYPES.get(arg.type)
    if dtype is None:
        raise EngineRefused(f"{role} {arg.name!r} is a {arg.type}, which the protocol has no datatype for")
    return TensorSpec(arg.name, dtype, tuple(dim if isinstance(dim, int) and dim >= 0 else -1 for dim in arg.shape))


def _symbols(inputs: Sequence[Any], outputs: Sequence[Any]) -> tuple[str, ...]:
    """The file's names of first dimensions, "" for what tells nothing.

    A name on an output that no input has was made up by an exporter (p2o.DynamicDimension.3, ConcatstateN_dim_0), or by
    ONNX Runtime itself (unk__7): it does not say that the dimension differs.
    """
    known = {dim for arg in inputs for dim in arg.shape if isinstance(dim, str)}
    firsts = [arg.shape[0] if arg.shape else None for arg in (*inputs, *outputs)]
    return tuple(dim if dim in known else "" for dim in firsts)


def _input(spec: TensorSpec, array: Array) -> Array:
    return settled(spec, array) if spec.dtype != STRING else _text(spec.name, array)


def _text(name: str, array: Array) -> Array:
    """Bytes as str, which ONNX Runtime wants."""
    text = np.empty(array.shape, STRING)
    flat = text.reshape(-1)
    for index, item in enumerate(array.flat):
        try:
            flat[index] = item.decode("utf-8")
        except UnicodeDecodeError as error:
            raise InvalidRequest(
                f"input {name!r}: element {index} is not UTF-8 at byte {error.start}, and this model takes text"
            ) from None
    return text


def _output(array: Array) -> Array:
    if array.dtype != STRING:
        return array
    flat = np.empty(array.size, STRING)
    for index, item in enumerate(array.flat):
        flat[index] = item.encode("utf-8")
    return flat.reshape(array.shape)


def _from_value(value: Any) -> Array:
    """An OrtValue on the CPU as an array of its own."""
    if value.data_type() != "tensor(bfloat16)":
        return np.array(value.numpy())
    array = np.empty(value.shape(), BFLOAT16)
    if array.nbytes:
        ctypes.memmove(array.ctypes.data, value.data_ptr(), array.nbytes)
    return array
