"""Streams of a GPU are a currency of their own."""

from __future__ import annotations

from inferd_runtime.scheduling.budget import CoreBudget
from inferd_runtime.scheduling.devices import DeviceBudgets


def test_every_device_has_one_budget() -> None:
    """The CPU's is the core budget; CUDA and TensorRT on one GPU share, other devices do not."""
    cores = CoreBudget(2)
    budgets = DeviceBudgets(cores)
    assert budgets.of("cpu") is cores
    assert budgets.of("cuda:0") is budgets.of("tensorrt:0")
    apart = [budgets.of(device) for device in ("cpu", "cuda:0", "cuda:1", "gpu", "gpu.1", "npu")]
    assert len(set(map(id, apart))) == len(apart)


def test_a_gpu_has_its_streams_whatever_becomes_of_the_cores() -> None:
    """The governor takes cores away, and no streams."""
    cores = CoreBudget(4)
    budgets = DeviceBudgets(cores, streams=2)
    cores.resize(1)
    assert budgets.of("cuda:0").size == 2
