"""What the driver tells of NVIDIA GPUs. NVML is played by a double with the figures that a driver gave."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import pytest

from inferd_runtime.engines.gpu import DeviceMemory, GpuMemory, count_nvidia_gpus

MIB = 1 << 20
# As nvidia-smi showed it of an idle NVIDIA H200; a second, smaller card beside it.
H200 = (143771 * MIB, 143771 * MIB, 0)
T4 = (15360 * MIB, 14259 * MIB, 1101 * MIB)


class Nvml:
    """The few calls, with NVML's own way of answering: a code, and the value behind a pointer."""

    def __init__(self, *devices: tuple[int, int, int], start: int = 0, uuids: tuple[str, ...] = ()) -> None:
        self._devices = devices
        self._start = start
        self._uuids = uuids
        self.users = 0

    def nvmlInit_v2(self) -> int:
        self.users += not self._start
        return self._start

    def nvmlShutdown(self) -> int:
        self.users -= 1
        return 0

    def nvmlDeviceGetHandleByIndex_v2(self, index: ctypes.c_uint, handle: Any) -> int:
        if index.value >= len(self._devices):
            return 2  # NVML_ERROR_INVALID_ARGUMENT
        handle._obj.value = index.value + 1
        return 0

    def nvmlDeviceGetHandleByUUID(self, uuid: bytes, handle: Any) -> int:
        handle._obj.value = self._uuids.index(uuid.decode()) + 1
        return 0

    def nvmlDeviceGetMemoryInfo(self, handle: ctypes.c_void_p, memory: Any) -> int:
        assert handle.value
        total, free, used = self._devices[handle.value - 1]
        target = ctypes.cast(memory, ctypes.POINTER(ctypes.c_ulonglong * 3)).contents
        target[:] = (total, free, used)
        return 0


def looking(nvml: object, **environ: str) -> GpuMemory:
    def load(name: str) -> Any:
        assert name == "libnvidia-ml.so.1"
        if isinstance(nvml, Exception):
            raise nvml
        return nvml

    return GpuMemory(load=load, environ=environ)


def test_gpus_are_counted_by_device_node(tmp_path: Path) -> None:
    """One device for each NVIDIA GPU node, one for a Jetson, none without."""
    assert count_nvidia_gpus(tmp_path) == 0
    (tmp_path / "nvmap").touch()
    assert count_nvidia_gpus(tmp_path) == 1
    for name in ("nvidia0", "nvidia1", "nvidiactl", "nvidia-uvm"):
        (tmp_path / name).touch()
    assert count_nvidia_gpus(tmp_path) == 2


@pytest.mark.parametrize("device", ["cuda:1", "tensorrt:1"])
def test_memory_of_the_device_that_a_session_is_on(device: str) -> None:
    """Bytes in all and in use, of the GPU with that number; the library is left as it was found."""
    nvml = Nvml(H200, T4)
    assert looking(nvml).look(device) == DeviceMemory(total_bytes=15360 * MIB, used_bytes=1101 * MIB)
    assert looking(nvml).look("cuda:0") == DeviceMemory(total_bytes=143771 * MIB, used_bytes=0)
    assert nvml.users == 0


@pytest.mark.parametrize(
    ("visible", "expected"),
    [("1", T4), ("1,0", T4), ("0,1", H200), ("GPU-b", T4), ("GPU-a, GPU-b", H200)],
)
def test_what_cuda_may_see_is_what_is_looked_at(visible: str, expected: tuple[int, int, int]) -> None:
    """CUDA counts only what the environment names, by number or by UUID."""
    seen = looking(Nvml(H200, T4, uuids=("GPU-a", "GPU-b")), CUDA_VISIBLE_DEVICES=visible).look("cuda:0")
    assert seen == DeviceMemory(expected[0], expected[2])


@pytest.mark.parametrize(
    "nvml",
    [OSError("libnvidia-ml.so.1: cannot open shared object file"), object(), Nvml(H200, start=9)],
    ids=["no library", "another library", "no driver"],
)
def test_a_driver_that_does_not_tell(nvml: object) -> None:
    """Where there is no library, a strange one, or no driver behind it, nothing is known, and nothing raised."""
    assert looking(nvml).look("cuda:0") is None


@pytest.mark.parametrize("device", ["cpu", "gpu", "npu", "cuda", "cuda:7", "gpu.1"])
def test_other_devices_have_none(device: str) -> None:
    """Only NVIDIA's own devices are known to its driver, and only those that are there."""
    nvml = Nvml(H200)
    assert looking(nvml).look(device) is None
    assert nvml.users == 0


def test_a_gpu_that_is_hidden_has_none() -> None:
    """With fewer GPUs allowed than there are, the rest is not counted."""
    assert looking(Nvml(H200, T4), CUDA_VISIBLE_DEVICES="1").look("cuda:1") is None


def test_this_machine_is_looked_at() -> None:
    """The real library, where it is: more in all than in use."""
    memory = GpuMemory().look("cuda:0")
    if memory is None:
        pytest.skip("no NVIDIA driver here")
    assert 0 <= memory.used_bytes <= memory.total_bytes
