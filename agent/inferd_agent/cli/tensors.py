"""Turn files into input tensors: .npy and .json as they are, images fitted to what the model takes.

Whatever a file holds, the error names the input, the file and what was expected; values are never bent to fit.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np

from inferd.protocol.datatypes import BYTES, DATATYPES
from inferd_agent.cli.output import describe_tensors

IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp")
MODES = {1: "L", 3: "RGB"}
Array = np.ndarray[Any, Any]
Spec = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Pixels:
    """How pixel values become numbers: (value * scale - mean) / std, with one mean and std or one for each channel."""

    scale: float = 1.0
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)

    @classmethod
    def parse(cls, scale: float, mean: str, std: str) -> Pixels:
        """From the command line's texts; raises UsageError naming the option."""
        pixels = cls(scale, _numbers(mean, "--mean"), _numbers(std, "--std"))
        if 0 in pixels.std:
            raise click.UsageError("--std: cannot divide by 0")
        return pixels

    def numbers(self, image: Array) -> Array:
        """Pixels [height, width, channels] as numbers of that shape."""
        for option, values in (("--mean", self.mean), ("--std", self.std)):
            if len(values) not in (1, image.shape[2]):
                raise click.UsageError(f"{option}: {len(values)} numbers for {image.shape[2]} channel(s)")
        return np.asarray((image.astype(np.float64) * self.scale - np.array(self.mean)) / np.array(self.std))


def read_inputs(pairs: Sequence[str], specs: Sequence[Spec], pixels: Pixels) -> dict[str, Array]:
    """`NAME=FILE` pairs to arrays. With one input, the bare file is enough. Raises UsageError naming the inputs."""
    known = {spec["name"]: spec for spec in specs}
    inputs: dict[str, Array] = {}
    for pair in pairs:
        name, sign, file = pair.partition("=")
        if not sign and len(known) == 1:
            name, file = next(iter(known)), pair
        if name not in known:
            raise click.UsageError(f"no input named {name!r}; this model takes: {describe_tensors(specs)}")
        if name in inputs:
            raise click.UsageError(f"--input {name}= is given twice")
        inputs[name] = read_tensor(Path(file), known[name], pixels)
    missing = [name for name in known if name not in inputs]
    if missing:
        raise click.UsageError(f"give --input {missing[0]}=FILE too; this model takes: {describe_tensors(specs)}")
    return inputs


def read_tensor(path: Path, spec: Spec, pixels: Pixels) -> Array:
    """One file as an array of the spec's datatype; a missing batch dimension is added."""
    shape = tuple(spec["shape"])
    suffix = path.suffix.lower()
    try:
        if suffix == ".npy":
            array = _read_npy(path)
        elif suffix == ".json":
            array = _read_json(path, spec["datatype"])
        elif suffix in IMAGES:
            array = _read_image(path, shape, spec["datatype"], pixels)
        else:
            raise ValueError(f"expected .npy, .json or an image ({' '.join(IMAGES)})")
        array = _fitted(array, spec["datatype"])
    except OSError as error:
        raise click.UsageError(f"input {spec['name']!r}: {path}: {error.strerror or error}") from None
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise click.UsageError(f"input {spec['name']!r}: {path}: {error}") from None
    array = array[np.newaxis] if array.ndim == len(shape) - 1 else array
    return np.ascontiguousarray(array) if array.ndim else array


def _read_npy(path: Path) -> Array:
    with path.open("rb") as file:
        try:
            return np.asarray(np.lib.format.read_array(file, allow_pickle=False))
        except (ValueError, EOFError) as error:
            raise ValueError(f"not a sound .npy file: {error}") from None


def _read_json(path: Path, datatype: str) -> Array:
    value = json.loads(path.read_text("utf-8"))
    if isinstance(value, dict):
        raise ValueError("expected nested lists of values, got an object")
    return np.asarray(value, dtype=BYTES if datatype == "BYTES" else None)


def _read_image(path: Path, shape: tuple[int, ...], datatype: str, pixels: Pixels) -> Array:
    """An image as [C,H,W] or [H,W,C], resized where the model's height and width are fixed."""
    try:
        from PIL import Image, ImageOps, UnidentifiedImageError
    except ImportError:
        raise click.UsageError("images need Pillow: pip install 'inferd[images]'") from None
    channels, height, width, is_channels_last = _image_shape(shape)
    try:
        with Image.open(path) as opened:
            image = ImageOps.exif_transpose(opened).convert(MODES[channels])
    except (SyntaxError, Image.DecompressionBombError, UnidentifiedImageError) as error:
        raise ValueError(f"not an image that Pillow reads ({type(error).__name__})") from None
    size = (width if width > 0 else image.width, height if height > 0 else image.height)
    values = np.asarray(image if size == image.size else image.resize(size, Image.Resampling.BILINEAR))
    values = pixels.numbers(values.reshape(size[1], size[0], channels))
    if np.issubdtype(DATATYPES[datatype], np.integer):
        values = np.rint(values)
    return values if is_channels_last else values.transpose(2, 0, 1)


def _image_shape(shape: tuple[int, ...]) -> tuple[int, int, int, bool]:
    """Channels, height, width of an input, and whether its channels come last."""
    dims = shape[1:] if len(shape) == 4 else shape
    if len(dims) == 3 and dims[0] in MODES:
        return dims[0], dims[1], dims[2], False
    if len(dims) == 3 and dims[2] in MODES:
        return dims[2], dims[0], dims[1], True
    raise ValueError(f"an image does not fit {list(shape)}; it fits [N,C,H,W] and [N,H,W,C] with 1 or 3 channels")


def _fitted(array: Array, datatype: str) -> Array:
    """The array in the datatype; ValueError where that would change what it says."""
    dtype, kind = DATATYPES[datatype], array.dtype.kind
    if dtype == BYTES:
        if kind not in "SUO":
            raise ValueError(f"expected BYTES (strings), got {array.dtype}")
        return array.astype(object)
    if kind == "V" and datatype == "BF16" and array.dtype.itemsize == 2:
        return array.view(dtype)  # .npy files forget the name of this datatype
    if kind not in "biuf":
        raise ValueError(f"expected {datatype} numbers, got {'text' if kind in 'SU' else array.dtype}")
    with np.errstate(invalid="ignore", over="ignore"):
        fitted = array.astype(dtype)
    if dtype.kind in "iub" and not np.array_equal(fitted, array):
        raise ValueError(f"{array.dtype} values that {datatype} cannot hold")
    return fitted


def made_up(specs: Sequence[Spec], shapes: Mapping[str, Sequence[int]], rows: int) -> dict[str, Array]:
    """Random inputs for a load test: `rows` for a free first dimension, whole shapes from `shapes` by input name."""
    unknown = [name for name in shapes if name not in {spec["name"] for spec in specs}]
    if unknown:
        raise click.UsageError(f"--shape: no input named {unknown[0]!r}; this model takes: {describe_tensors(specs)}")
    rng = np.random.default_rng(7)
    return {spec["name"]: _random(rng, spec, shapes.get(spec["name"]) or _shape(spec, rows)) for spec in specs}


def _shape(spec: Spec, rows: int) -> list[int]:
    declared = list(spec["shape"])
    shape = [rows, *declared[1:]] if declared and declared[0] < 0 else declared
    if min(shape, default=0) < 0:
        example = "x".join(str(dim if dim >= 0 else 32) for dim in shape)
        raise click.UsageError(
            f"this model takes {describe_tensors([spec])}; choose its free dimensions, as in"
            f" --shape {spec['name']}:{example}"
        )
    return shape


def _random(rng: np.random.Generator, spec: Spec, shape: Sequence[int]) -> Array:
    dtype = DATATYPES[spec["datatype"]]
    if dtype == BYTES:
        return np.full(shape, b"inferd", dtype=object)
    if dtype.kind in "iub":
        return rng.integers(0, 2, size=shape).astype(dtype)
    return rng.random(shape).astype(dtype)


def _numbers(text: str, option: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise click.UsageError(f"{option}: expected numbers separated by commas, got {text!r}") from None
