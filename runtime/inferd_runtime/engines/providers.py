"""ONNX Runtime's execution providers for a device, with their settings: the CPU's, CUDA's and TensorRT's.

A node that the first provider cannot take falls to the next. Settings here decide numbers as well as speed: CUDA
rounds float32 to TF32 unless told not to, and TensorRT refuses Q/DQ pairs unless INT8 is switched on.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

from inferd_runtime.engines import SessionOptions
from inferd_runtime.engines.cache import compiled_folder
from inferd_runtime.errors import EngineRefused

Provider = tuple[str, dict[str, str]]

CPU, CUDA, TENSORRT = "CPUExecutionProvider", "CUDAExecutionProvider", "TensorrtExecutionProvider"
_CHUNK_BYTES = 1 << 20
_QUANTISED = b"DequantizeLinear"


def extra_precisions(device: str) -> tuple[str, ...]:
    """What may be asked for beyond "auto", which is the file's own types, on a GPU with float32 rounded to TF32."""
    return {"cuda": ("f32",), "tensorrt": ("f16", "bf16")}.get(_kind(device), ())


def providers(path: Path, options: SessionOptions) -> list[Provider]:
    """In order of preference. Raises EngineRefused for a precision that the device does not have."""
    kind, _, index = options.device.partition(":")
    _check_precision(kind, options.precision)
    cpu: Provider = (CPU, {})
    if kind == "cpu":
        return [cpu]
    cuda: Provider = (CUDA, _cuda(index, options))
    return [cuda, cpu] if kind == "cuda" else [(TENSORRT, _tensorrt(path, index, options)), cuda, cpu]


def _kind(device: str) -> str:
    return device.partition(":")[0]


def _check_precision(kind: str, precision: str) -> None:
    if precision == "auto" or precision in extra_precisions(kind) or (kind, precision) == ("cpu", "f32"):
        return
    if kind == "tensorrt":
        raise EngineRefused(
            f"TensorRT has no {precision} here: it rounds float32 to TF32, and ONNX Runtime has no setting against it"
        )
    raise EngineRefused(f"ONNX Runtime has no {precision} hint: it computes in the file's own types")


def _cuda(index: str, options: SessionOptions) -> dict[str, str]:
    return {
        "device_id": index,
        # Grow by what is asked, not by powers of two: the GPU is shared with other models.
        "arena_extend_strategy": "kSameAsRequested",
        "use_tf32": "0" if options.precision == "f32" else "1",
        # An exhaustive search times all convolutions again for every shape it meets, while requests wait.
        "cudnn_conv_algo_search": "EXHAUSTIVE" if options.rows else "HEURISTIC",
    }


def _tensorrt(path: Path, index: str, options: SessionOptions) -> dict[str, str]:
    settings = {"device_id": index}
    if options.precision != "auto":
        settings["trt_fp16_enable" if options.precision == "f16" else "trt_bf16_enable"] = "True"
    if _is_quantised(path):
        settings["trt_int8_enable"] = "True"
    folder = compiled_folder(options.cache_dir, "tensorrt", path)
    if folder is not None:
        # What was built for one precision or number of rows must not answer for another.
        built = folder / f"{options.precision}-{options.rows}"
        with contextlib.suppress(OSError):
            built.mkdir(exist_ok=True, mode=0o700)
            settings |= {"trt_engine_cache_enable": "True", "trt_engine_cache_path": str(built)}
            settings |= {"trt_timing_cache_enable": "True", "trt_timing_cache_path": str(folder.parent)}
    return settings


def _is_quantised(path: Path) -> bool:
    """Whether the file names the operator that every Q/DQ pair ends in; read in parts, for it may be large."""
    tail = b""
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            if _QUANTISED in tail + chunk:
                return True
            tail = chunk[-len(_QUANTISED) :]
    return False
