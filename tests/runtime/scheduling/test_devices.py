"""Streams of a GPU are a currency of their own."""

from __future__ import annotations

from inferd_runtime.scheduling.budget import CoreBudget, Share
from inferd_runtime.scheduling.devices import DeviceBudgets


def test_every_device_has_one_budget() -> None:
    """The CPU's is the core budget; CUDA and TensorRT on one GPU share, other devices do not."""
    cores = CoreBudget(2)
    budgets = DeviceBudgets(cores)
    assert budgets.of("cpu") is cores
    assert budgets.of("cuda:0") is budgets.of("tensorrt:0")
    apart = [budgets.of(device) for device in ("cpu", "cuda:0", "cuda:1", "gpu", "gpu.1", "npu")]
    assert len(set(map(id, apart))) == len(apart)


def test_a_run_on_a_gpu_waits_for_no_core() -> None:
    """With all cores taken a stream is to be had, and no more of them than there are, whatever becomes of the cores."""
    cores = CoreBudget(2)
    budgets = DeviceBudgets(cores, streams=2)
    assert cores.ask_now(2, Share(), 1.0)
    cores.resize(1)
    gpu, share = budgets.of("cuda:0"), Share()
    assert gpu.size == 2
    assert [gpu.ask_now(1, share, 1.0) is not None for _ in range(3)] == [True, True, False]


def test_closing_ends_every_wait() -> None:
    """Nobody waits for a core or a stream of a runtime that is gone."""
    cores = CoreBudget(1)
    budgets = DeviceBudgets(cores, streams=1)
    lines = [cores, budgets.of("cuda:0"), budgets.of("npu")]
    for line in lines:
        line.ask_now(1, Share(), 1.0)
    waiting = [line.ask(1, Share(), 1.0) for line in lines]
    budgets.close()
    budgets.close()
    assert [claim.wait() for claim in waiting] == [False] * 3
