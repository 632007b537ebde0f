"""Turn files into input tensors: .npy and .json as they are, images fitted to what the model takes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np

from inferd.protocol.datatypes import DATATYPES
from inferd_agent.cli.output import numbers

IMAGES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp"}
Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class Pixels:
    """How pixel values become numbers: (value * scale - mean) / std, with one or per-channel mean and std."""

    scale: float = 1.0
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)

    @classmethod
    def parse(cls, scale: float, mean: str, std: str) -> Pixels:
        return cls(scale, numbers(mean, "--mean"), numbers(std, "--std"))


def read_inputs(pairs: Sequence[str], specs: Sequence[Mapping[str, Any]], pixels: Pixels) -> dict[str, Array]:
    """`NAME=FILE` pairs to arrays. With one input, the bare file is enough. Raises UsageError naming the inputs."""
    known = {spec["name"]: spec for spec in specs}
    inputs = {}
    for pair in pairs:
        name, sign, file = pair.partition("=")
        if not sign and len(known) == 1:
            name, file = next(iter(known)), pair
        if name not in known:
            raise click.UsageError(f"no input named {name!r}; this model takes: {describe(specs)}")
        inputs[name] = read_tensor(Path(file), known[name], pixels)
    missing = [name for name in known if name not in inputs]
    if missing:
        raise click.UsageError(f"give --input {missing[0]}=FILE too; this model takes: {describe(specs)}")
    return inputs


def read_tensor(path: Path, spec: Mapping[str, Any], pixels: Pixels) -> Array:
    """One file as an array of the spec's datatype; a missing batch dimension is added."""
    dtype, shape = DATATYPES[spec["datatype"]], tuple(spec["shape"])
    if not path.is_file():
        raise click.UsageError(f"input {spec['name']!r}: no file {path}")
    if path.suffix == ".npy":
        array = np.load(path, allow_pickle=False)
    elif path.suffix == ".json":
        array = np.asarray(json.loads(path.read_text()), dtype=dtype)
    elif path.suffix.lower() in IMAGES:
        return image_tensor(path, shape, dtype, pixels)
    else:
        raise click.UsageError(f"{path}: expected .npy, .json or an image ({' '.join(sorted(IMAGES))})")
    array = array[np.newaxis] if array.ndim == len(shape) - 1 else array
    return np.ascontiguousarray(array.astype(dtype, copy=False))


def image_tensor(path: Path, shape: tuple[int, ...], dtype: np.dtype[Any], pixels: Pixels) -> Array:
    """An image as [1,C,H,W] or [1,H,W,C], resized where the model's height and width are fixed."""
    try:
        from PIL import Image
    except ImportError:
        raise click.UsageError("images need Pillow: pip install 'inferd[images]'") from None
    if len(shape) != 4:
        raise click.UsageError(
            f"{path}: the input's shape {list(shape)} is not that of an image ([N,C,H,W] or [N,H,W,C])"
        )
    channels_last = shape[3] in (1, 3) and shape[1] not in (1, 3)
    channels, height, width = (shape[3], shape[1], shape[2]) if channels_last else shape[1:]
    image = Image.open(path).convert("L" if channels == 1 else "RGB")
    size = (width if width > 0 else image.width, height if height > 0 else image.height)
    values = np.asarray(image.resize(size) if size != image.size else image, dtype=np.float64)
    values = values[..., np.newaxis] if values.ndim == 2 else values
    values = (values * pixels.scale - np.asarray(pixels.mean)) / np.asarray(pixels.std)
    if not channels_last:
        values = values.transpose(2, 0, 1)
    return np.ascontiguousarray(values[np.newaxis].astype(dtype))


def made_up(specs: Sequence[Mapping[str, Any]], shapes: Mapping[str, Sequence[int]], rows: int) -> dict[str, Array]:
    """Random inputs for a load test; free dimensions other than the first come from `shapes`, else 1."""
    rng = np.random.default_rng(7)
    inputs: dict[str, Array] = {}
    for spec in specs:
        dtype, name = DATATYPES[spec["datatype"]], spec["name"]
        declared = list(spec["shape"])
        shape = list(shapes.get(name) or [dim if dim >= 0 else 1 if i else rows for i, dim in enumerate(declared)])
        if dtype.kind == "O":
            inputs[name] = np.full(shape, b"inferd", dtype=object)
        elif dtype.kind in "iub":
            inputs[name] = rng.integers(0, 2, size=shape).astype(dtype)
        else:
            inputs[name] = rng.random(shape).astype(dtype)
    return inputs


def describe(specs: Sequence[Mapping[str, Any]]) -> str:
    """`x FP32 [-1,64], y INT64 []`."""
    return ", ".join(f"{s['name']} {s['datatype']} [{','.join(str(d) for d in s['shape'])}]" for s in specs)
