"""The GPU check tells right from wrong from not proven. The CPU stands in for a GPU: the check itself is tried."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from bench import gpu_check, models
from inferd_runtime.engines.gpu import GpuMemory, count_nvidia_gpus
from inferd_runtime.engines.ort import OrtEngine

engine = OrtEngine(gpus=lambda: 0)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    return models.made(tmp_path_factory.mktemp("models"), [models.MLP])


def case(folders: Mapping[str, Path], **changes: object) -> gpu_check.Case:
    path = folders[models.MLP] / "1" / "model.onnx"
    given = {"model": models.MLP, "variant": "f32", "path": path, "device": "cpu", "precision": "auto", "rows": 0}
    return gpu_check.Case(**(given | changes))  # type: ignore[arg-type]


def finding(case: gpu_check.Case, offset: float = 0.0) -> gpu_check.Finding:
    """Of a model that should have said `offset` more than it says on the CPU."""
    inputs = models.vectors(np.random.default_rng(1), 5)
    [expected] = engine.open(case.path, gpu_check.SessionOptions()).run([inputs], [0])
    return gpu_check.check(engine, case, inputs, expected + offset, GpuMemory(), 0.0)


def test_right_answers_with_their_figures(folders: Mapping[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    """Both variants, free and fixed rows; every row of the table has its figures, and the exit code is 0."""
    found = list(gpu_check.findings(engine, folders, ["cpu"], 0.0))
    assert [one.case.rows for one in found] == [0, gpu_check.ROWS] * 2
    assert [one.case.variant for one in found] == ["f32", "f32", "int8", "int8"]
    assert gpu_check.report(found) == gpu_check.RIGHT
    printed = capsys.readouterr().out
    assert printed.count("| right | 0.0e+00 |") == 4
    assert "4 right, 0 wrong, 0 not proven" in printed
    assert {len(line.split("|")) for line in printed.splitlines() if line.startswith("|")} == {11}


@pytest.mark.parametrize("offset", [0.5, math.nan])
def test_wrong_answers_fail(offset: float, folders: Mapping[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    """An answer that strays, or is no number, is called wrong even where others are right."""
    wrong, right = finding(case(folders), offset), finding(case(folders))
    assert not wrong.is_right
    assert right.is_right
    assert gpu_check.report([right, wrong]) == gpu_check.WRONG
    assert "1 right, 1 wrong, 0 not proven" in capsys.readouterr().out


def test_a_run_that_fails_is_wrong(folders: Mapping[str, Path]) -> None:
    """A fault of the engine is no reason to stop, and not right."""
    broken = case(folders)
    inputs = np.zeros((4, 3), np.float32)  # the model takes 784
    found = gpu_check.check(engine, broken, inputs, inputs, GpuMemory(), 0.0)
    assert "784" in found.fault
    assert gpu_check.report([found]) == gpu_check.WRONG


def test_what_cannot_be_opened_is_not_proven(folders: Mapping[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    """A refusal is shown with its reason, and proves nothing in either direction."""
    found = finding(case(folders, device="cuda:0"))
    assert found.cells()[4] == "not proven"
    assert "no device 'cuda:0'" in found.cells()[-1]
    assert gpu_check.report([found]) == gpu_check.UNPROVEN
    assert gpu_check.report([found, finding(case(folders))]) == gpu_check.RIGHT
    assert "0 right, 0 wrong, 1 not proven" in capsys.readouterr().out


def test_why_nothing_is_proven() -> None:
    """No GPU, and a library without CUDA, are told apart."""
    assert "no NVIDIA GPU here" in gpu_check.why_nothing(engine, 0)
    assert "has no CUDA (try: make ENGINES=cuda gpu-check)" in gpu_check.why_nothing(engine, 1)


def test_without_a_gpu_it_says_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Where there is none, the check ends at once with 3 and claims nothing."""
    if count_nvidia_gpus():
        pytest.skip("there is an NVIDIA GPU here")
    monkeypatch.setattr("sys.argv", ["gpu_check"])
    assert gpu_check.main() == gpu_check.UNPROVEN
    assert "nothing was proven about CUDA or TensorRT" in capsys.readouterr().out
