"""What is let in, and what the refusals say."""

from __future__ import annotations

import numpy as np
import pytest

from inferd_runtime.errors import InvalidRequest
from inferd_runtime.job import Array, Job
from inferd_runtime.scheduling.admission import Admission
from inferd_runtime.spec import ModelSpec
from inferd_runtime.tensor import STRING, TensorSpec

F32 = np.dtype(np.float32)
I64 = np.dtype(np.int64)
TWO = ModelSpec(
    (TensorSpec("image", F32, (-1, 3, -1)), TensorSpec("ids", I64, (-1, 4))), (TensorSpec("y", F32, (-1, 1)),), 8
)
FIXED = ModelSpec((TensorSpec("x", F32, (4, 3)),), (TensorSpec("y", F32, (4,)),), 0)
TEXT = ModelSpec((TensorSpec("text", STRING, (-1,)),), (TensorSpec("y", F32, (-1,)),), 8)


def admit(spec: ModelSpec, *outputs: str, **inputs: Array) -> Job:
    job = Job("m", inputs, outputs=outputs)
    Admission(spec).check(job)
    return job


def pair(rows: int, width: int = 5, id_rows: int | None = None) -> dict[str, Array]:
    return {
        "image": np.zeros((rows, 3, width), F32),
        "ids": np.zeros((rows if id_rows is None else id_rows, 4), I64),
    }


def test_rows_bytes_and_group_are_filled_in() -> None:
    """An admitted job knows its rows, its bytes and whom it may share a batch with."""
    job = admit(TWO, **pair(2))
    assert (job.rows, job.nbytes) == (2, 2 * 3 * 5 * 4 + 2 * 4 * 8)
    assert job.group == admit(TWO, **pair(7)).group
    assert job.group != admit(TWO, **pair(2, width=6)).group


def test_a_fixed_model_counts_one_row_a_job() -> None:
    """Without a batch dimension the first dimension is just part of the shape."""
    assert admit(FIXED, x=np.zeros((4, 3), F32)).rows == 1


def test_text_counts_its_bytes() -> None:
    """A string tensor weighs what its strings weigh."""
    array = np.array([b"a" * 1000, b""], object)
    assert admit(TEXT, text=array).nbytes == 1000 + 16


@pytest.mark.parametrize(
    ("spec", "inputs", "message"),
    [
        (FIXED, {}, "input 'x' is missing: expected FP32 [4,3]"),
        (FIXED, {"y": np.zeros((4, 3), F32)}, "input 'x' is missing"),
        (FIXED, {"x": np.zeros((4, 3), F32), "z": np.zeros(1)}, "unknown input 'z'; this model takes 'x'"),
        (FIXED, {"x": np.zeros((4, 3))}, "input 'x': expected FP32 [4,3], got FP64 [4,3]"),
        (FIXED, {"x": np.zeros((4, 3), ">f4")}, "expected FP32"),
        (FIXED, {"x": np.zeros((5, 3), F32)}, "input 'x': expected FP32 [4,3], got FP32 [5,3]"),
        (FIXED, {"x": np.zeros((), F32)}, "got FP32 []"),
        (TWO, pair(2, id_rows=3), "input 'ids' has 3 rows, but input 'image' has 2"),
        (TWO, pair(9), "the request has 9 rows; this model takes 1 to 8"),
        (TWO, pair(0), "the request has 0 rows; this model takes 1 to 8"),
        (TWO, {**pair(1), "image": np.zeros((), F32)}, "expected FP32 [-1,3,-1], got FP32 []"),
        (TWO, {**pair(1), "image": np.zeros((1, 2, 5), F32)}, "got FP32 [1,2,5]"),
        (TEXT, {"text": np.array(["words"], object)}, "elements of a BYTES tensor are bytes, got str"),
        (TEXT, {"text": np.array([b"x"], "S")}, "expected BYTES [-1], got |S1 [1]"),
    ],
)
def test_refusals_say_what_was_expected_and_what_came(spec: ModelSpec, inputs: dict[str, Array], message: str) -> None:
    """A refusal names the tensor, what was expected and what came."""
    with pytest.raises(InvalidRequest) as refusal:
        admit(spec, **inputs)
    assert message in str(refusal.value)


def test_unknown_outputs_are_refused() -> None:
    """A wanted output that does not exist is the caller's mistake."""
    with pytest.raises(InvalidRequest, match="unknown output 'nope'; this model gives 'y'"):
        admit(FIXED, "y", "nope", x=np.zeros((4, 3), F32))


def test_long_lists_of_names_are_cut() -> None:
    """The caller's own words cannot make a message long."""
    inputs = {"x": np.zeros((4, 3), F32)} | {"n" * 5000 + str(i): np.zeros(1) for i in range(50)}
    with pytest.raises(InvalidRequest, match="and 47 more") as refusal:
        admit(FIXED, **inputs)
    assert len(str(refusal.value)) < 400
