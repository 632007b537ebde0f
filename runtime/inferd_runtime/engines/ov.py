"""OpenVINO: CPU, and GPU and NPU where it sees them; reads ONNX, its own IR and TensorFlow Lite.

A session is one compiled model with a pool of infer requests, one per stream. A run wraps each input in an ov.Tensor on
the caller's memory, infers, and copies the outputs out. Output tensors are never preset: OpenVINO writes past the end
of one that turns out too small, and into a stale one when another output is asked for; and presetting gained nothing.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import queue
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from inferd_runtime.engines import Array, Session, SessionOptions
from inferd_runtime.engines.arrays import settled
from inferd_runtime.engines.cache import compiled_folder
from inferd_runtime.engines.fixed import FixedSession, require_free_rows
from inferd_runtime.engines.quiet import silence_telemetry
from inferd_runtime.engines.reason import reason
from inferd_runtime.errors import EngineFault, EngineRefused, Unsupported
from inferd_runtime.tensor import BFLOAT16, TensorSpec

_SUFFIXES = (".onnx", ".xml", ".tflite")
_DTYPES: dict[str, np.dtype[Any]] = {
    "boolean": np.dtype(np.bool_),
    "u8": np.dtype(np.uint8),
    "u16": np.dtype(np.uint16),
    "u32": np.dtype(np.uint32),
    "u64": np.dtype(np.uint64),
    "i8": np.dtype(np.int8),
    "i16": np.dtype(np.int16),
    "i32": np.dtype(np.int32),
    "i64": np.dtype(np.int64),
    "f16": np.dtype(np.float16),
    "bf16": BFLOAT16,
    "f32": np.dtype(np.float32),
    "f64": np.dtype(np.float64),
}
# The CPU plugin computes in 32 bits whatever the type, and wraps or cuts what does not fit without a word (2026.4).
_NARROWED: dict[np.dtype[Any], tuple[float, float]] = {
    np.dtype(np.int64): (-(2**31), 2**31 - 1),
    np.dtype(np.uint64): (0, 2**31 - 1),
    np.dtype(np.float64): (float(np.finfo(np.float32).min), float(np.finfo(np.float32).max)),
}
# A stream of one thread swallows exceptions (2026.4): a failed run would answer with the run before it. Without streams
# the model runs on the caller's thread, raises, and is faster.
_ON_CALLER = {"NUM_STREAMS": 0, "INFERENCE_NUM_THREADS": 1}
_NO_INPUTS: Mapping[Any, Any] = {}  # they are set already


class OvEngine:
    """The `Engine` of OpenVINO; the library is imported on first use. Safe from any thread."""

    name = "openvino"

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._library: Any = None
        self._core: Any = None

    @property
    def version(self) -> str:
        try:
            return importlib.metadata.version("openvino")
        except importlib.metadata.PackageNotFoundError:
            return str(self._import().__version__)

    def devices(self) -> tuple[str, ...]:
        try:
            self._import()
            return tuple(device.lower() for device in self._core.available_devices)
        except EngineRefused:
            return ("cpu",)  # open() says why it is not

    def precisions(self, device: str) -> tuple[str, ...]:
        try:
            self._import()
            known = self._core.get_property(device.upper(), "OPTIMIZATION_CAPABILITIES")
            usual = self._core.get_property(device.upper(), "INFERENCE_PRECISION_HINT").get_type_name()
        except Exception:  # a device that does not tell is used as it is
            return ()
        names = {"FP32": "f32", "BF16": "bf16", "FP16": "f16"}
        return tuple(name for capability, name in names.items() if capability in known and name != usual)

    def reads(self, path: Path) -> bool:
        return path.suffix in _SUFFIXES

    def open(self, path: Path, options: SessionOptions) -> Session:
        self._import()
        if options.device not in self.devices():
            raise EngineRefused(f"OpenVINO has no device {options.device!r} here, only {', '.join(self.devices())}")
        try:
            if not options.rows:
                return self._session(path, options)
            inputs, outputs = self._specs_to_fix(path, options.rows)
            session = self._session(path, options)
            return FixedSession(session, options.rows, inputs, outputs, session.batch_symbols)
        except EngineRefused:
            raise
        except Exception as error:
            raise EngineRefused(f"OpenVINO: {reason(error, path)}") from error

    def _import(self) -> Any:
        with self._lock:
            if self._core is None:
                try:
                    silence_telemetry()
                    self._library = importlib.import_module("openvino")
                    # Two threads that touch a tensor's data for the first time together can deadlock (2026.4).
                    _ = self._library.Tensor(np.zeros(1, np.float32)).data
                    self._core = self._library.Core()
                    # Weights are read, not mapped: a mapped file that is cut while it serves would kill the daemon.
                    self._core.set_property({"ENABLE_MMAP": False})
                except Exception as error:  # a broken native library raises more than ImportError
                    raise EngineRefused(f"openvino cannot be imported: {reason(error)}") from error
            return self._library

    def _specs_to_fix(self, path: Path, rows: int) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
        """Inputs and outputs of a file that can be compiled for exactly `rows`, as it has them."""
        model = self._core.read_model(path)
        inputs, outputs = _specs(model.inputs, "input"), _specs(model.outputs, "output")
        require_free_rows(inputs, outputs, rows)
        seen = []
        for count in (rows, rows + 1):
            _fix(model, count)
            seen.append([spec.shape[1:] for spec in _specs(model.outputs, "output")])
        if seen[0] != seen[1]:
            raise EngineRefused(f"cannot be compiled for exactly {rows} rows: other dimensions depend on them too")
        return inputs, outputs

    def _session(self, path: Path, options: SessionOptions) -> OvSession:
        compiled = self._compile(path, options)
        self._check_precision(compiled, options)
        streams = 1 if options.device == "cpu" and _streams(compiled) == 0 else options.streams
        return OvSession(self._library, lambda: self._compile(path, options), compiled, path, streams)

    def _compile(self, path: Path, options: SessionOptions) -> Any:
        """Compile through the cache, for the caller's thread where only one thread remains."""
        settings = _settings(options)
        if options.device == "cpu" and options.streams == options.threads == 1:
            settings |= _ON_CALLER
        compiled = self._compile_cached(path, options, settings)
        if options.device == "cpu" and _streams(compiled) == 1 == compiled.get_property("INFERENCE_NUM_THREADS"):
            # Fewer cores are allowed than were asked for.
            compiled = self._compile_cached(path, options, settings | _ON_CALLER)
        return compiled

    def _compile_cached(self, path: Path, options: SessionOptions, settings: dict[str, Any]) -> Any:
        """A cache that fails (a full disk, say) is left aside."""
        device = options.device.upper()
        source = path if not options.rows else _fix(self._core.read_model(path), options.rows)
        folder = compiled_folder(options.cache_dir, "openvino", path)
        if folder is not None:
            try:
                return self._core.compile_model(source, device, settings | {"CACHE_DIR": str(folder)})
            except Exception:  # noqa: S110 - without the cache it works, or fails with the reason that matters
                pass
        return self._core.compile_model(source, device, settings)

    def _check_precision(self, compiled: Any, options: SessionOptions) -> None:
        """OpenVINO quietly computes in another type where the device lacks the one asked for."""
        if options.precision == "auto":
            return
        actual = compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
        if actual != options.precision:
            raise EngineRefused(f"OpenVINO would compute in {actual}: this device has no {options.precision}")


def _settings(options: SessionOptions) -> dict[str, Any]:
    settings: dict[str, Any] = {}
    if not options.device.startswith("npu"):  # an NPU has no streams to set
        settings["NUM_STREAMS"] = options.streams
    if options.device == "cpu":
        settings["INFERENCE_NUM_THREADS"] = options.streams * options.threads
        # Pinned threads of several models would all sit on the same cores.
        settings["ENABLE_CPU_PINNING"] = False
    if options.precision != "auto":
        settings["INFERENCE_PRECISION_HINT"] = options.precision
    return settings


def _streams(compiled: Any) -> int:
    return int(compiled.get_property("NUM_STREAMS"))


class OvSession:
    """The `Session` of OpenVINO. A place belongs to one caller between `get` and `put`.

    After a fault OpenVINO's graph is not trusted: repeating the same bad input was seen to succeed with an earlier
    run's shape. So a fault starts a new generation: the model is compiled again (from the cache, if there is one) on
    the next run, and requests of older generations are dropped as they come back.
    """

    def __init__(self, library: Any, compile_again: Callable[[], Any], compiled: Any, path: Path, streams: int) -> None:
        self._tensor = library.Tensor
        self._compile_again = compile_again
        self._path = path
        self.inputs = _specs(compiled.inputs, "input")
        self.outputs = _specs(compiled.outputs, "output")
        # OpenVINO keeps no names of free dimensions.
        self.batch_symbols = ("",) * (len(self.inputs) + len(self.outputs))
        self._types = tuple(port.get_element_type() for port in compiled.inputs)
        self._narrowed = tuple(i for i, spec in enumerate(self.inputs) if spec.dtype in _NARROWED)
        self._lock = threading.Lock()  # guards _compiled and _generation; held while compiling again
        self._compiled: Any = compiled
        self._generation = 0
        # A place for each stream: an infer request and its generation.
        self._places: queue.SimpleQueue[tuple[int, Any]] = queue.SimpleQueue()
        for _ in range(streams):
            self._places.put((0, compiled.create_infer_request()))

    def run(self, inputs: Sequence[Array], outputs: Sequence[int]) -> list[Array]:
        arrays = [_raw(settled(spec, array)) for spec, array in zip(self.inputs, inputs, strict=True)]
        for index in self._narrowed:
            _require_fit(self.inputs[index], arrays[index])
        place = self._places.get()
        try:
            if place[0] != self._generation:
                place = self._renewed()
            request = place[1]
            # All inputs are set on every run: a request must never read memory of a caller that has left.
            for index, array in enumerate(arrays):
                request.set_input_tensor(index, self._tensor(array, array.shape, self._types[index]))
            self._infer(place)
            return [self._copy(request.get_output_tensor(index).data, index) for index in outputs]
        except Exception as error:
            raise EngineFault(f"OpenVINO: {reason(error, self._path)}") from error
        finally:
            self._places.put(place)

    def close(self) -> None:
        while not self._places.empty():
            self._places.get_nowait()
        self._compiled = None

    def _infer(self, place: tuple[int, Any]) -> None:
        generation, request = place
        try:
            request.infer(_NO_INPUTS, share_outputs=True)
        except Exception:
            with self._lock:
                if generation == self._generation:
                    self._generation += 1
                    self._compiled = None
            raise

    def _renewed(self) -> tuple[int, Any]:
        """A request of the newest generation."""
        with self._lock:
            if self._compiled is None:
                self._compiled = self._compile_again()
            return self._generation, self._compiled.create_infer_request()

    def _copy(self, data: Array, index: int) -> Array:
        array = np.array(data)
        # OpenVINO has no numpy type for BF16 and calls it float16.
        return array.view(BFLOAT16) if self.outputs[index].dtype == BFLOAT16 else array


def _require_fit(spec: TensorSpec, array: Array) -> None:
    """Refuse values that OpenVINO would turn into others; infinities and NaN stay what they are."""
    least, most = _NARROWED[spec.dtype]
    if array.size and least <= array.min() and array.max() <= most:
        return
    bad = array[((array < least) | (array > most)) & np.isfinite(array)]
    if bad.size:
        raise Unsupported(
            f"input {spec.name!r} has the value {bad.flat[0]}, but OpenVINO computes {spec.dtype} in 32 bits; values "
            f'from {least:g} to {most:g} work, or engine = "onnxruntime" in model.toml'
        )


def _raw(array: Array) -> Array:
    return array.view(np.uint16) if array.dtype == BFLOAT16 else array


def _fix(model: Any, rows: int) -> Any:
    """`model`, its inputs of exactly so many rows."""
    model.reshape({port: [rows, *list(port.get_partial_shape())[1:]] for port in model.inputs})
    return model


def _specs(ports: Sequence[Any], role: str) -> tuple[TensorSpec, ...]:
    return tuple(_spec(port, role) for port in ports)


def _spec(port: Any, role: str) -> TensorSpec:
    name = _name(port)
    kind = port.get_element_type().get_type_name()
    dtype = _DTYPES.get(kind)
    if dtype is None:
        raise EngineRefused(
            f"OpenVINO: {role} {name!r} has the element type {kind}, which is not served by this engine"
        )
    shape = port.get_partial_shape()
    if shape.rank.is_dynamic:
        raise EngineRefused(f"OpenVINO: the number of dimensions of {role} {name!r} is unknown")
    return TensorSpec(name, dtype, tuple(-1 if dim.is_dynamic else dim.get_length() for dim in shape))


def _name(port: Any) -> str:
    """The name in the file: a port may have several, and its node is called after the right one."""
    names = port.get_names()
    node = str(port.get_node().get_friendly_name())
    own = node.split("/sink_port_")[0]
    if own in names or not names:
        return own
    return str(min(names))
