"""ONNX Runtime's providers for a device. No GPU is needed: a double plays a build that has CUDA and TensorRT."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnxruntime
import pytest

from inferd_runtime.engines import SessionOptions
from inferd_runtime.engines.ort import OrtEngine
from inferd_runtime.engines.providers import CPU, CUDA, TENSORRT, providers
from inferd_runtime.errors import EngineRefused
from tests import onnx_models


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """What an engine sets for CUDA is forgotten after the test."""
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "")
    monkeypatch.delenv("CUDA_DEVICE_ORDER")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return onnx_models.mlp(tmp_path / "model" / "m.onnx")


def settings(path: Path, device: str, **options: Any) -> dict[str, dict[str, str]]:
    """By provider, in order of preference."""
    return dict(providers(path, SessionOptions(device=device, **options)))


class GpuBuild:
    """onnxruntime with providers for a GPU that there is not; sessions are real ones on the CPU."""

    SessionOptions = onnxruntime.SessionOptions
    ExecutionMode = onnxruntime.ExecutionMode
    GraphOptimizationLevel = onnxruntime.GraphOptimizationLevel

    def __init__(self, starts: Sequence[str] = (TENSORRT, CUDA), complaint: str = "") -> None:
        self._starts = starts
        self._complaint = complaint
        self.preloads: list[str | None] = []
        self.asked: list[tuple[list[Any], dict[str, Any]]] = []

    def get_available_providers(self) -> list[str]:
        return [TENSORRT, CUDA, CPU]

    def preload_dlls(self, directory: str | None = None) -> None:
        self.preloads.append(os.environ.get("CUDA_DEVICE_ORDER"))
        if self._complaint.startswith("Invalid"):
            raise RuntimeError(self._complaint)
        print(self._complaint)

    def InferenceSession(self, path: Path, options: Any, providers: list[Any], **given: Any) -> Any:
        names = [one if isinstance(one, str) else one[0] for one in providers]
        self.asked.append((names, given))
        session = onnxruntime.InferenceSession(path, options, providers=[CPU])
        session.get_providers = lambda: [name for name in names if name == CPU or name in self._starts]
        return session


def engine(build: GpuBuild, gpus: int = 1) -> OrtEngine:
    return OrtEngine(gpus=lambda: gpus, load=lambda: build)


def test_the_order_of_preference(model: Path) -> None:
    """What TensorRT cannot take falls to CUDA, and what CUDA cannot take to the CPU."""
    assert list(settings(model, "cpu")) == [CPU]
    assert list(settings(model, "cuda:0")) == [CUDA, CPU]
    assert list(settings(model, "tensorrt:0")) == [TENSORRT, CUDA, CPU]


def test_the_gpu_is_the_one_asked_for(model: Path) -> None:
    """Every provider on the way gets the device's number."""
    assert settings(model, "cuda:1")[CUDA]["device_id"] == "1"
    chain = settings(model, "tensorrt:2")
    assert chain[TENSORRT]["device_id"] == chain[CUDA]["device_id"] == "2"


def test_full_float32_only_where_it_is_asked_for(model: Path) -> None:
    """CUDA rounds to TF32 as it would by itself, and does not when f32 is asked for."""
    assert settings(model, "cuda:0")[CUDA]["use_tf32"] == "1"
    assert settings(model, "cuda:0", precision="f32")[CUDA]["use_tf32"] == "0"


def test_convolutions_are_timed_only_for_fixed_rows(model: Path) -> None:
    """An exhaustive search would begin anew with every number of rows."""
    assert settings(model, "cuda:0")[CUDA]["cudnn_conv_algo_search"] == "HEURISTIC"
    assert settings(model, "cuda:0", rows=4)[CUDA]["cudnn_conv_algo_search"] == "EXHAUSTIVE"


def test_precisions_of_tensorrt(model: Path) -> None:
    """f16 and bf16 switch on what they say and nothing else; float32 cannot be had, and that is said."""
    enabled = {
        precision: [name for name in settings(model, "tensorrt:0", precision=precision)[TENSORRT] if "enable" in name]
        for precision in ("auto", "f16", "bf16")
    }
    assert enabled == {"auto": [], "f16": ["trt_fp16_enable"], "bf16": ["trt_bf16_enable"]}
    with pytest.raises(EngineRefused, match="TensorRT has no f32 here: it rounds float32 to TF32"):
        settings(model, "tensorrt:0", precision="f32")


@pytest.mark.parametrize(("device", "precision"), [("cpu", "bf16"), ("cpu", "f16"), ("cuda:0", "f16")])
def test_precisions_that_are_not_there(device: str, precision: str, model: Path) -> None:
    """Elsewhere the file's own types are what is computed in."""
    with pytest.raises(EngineRefused, match=f"no {precision} hint"):
        settings(model, device, precision=precision)


def test_an_engine_offers_what_its_providers_take(model: Path) -> None:
    """Every precision that is offered for a device is taken there."""
    for device in ("cpu", "cuda:0", "tensorrt:0"):
        for precision in OrtEngine().precisions(device):
            assert settings(model, device, precision=precision)
    assert OrtEngine().precisions("cpu") == ()


def test_tensorrt_is_told_of_int8(model: Path, tmp_path: Path) -> None:
    """It takes Q/DQ pairs only with INT8 switched on, and floats only without."""
    quantised = onnx_models.qdq_per_channel(tmp_path / "q.onnx", opset=13)
    assert settings(quantised, "tensorrt:0")[TENSORRT]["trt_int8_enable"] == "True"
    assert "trt_int8_enable" not in settings(model, "tensorrt:0")[TENSORRT]


@pytest.mark.parametrize("at", [(1 << 20) - 7, 1 << 20, (3 << 20) + 5])
def test_int8_is_found_anywhere_in_a_large_file(at: int, tmp_path: Path) -> None:
    """Also where the name lies across two of the parts that are read."""
    path = tmp_path / "large.onnx"
    path.write_bytes(b"\0" * at + b"DequantizeLinear" + b"\0" * 100)
    assert "trt_int8_enable" in settings(path, "tensorrt:0")[TENSORRT]


def test_engines_that_were_built_are_kept_apart(model: Path, tmp_path: Path) -> None:
    """One folder a precision and number of rows, under the model's content; timings are shared by all."""
    ways: list[dict[str, Any]] = [{}, {"rows": 4}, {"precision": "f16"}, {"precision": "f16", "rows": 4}]
    chains = [settings(model, "tensorrt:0", cache_dir=tmp_path / "cache", **way)[TENSORRT] for way in ways]
    folders = {Path(chain["trt_engine_cache_path"]) for chain in chains}
    assert len(folders) == 4
    assert all(folder.is_dir() for folder in folders)
    assert {chain["trt_timing_cache_path"] for chain in chains} == {str(tmp_path / "cache" / "tensorrt")}


def test_a_session_on_a_gpu(model: Path) -> None:
    """NVIDIA's libraries are loaded once, before, with GPUs in the order of the bus; no fallback behind our back."""
    build = GpuBuild()
    one = engine(build, gpus=2)
    assert one.devices() == ("cpu", "cuda:0", "cuda:1", "tensorrt:0", "tensorrt:1")
    for rows in (0, 4):
        one.open(model, SessionOptions(device="cuda:1", rows=rows))
    assert build.preloads == ["PCI_BUS_ID"]
    assert build.asked[0] == build.asked[-1] == ([CUDA, CPU], {"enable_fallback": 0})


def test_the_cpu_needs_none_of_it(model: Path) -> None:
    """A session on the CPU loads nothing of NVIDIA's."""
    build = GpuBuild()
    engine(build).open(model, SessionOptions())
    assert build.preloads == []


@pytest.mark.parametrize(
    ("complaint", "reason"),
    [
        ("Failed to load libcudnn.so.9: no such file", "Failed to load libcudnn.so.9: no such file"),
        ("Invalid parameter of directory", "Invalid parameter of directory"),
        ("", "driver or library missing"),
    ],
)
def test_a_gpu_that_does_not_start(
    complaint: str, reason: str, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A provider that is left out is a refusal with what is known of why, never a session on the CPU."""
    one = engine(GpuBuild(starts=(), complaint=complaint))
    for _ in range(2):
        with pytest.raises(EngineRefused) as refusal:
            one.open(model, SessionOptions(device="cuda:0"))
        assert str(refusal.value) == f"CUDAExecutionProvider could not be started here: {reason}"
    assert capsys.readouterr().out == ""
