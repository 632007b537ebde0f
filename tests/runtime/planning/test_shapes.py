"""Dimensions that settings fix: narrowed where they are free, refused where they are not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from inferd_runtime.engines.ort import OrtEngine
from inferd_runtime.errors import InvalidModel
from inferd_runtime.planning.plan import Ground, Wishes
from inferd_runtime.planning.shapes import narrowed
from inferd_runtime.planning.static import plan_version
from inferd_runtime.spec import ModelSpec
from inferd_runtime.tensor import TensorSpec
from tests import onnx_models

F32 = np.dtype(np.float32)
SPEC = ModelSpec((TensorSpec("x", F32, (-1, -1, 4)),), (TensorSpec("y", F32, (-1, -1)),), 8)


def test_free_dimensions_are_fixed() -> None:
    """Behind the batch where there is one, and from the first on where there is none; -1 leaves a dimension free."""
    assert narrowed(SPEC, {}) is SPEC
    assert narrowed(SPEC, {"x": (3, -1), "y": (5,)}) == ModelSpec(
        (TensorSpec("x", F32, (-1, 3, 4)),), (TensorSpec("y", F32, (-1, 5)),), 8
    )
    assert narrowed(replace(SPEC, max_batch=0), {"x": (2, 3, 4)}).inputs[0].shape == (2, 3, 4)


@pytest.mark.parametrize("shape", [(3, 5), (3,), (1, 3, 4)])
def test_the_models_own_dimensions_stay(shape: tuple[int, ...]) -> None:
    """Another rank, or another size than the model's, is refused with both."""
    with pytest.raises(InvalidModel, match=r"given for 'x', which is \[-1, 4\] behind its batch"):
        narrowed(SPEC, {"x": shape})


def test_unknown_tensors_are_named() -> None:
    """A slip in a name is told with the names that are."""
    with pytest.raises(InvalidModel, match="'z', but the model's tensors are x, y"):
        narrowed(SPEC, {"z": (1,)})


def test_a_plan_has_the_narrowed_spec(tmp_path: Path) -> None:
    """What is admitted, tried and told is what the settings say; sizes that are known need no guess."""
    path = onnx_models.dynamic_width(tmp_path / "model.onnx")
    ground = Ground(engines={"onnxruntime": OrtEngine()}, cores=1)
    planned = plan_version(ground, {"": path}, Wishes(shapes=(("x", (6,)), ("y", (6,)))))
    try:
        assert planned.spec.inputs[0].shape == (-1, 6)
        assert planned.spec.outputs[0].shape == (-1, 6)
        assert "sizes are free" not in planned.plan.reason
    finally:
        planned.session.close()
