"""Inputs to try a model with: read from files that may be anything, or made up for models of every kind."""

from __future__ import annotations

import itertools
import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inferd_runtime.planning import inputs
from inferd_runtime.planning.inputs import Samples, made_up, read_stored, stored_mark
from inferd_runtime.spec import ModelSpec
from inferd_runtime.tensor import BFLOAT16, DATATYPE_NAMES, STRING, TensorSpec

Array = np.ndarray[Any, Any]
FP32, INT64 = np.dtype(np.float32), np.dtype(np.int64)


def spec(*tensors: TensorSpec, max_batch: int = 64) -> ModelSpec:
    return ModelSpec(tensors, (), max_batch)


IMAGE = spec(TensorSpec("image", FP32, (-1, 3, -1, -1)))
VOICE = spec(
    TensorSpec("input", FP32, (-1, -1)),
    TensorSpec("state", FP32, (2, -1, 128)),
    TensorSpec("rate", INT64, ()),
    max_batch=0,
)


def store(folder: Path, source: str = "golden", name: str = "a.npz", **arrays: Array) -> None:
    (folder / source).mkdir(exist_ok=True)
    np.savez(folder / source / name, **arrays)


def read(folder: Path, model: ModelSpec = IMAGE) -> Samples:
    samples, _ = read_stored(folder, model)
    assert samples
    return samples


def images(count: int, side: int = 4, dtype: Any = np.float32) -> Array:
    return np.arange(count * 3 * side * side).reshape(count, 3, side, side).astype(dtype)


def test_golden_data_comes_before_calibration_data(tmp_path: Path) -> None:
    """Each sample is a request of one row; arrays that are no inputs are left alone."""
    store(tmp_path, "calibration", image=images(2))
    assert read(tmp_path).source == "calibration"
    store(tmp_path, image=images(3), labels=np.arange(3))
    samples = read(tmp_path)
    assert (samples.source, len(samples.requests), samples.is_batched) == ("golden", 3, True)
    assert [list(feeds) for feeds in samples.requests] == [["image"]] * 3
    assert np.array_equal(samples.requests[1]["image"], images(3)[1:2])
    assert not samples.requests[1]["image"].flags.writeable


def test_files_may_differ_in_sizes_but_rows_together_do_not(tmp_path: Path) -> None:
    """Rows that are shaped alike are stacked, over and over where more are asked for than there are."""
    store(tmp_path, name="a.npz", image=images(3))
    store(tmp_path, name="b.npz", image=images(2, side=8))
    samples = read(tmp_path)
    assert samples.stacked(5)["image"].shape == (5, 3, 4, 4)
    assert np.array_equal(samples.stacked(5)["image"][3], images(3)[0])
    assert samples.stacked(2, begin=3)["image"].shape == (2, 3, 8, 8)
    assert list(samples.groups(8)) == [(0, 1), (1, 2), (3, 2)]
    assert list(samples.groups(1)) == [(row, 1) for row in range(5)]
    assert samples.row_bytes == 3 * 4 * 4 * 4


def test_without_a_batch_a_file_is_a_sample(tmp_path: Path) -> None:
    """Every array is one whole input there, and nothing is stacked."""
    for name, frames in (("a.npz", 576), ("b.npz", 512)):
        arrays = {"input": np.zeros((1, frames)), "state": np.zeros((2, 1, 128), np.float32), "rate": np.array(16000)}
        store(tmp_path, name=name, **arrays)
    samples = read(tmp_path, VOICE)
    assert [feeds["input"].shape for feeds in samples.requests] == [(1, 576), (1, 512)]
    assert [feeds["input"].dtype for feeds in samples.requests] == [FP32, FP32]
    assert samples.requests[0]["rate"] == 16000
    assert samples.stacked(4) is samples.requests[0]
    assert list(samples.groups(8)) == [(0, 1), (1, 1)]


@pytest.mark.parametrize(
    ("dtype", "array", "first"),
    [
        (STRING, np.array([["ä"], ["b"]]), "ä".encode()), (STRING, np.array([[b"x"], [b"yz"]]), b"x"),
        (BFLOAT16, np.ones((2, 1), BFLOAT16), 1.0), (np.dtype(np.int32), np.array([[7], [8]]), 7),
        (np.dtype(np.float16), np.array([[0.5], [1]]), 0.5), (FP32, np.array([[3], [4]], np.uint8), 3.0),
    ],
)  # fmt: skip
def test_arrays_become_the_type_of_the_input(tmp_path: Path, dtype: Any, array: Array, first: object) -> None:
    """What numpy stores for strings, BF16 and numbers of another width is taken for what it means."""
    store(tmp_path, x=array)
    got = read(tmp_path, spec(TensorSpec("x", dtype, (-1, 1)))).requests[0]["x"]
    assert (got.dtype, got.shape, got[0, 0]) == (dtype, (1, 1), first)


@pytest.mark.parametrize(
    ("arrays", "complaint"),
    [
        ({"picture": images(1)}, "it has no array 'image', only 'picture'"),
        ({"image": images(2)[0]}, r"'image' has shape \[3, 4, 4\], expected \[-1, 3, -1, -1\]"),
        ({"image": images(2)[:, :1]}, r"'image' has shape \[2, 1, 4, 4\]"),
        ({"image": np.array(3.0)}, r"'image' has shape \[\]"),
        ({"image": images(1, dtype=np.complex64)}, "'image' is complex64, expected FP32"),
        ({"image": np.full((1, 3, 4, 4), "x")}, "'image' is <U1, expected FP32"),
        ({"image": np.array([{}], object)}, "it cannot be read"),
    ],
)
def test_what_does_not_fit_is_left_out_with_a_reason(tmp_path: Path, arrays: dict[str, Array], complaint: str) -> None:
    """A file that does not fit the model is named; others beside it still count."""
    (tmp_path / "golden").mkdir()
    np.savez(tmp_path / "golden" / "bad.npz", **arrays)  # type: ignore[arg-type]
    samples, note = read_stored(tmp_path, IMAGE)
    assert samples is None
    assert note.startswith("golden/bad.npz: ")
    assert re.search(complaint, note)
    store(tmp_path, name="good.npz", image=images(1))
    assert "golden/bad.npz" in read(tmp_path).note


def test_inputs_of_one_file_have_equally_many_samples(tmp_path: Path) -> None:
    """Arrays that differ in their first axis are no samples of one batch."""
    pair = spec(TensorSpec("a", FP32, (-1, 2)), TensorSpec("b", FP32, (-1, 2)))
    store(tmp_path, a=np.zeros((3, 2)), b=np.zeros((2, 2)))
    assert read_stored(tmp_path, pair) == (None, "golden/a.npz: its arrays differ in samples: {'a': 3, 'b': 2}")


def test_files_that_are_not_what_they_seem_harm_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Garbage, half a file, a bomb and a folder are all left out."""
    monkeypatch.setattr(inputs, "MAX_FILE_BYTES", 4 << 20)
    folder = tmp_path / "golden"
    folder.mkdir()
    (folder / "garbage.npz").write_bytes(b"garbage")
    np.savez(folder / "whole.npz", image=images(1))
    (folder / "half.npz").write_bytes((folder / "whole.npz").read_bytes()[:200])
    (folder / "whole.npz").unlink()
    (folder / "folder.npz").mkdir()
    with (
        zipfile.ZipFile(folder / "bomb.npz", "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("image.npy", "w") as f,
    ):
        for _ in range(5):
            f.write(bytes(1 << 20))
    samples, note = read_stored(tmp_path, IMAGE)
    assert samples is None
    assert "golden/bomb.npz: it holds 5 MiB, more than 4" in note
    assert "golden/garbage.npz: it cannot be read" in note
    assert "golden/half.npz: it cannot be read" in note


def test_much_data_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No more samples than are of use, nor more bytes; one at least."""
    store(tmp_path, image=images(100))
    assert len(read(tmp_path).requests) == inputs.MAX_SAMPLES
    monkeypatch.setattr(inputs, "MAX_BYTES", 5 * 192)
    assert len(read(tmp_path).requests) == 5
    monkeypatch.setattr(inputs, "MAX_BYTES", 1)
    assert len(read(tmp_path).requests) == 1


def test_nothing_is_stored_is_no_fault(tmp_path: Path) -> None:
    """Most models have no data beside them, and bare files have no folder."""
    assert read_stored(tmp_path, IMAGE) == (None, "")
    assert read_stored(None, IMAGE) == (None, "")


def test_the_mark_changes_with_the_data(tmp_path: Path) -> None:
    """What was measured with other data can be told from this."""
    empty = stored_mark(tmp_path)
    assert empty == stored_mark(None)
    store(tmp_path, image=images(1))
    first = stored_mark(tmp_path)
    assert first == stored_mark(tmp_path) != empty
    store(tmp_path, image=images(2))
    assert stored_mark(tmp_path) != first


def test_made_up_inputs_come_in_likely_shapes_first() -> None:
    """Sizes are guessed one after the other and told; values are those of a model's everyday life."""
    guesses = list(made_up(IMAGE))
    assert [g.requests[0]["image"].shape for g in guesses[::3]] == [(1, 3, side, side) for side in inputs.GUESSED_SIZES]
    first = guesses[0]
    assert (first.source, first.is_batched, len(first.requests)) == ("generated", True, inputs.MADE_UP)
    assert first.note == "sizes guessed: image [1, 3, 128, 128]"
    assert abs(float(first.requests[0]["image"].mean())) < 0.1
    assert not np.array_equal(first.requests[0]["image"], first.requests[1]["image"])
    again = next(made_up(IMAGE))
    assert np.array_equal(first.requests[0]["image"], again.requests[0]["image"])


def test_models_with_a_state_are_given_one_of_each() -> None:
    """Where nothing is a batch, free first dimensions count things: one of them, and a state for one."""
    first = next(made_up(VOICE)).requests[0]
    assert {name: array.shape for name, array in first.items()} == {
        "input": (1, 128),
        "state": (2, 1, 128),
        "rate": (),
    }
    alike = [guess.requests[0]["state"].shape for guess in made_up(VOICE)]
    assert (2, 64, 128) in alike


def test_tokens_and_masks_are_such() -> None:
    """Token numbers are small, masks let everything through, segments are the first."""
    names = ("input_ids", "attention_mask", "token_type_ids")
    text = spec(*(TensorSpec(name, INT64, (-1, -1)) for name in names))
    feeds = next(made_up(text)).requests[0]
    assert feeds["input_ids"].shape == (1, 128)
    assert 0 <= feeds["input_ids"].min() < feeds["input_ids"].max() < 256
    assert feeds["attention_mask"].all()
    assert not feeds["token_type_ids"].any()


def test_inputs_that_are_too_large_are_not_made_up() -> None:
    """A guess that would take much memory is passed over; a model that always would gets none."""
    shapes = [guess.requests[0]["x"].shape for guess in made_up(spec(TensorSpec("x", FP32, (-1, -1, -1, -1, 65))))]
    assert max(int(np.prod(shape)) * 4 for shape in shapes) <= inputs.MAX_BYTES
    assert (1, 64, 64, 64, 65) not in shapes
    assert list(made_up(spec(TensorSpec("x", FP32, (-1, 1 << 13, 1 << 13))))) == []


@settings(deadline=None, max_examples=60)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(list(DATATYPE_NAMES)),
            st.lists(st.sampled_from([-1, 0, 1, 3]), max_size=2),
            st.sampled_from(["x", "mask", "type"]),
        ),
        max_size=3,
    ),
    st.booleans(),
)
def test_any_model_gets_inputs_of_its_types_and_shapes(
    tensors: list[tuple[np.dtype[Any], list[int], str]], is_batched: bool
) -> None:
    """For every datatype and shape what is made up fits the spec, and rows can be stacked where they are rows."""
    named = [
        TensorSpec(f"{name}{index}", dtype, (-1, *shape) if is_batched else tuple(shape))
        for index, (dtype, shape, name) in enumerate(tensors)
    ]
    for samples in itertools.islice(made_up(spec(*named, max_batch=64 if is_batched else 0)), 4):
        for tensor in named:
            array = samples.stacked(3)[tensor.name]
            expected = (3, *tensor.shape[1:]) if is_batched else tensor.shape
            assert array.dtype == tensor.dtype
            assert len(array.shape) == len(expected)
            assert all(want in (-1, have) for want, have in zip(expected, array.shape, strict=True))
