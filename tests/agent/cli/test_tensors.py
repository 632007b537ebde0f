"""Files to tensors: .npy, .json and real images, and a clear word about every file that does not fit."""

from __future__ import annotations

import builtins
import json
from pathlib import Path
from typing import Any

import click
import ml_dtypes
import numpy as np
import pytest
from PIL import Image

from inferd_agent.cli.tensors import Pixels, made_up, read_inputs, read_tensor

PLAIN = Pixels()


def spec(datatype: str = "FP32", *shape: int, name: str = "x") -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": list(shape)}


def npy(path: Path, array: np.ndarray) -> Path:
    np.save(path, array)
    return path


def text(path: Path, value: object) -> Path:
    path.write_text(json.dumps(value))
    return path


def picture(path: Path, height: int = 4, width: int = 6) -> tuple[Path, np.ndarray]:
    """An RGB image in which every pixel is different."""
    pixels = np.arange(height * width * 3, dtype=np.uint8).reshape(height, width, 3)
    Image.fromarray(pixels).save(path)
    return path, pixels


def test_npy_arrives_as_it_is(tmp_path: Path) -> None:
    """Values and shape are the file's, the datatype is the model's."""
    values = np.arange(6, dtype=np.float64).reshape(2, 3)
    tensor = read_tensor(npy(tmp_path / "a.npy", values), spec("FP32", -1, 3), PLAIN)
    assert tensor.dtype == np.float32
    np.testing.assert_array_equal(tensor, values)


def test_a_missing_batch_is_added(tmp_path: Path) -> None:
    """One row without its first dimension is a batch of one, from .npy and .json."""
    assert read_tensor(npy(tmp_path / "a.npy", np.zeros(3)), spec("FP32", -1, 3), PLAIN).shape == (1, 3)
    assert read_tensor(text(tmp_path / "a.json", [1, 2, 3]), spec("INT64", -1, 3), PLAIN).tolist() == [[1, 2, 3]]


def test_a_scalar_stays_one(tmp_path: Path) -> None:
    """An input of rank 0, such as a sample rate, gets no dimension."""
    tensor = read_tensor(text(tmp_path / "sr.json", 16000), spec("INT64"), PLAIN)
    assert (tensor.shape, tensor.item()) == ((), 16000)


def test_json_strings_become_bytes_inputs(tmp_path: Path) -> None:
    """Text for BYTES inputs; text for numbers is refused."""
    path = text(tmp_path / "a.json", [["héllo"], ["b"]])
    assert read_tensor(path, spec("BYTES", -1, 1), PLAIN).tolist() == [["héllo"], ["b"]]
    with pytest.raises(click.UsageError, match="expected FP32 numbers, got text"):
        read_tensor(path, spec("FP32", -1, 1), PLAIN)
    with pytest.raises(click.UsageError, match="expected BYTES"):
        read_tensor(npy(tmp_path / "n.npy", np.zeros((1, 1))), spec("BYTES", -1, 1), PLAIN)


def test_bf16_survives_npy(tmp_path: Path) -> None:
    """.npy forgets the name of bfloat16, the values are kept."""
    values = np.array([[0.5, -2.0]], ml_dtypes.bfloat16)
    tensor = read_tensor(npy(tmp_path / "a.npy", values), spec("BF16", -1, 2), PLAIN)
    np.testing.assert_array_equal(tensor.astype(np.float32), values.astype(np.float32))


@pytest.mark.parametrize(
    ("values", "datatype"),
    [([300], "UINT8"), ([-1], "UINT16"), ([1.5], "INT64"), ([2], "BOOL"), ([[1], [1, 2]], "FP32")],
)
def test_values_are_not_bent_to_fit(tmp_path: Path, values: list[Any], datatype: str) -> None:
    """A value that the datatype cannot hold is an error, neither wrapped nor cut."""
    with pytest.raises(click.UsageError, match=r"input 'x': .*a\.json"):
        read_tensor(text(tmp_path / "a.json", values), spec(datatype, -1), PLAIN)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.npy", b"garbage", "not a sound .npy file"),
        ("a.npy", b"\x93NUMPY\x01\x00\x10\x00{'descr': 'x'", "not a sound .npy file"),
        ("a.json", b"{[", "line 1 column 2"),
        ("a.json", b"\xff\xfe", "decode"),
        ("a.json", b'{"x": 1}', "nested lists"),
        ("a.json", b"[" * 100_000, "recursion"),
        ("a.png", b"garbage", "not an image"),
        ("a.txt", b"1 2 3", "expected .npy, .json or an image"),
    ],
)
def test_a_bad_file_is_said_to_be_one(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    """Wrong usage that names the input, the file and the trouble; no trace."""
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(click.UsageError) as caught:
        read_tensor(path, spec("FP32", -1, 1, 4, 4), PLAIN)
    assert said in caught.value.message
    assert str(path) in caught.value.message


def test_pickles_are_never_opened(tmp_path: Path) -> None:
    """A .npy of objects could run code; it is refused."""
    np.save(tmp_path / "a.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(click.UsageError, match="not a sound"):
        read_tensor(tmp_path / "a.npy", spec("BYTES", -1), PLAIN)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """The path is in the error."""
    with pytest.raises(click.UsageError, match=r"none\.npy: No such file"):
        read_tensor(tmp_path / "none.npy", spec(), PLAIN)


def test_an_image_with_channels_first(tmp_path: Path) -> None:
    """[N,C,H,W]: the batch is added, channels move to the front, pixels are exact."""
    path, pixels = picture(tmp_path / "a.png")
    tensor = read_tensor(path, spec("FP32", -1, 3, 4, 6), PLAIN)
    np.testing.assert_array_equal(tensor, pixels.transpose(2, 0, 1)[np.newaxis])
    assert tensor.flags.c_contiguous


def test_an_image_with_channels_last(tmp_path: Path) -> None:
    """[N,H,W,C], and uint8 stays as it is."""
    path, pixels = picture(tmp_path / "a.png")
    tensor = read_tensor(path, spec("UINT8", 1, 4, 6, 3), PLAIN)
    assert tensor.dtype == np.uint8
    np.testing.assert_array_equal(tensor, pixels[np.newaxis])


def test_an_image_without_a_batch(tmp_path: Path) -> None:
    """[C,H,W] and [H,W,C] are images, too."""
    path, pixels = picture(tmp_path / "a.png")
    np.testing.assert_array_equal(read_tensor(path, spec("UINT8", -1, -1, 3), PLAIN), pixels)
    assert read_tensor(path, spec("UINT8", 3, 4, 6), PLAIN).shape == (3, 4, 6)


def test_free_sizes_keep_the_image_and_fixed_ones_resize_it(tmp_path: Path) -> None:
    """Height and width are the image's where the model leaves them free."""
    path, _ = picture(tmp_path / "a.png", 10, 20)
    assert read_tensor(path, spec("FP32", -1, 3, -1, -1), PLAIN).shape == (1, 3, 10, 20)
    assert read_tensor(path, spec("FP32", -1, 3, 48, -1), PLAIN).shape == (1, 3, 48, 20)
    flat = tmp_path / "flat.png"
    Image.new("RGB", (9, 9), (10, 20, 30)).save(flat)
    tensor = read_tensor(flat, spec("FP32", 1, 3, 5, 7), PLAIN)
    assert tensor.shape == (1, 3, 5, 7)
    assert [np.unique(channel).tolist() for channel in tensor[0]] == [[10], [20], [30]]


def test_one_channel_is_grey(tmp_path: Path) -> None:
    """A colour image for a model with one channel becomes luminance."""
    path = tmp_path / "a.png"
    Image.new("RGB", (2, 2), (255, 255, 255)).save(path)
    tensor = read_tensor(path, spec("FP32", -1, 1, 2, 2), PLAIN)
    assert tensor.shape == (1, 1, 2, 2)
    assert set(tensor.ravel()) == {255.0}


def test_pixels_are_scaled_and_normalised(tmp_path: Path) -> None:
    """(value * scale - mean) / std, with a mean and std for each channel."""
    path = tmp_path / "a.png"
    Image.new("RGB", (2, 2), (255, 51, 0)).save(path)
    pixels = Pixels.parse(1 / 255, "0.5,0.1,0", "0.5,0.1,2")
    tensor = read_tensor(path, spec("FP32", 1, 3, 2, 2), pixels)
    np.testing.assert_allclose(tensor[0, :, 0, 0], [1.0, 1.0, 0.0], atol=1e-6)


def test_a_photo_is_turned_upright(tmp_path: Path) -> None:
    """The camera's orientation is heeded."""
    path = tmp_path / "a.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (8, 4)).save(path, exif=exif)
    assert read_tensor(path, spec("FP32", -1, 3, -1, -1), PLAIN).shape == (1, 3, 8, 4)


@pytest.mark.parametrize("shape", [(-1, 64), (-1, 4, 8, 8), (-1, 64, 32, 32)])
def test_inputs_that_are_no_images_say_so(tmp_path: Path, shape: tuple[int, ...]) -> None:
    """The error shows the input's shape and those that an image fits."""
    path, _ = picture(tmp_path / "a.png")
    with pytest.raises(click.UsageError, match=r"\[N,C,H,W\]"):
        read_tensor(path, spec("FP32", *shape), PLAIN)


def test_scaled_pixels_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    """Normalised values for a UINT8 input are rounded, never wrapped."""
    path = tmp_path / "a.png"
    Image.new("L", (2, 2), 200).save(path)
    assert read_tensor(path, spec("UINT8", 1, 1, 2, 2), Pixels(scale=0.501)).max() == 100
    with pytest.raises(click.UsageError, match="UINT8 cannot hold"):
        read_tensor(path, spec("UINT8", 1, 1, 2, 2), Pixels(scale=2))


@pytest.mark.parametrize(
    ("mean", "std", "option"),
    [("1,x", "1", "--mean"), ("0", "", "--std"), ("0", "1,0,1", "--std"), ("1,2", "1", "--mean")],
)
def test_bad_pixel_options_are_named(tmp_path: Path, mean: str, std: str, option: str) -> None:
    """Numbers that are none, a division by zero, and too few for the channels."""
    path, _ = picture(tmp_path / "a.png")
    with pytest.raises(click.UsageError, match=option):
        read_tensor(path, spec("FP32", 1, 3, 4, 6), Pixels.parse(1.0, mean, std))


def test_images_without_pillow_say_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow is an extra; its absence is wrong usage with the command that helps."""
    imported = builtins.__import__

    def without_pillow(name: str, *args: Any, **options: Any) -> Any:
        if name == "PIL":
            raise ImportError(name)
        return imported(name, *args, **options)

    path, _ = picture(tmp_path / "a.png")
    monkeypatch.setattr(builtins, "__import__", without_pillow)
    with pytest.raises(click.UsageError, match=r"pip install 'inferd\[images\]'"):
        read_tensor(path, spec("FP32", 1, 3, 4, 6), PLAIN)


def test_inputs_are_matched_by_name(tmp_path: Path) -> None:
    """Every input once; the only input needs no name."""
    path = npy(tmp_path / "a.npy", np.zeros((1, 2), np.float32))
    one, two = [spec("FP32", -1, 2)], [spec("FP32", -1, 2), spec("FP32", -1, 2, name="y")]
    assert set(read_inputs([str(path)], one, PLAIN)) == {"x"}
    assert set(read_inputs([f"y={path}", f"x={path}"], two, PLAIN)) == {"x", "y"}
    for pairs, said in (
        ([f"z={path}"], "no input named 'z'; this model takes: x FP32"),
        ([f"x={path}"], "give --input y=FILE too"),
        ([str(path)], "no input named"),
        ([f"x={path}", f"x={path}"], "twice"),
    ):
        with pytest.raises(click.UsageError, match=said):
            read_inputs(pairs, two, PLAIN)


def test_made_up_inputs_fit_the_model() -> None:
    """Rows for the first dimension, given shapes for the others, the model's datatypes."""
    specs = [
        spec("FP32", -1, 4),
        spec("INT64", name="n"),
        spec("BYTES", -1, 1, name="s"),
        spec("FP32", -1, -1, name="w"),
    ]
    inputs = made_up(specs, {"w": [3, 7]}, rows=3)
    assert {name: array.shape for name, array in inputs.items()} == {"x": (3, 4), "n": (), "s": (3, 1), "w": (3, 7)}
    assert inputs["n"].dtype == np.int64
    assert inputs["s"][0, 0] == b"inferd"


def test_free_dimensions_must_be_chosen() -> None:
    """The error is an option that can be pasted; a shape for no input is refused."""
    with pytest.raises(click.UsageError, match="--shape x:1x3x48x32"):
        made_up([spec("FP32", -1, 3, 48, -1)], {}, rows=1)
    with pytest.raises(click.UsageError, match="no input named 'q'"):
        made_up([spec("FP32", -1, 3)], {"q": [1]}, rows=1)
