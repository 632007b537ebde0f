"""The models that the benches make are the same every time, and both engines run them."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from bench import models
from inferd_runtime.engines import SessionOptions
from inferd_runtime.engines.ort import OrtEngine
from inferd_runtime.engines.ov import OvEngine


@pytest.mark.parametrize("name", [models.MLP, models.ENCODER])
def test_both_engines_say_the_same(name: str, tmp_path: Path) -> None:
    """Built twice, the file is the same; ONNX Runtime and OpenVINO give one answer, and rows differ."""
    recipe = models.RECIPES[name]
    digests = set()
    for folder in ("a", "b"):
        recipe.build(tmp_path / folder / "model.onnx")
        digests.add(hashlib.sha256((tmp_path / folder / "model.onnx").read_bytes()).digest())
    assert len(digests) == 1
    rows = recipe.draw(np.random.default_rng(1), 4)
    one, other = (
        engine.open(tmp_path / "a" / "model.onnx", SessionOptions(precision="f32")).run([rows], [0])[0]
        for engine in (OrtEngine(), OvEngine())
    )
    assert one.shape == (4, models.CLASSES)
    np.testing.assert_allclose(one, other, atol=1e-3)
    assert np.ptp(one, axis=0).max() > 0.01


def test_a_model_is_made_once_as_the_daemon_serves_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The folder has both variants and the samples that calibrated one; asking again makes nothing."""
    folder = models.made(tmp_path, [models.MLP])[models.MLP]
    assert sorted(str(path.relative_to(folder)) for path in folder.rglob("*.*")) == [
        "1/model.int8.onnx", "1/model.onnx", "calibration/samples.npz",
    ]  # fmt: skip
    with np.load(folder / "calibration" / "samples.npz") as samples:
        assert samples["x"].shape == (models.SAMPLES, models.FEATURES)
    assert "cosine 0.99" in capsys.readouterr().out
    made_ns = (folder / "1" / "model.onnx").stat().st_mtime_ns
    assert models.made(tmp_path, [models.MLP])[models.MLP] == folder
    assert (folder / "1" / "model.onnx").stat().st_mtime_ns == made_ns
