"""Inputs to try a model with: stored beside it by people who know it, or made up from its spec.

`<model>/golden/*.npz` comes first, then `<model>/calibration/*.npz`: arrays by input name, whose first axis counts
samples where the model has a batch dimension; elsewhere a file is one sample. Arrays of other names are left alone.
Files are data and never code: nothing is unpickled, and what is read is bounded.
"""

from __future__ import annotations

import contextlib
import hashlib
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from inferd_runtime.errors import InvalidModel
from inferd_runtime.planning.evidence import Inputs
from inferd_runtime.spec import ModelSpec
from inferd_runtime.tensor import BFLOAT16, STRING, TensorSpec

Array = np.ndarray[Any, Any]
Feeds = Mapping[str, Array]

STORED: tuple[Inputs, ...] = ("golden", "calibration")
MAX_FILES = 64
MAX_FILE_BYTES = 256 << 20
MAX_SAMPLES = 64
MAX_BYTES = 64 << 20  # of all samples together
MADE_UP = 16
# Sizes tried for every free dimension that is not the batch, most useful first: image models want multiples of 32, text
# has some hundred tokens, audio models want whole frames.
GUESSED_SIZES = (128, 64, 32, 224, 512, 1)
_WORDS = (b"inferd", b"a sentence of some words", b"42", b"")


@dataclass(frozen=True, slots=True)
class Samples:
    """Requests to try a model with, of one row each where rows can be gathered. `note`: what was left out, and why."""

    source: Inputs
    requests: tuple[Feeds, ...]
    is_batched: bool
    note: str = ""

    @property
    def row_bytes(self) -> int:
        """The size of one row, or of one request where there are no rows."""
        return sum(array.nbytes for array in self.requests[0].values())

    def stacked(self, rows: int, begin: int = 0) -> Feeds:
        """One request of `rows` rows: those from `begin` on that are shaped alike, over and over."""
        first = self.requests[begin]
        if not self.is_batched:
            return first
        alike = [feeds for feeds in self.requests[begin:] if _shapes(feeds) == _shapes(first)]
        turns = [alike[row % len(alike)] for row in range(rows)]
        return {name: _sealed(np.concatenate([feeds[name] for feeds in turns])) for name in first}

    def groups(self, most: int) -> Iterator[tuple[int, int]]:
        """(begin, rows) of neighbours that are shaped alike, `most` together at most; the first row goes alone."""
        begin, limit = 0, 1
        while begin < len(self.requests):
            shape, rows = _shapes(self.requests[begin]), 1
            for feeds in self.requests[begin + 1 : begin + limit]:
                if not self.is_batched or _shapes(feeds) != shape:
                    break
                rows += 1
            yield begin, rows
            begin, limit = begin + rows, most


def stored_mark(folder: Path | None) -> str:
    """Changes when the stored inputs of the model in `folder` do."""
    digest = hashlib.sha256()
    for path in (path for source in STORED for path in _files(folder, source)):
        with contextlib.suppress(OSError):  # it is gone again
            stat = path.stat()
            digest.update(f"{path.parent.name}/{path.name}\0{stat.st_size}\0{stat.st_mtime_ns}\0".encode())
    return digest.hexdigest()[:16]


def read_stored(folder: Path | None, spec: ModelSpec) -> tuple[Samples | None, str]:
    """What is stored in the model's `folder`, golden data first; and why there is none or less than there could be."""
    notes: list[str] = []
    for source in STORED:
        requests: list[Feeds] = []
        for path in _files(folder, source):
            try:
                requests += _read(path, spec, MAX_SAMPLES - len(requests))
            except InvalidModel as error:
                notes.append(f"{source}/{path.name}: {error}")
        note = "; ".join(notes[:3])
        if requests:
            return Samples(source, _bounded(requests), spec.max_batch > 0, note), note
    return None, "; ".join(notes[:3])


def made_up(spec: ModelSpec, *, seed: int = 0, most: int = MADE_UP) -> Iterator[Samples]:
    """Guesses at inputs that the model takes, likely ones first: sizes for its free dimensions, and values. Each has
    `most` requests, fewer where they are large."""
    is_batched = spec.max_batch > 0
    shapings = list(_shapings(spec.inputs, is_batched))
    for shaping in shapings:
        for fill in (_typical, _small, _ones):
            random = np.random.default_rng(seed)
            shapes = {tensor.name: shaping(tensor) for tensor in spec.inputs}
            size = sum(int(np.prod(shapes[t.name], dtype=np.float64)) * t.dtype.itemsize for t in spec.inputs)
            if size > MAX_BYTES:
                continue
            count = max(1, min(most, MAX_BYTES // max(1, size)))
            requests = tuple(
                {t.name: _sealed(fill(t, shapes[t.name], random)) for t in spec.inputs} for _ in range(count)
            )
            yield Samples("generated", requests, is_batched, _guess_note(spec, shapes, is_batched))


def _files(folder: Path | None, source: str) -> list[Path]:
    """The files of one kind, by name; none where they cannot be listed."""
    try:
        found = sorted(path for path in (folder / source).glob("*.npz") if path.is_file()) if folder else []
    except OSError:
        return []
    return found[:MAX_FILES]


def _read(path: Path, spec: ModelSpec, most: int) -> tuple[Feeds, ...]:
    """The samples of one file. Raises InvalidModel with what is wrong."""
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(member.file_size for member in archive.infolist())
        if size > MAX_FILE_BYTES:
            raise InvalidModel(f"it holds {size >> 20} MiB, more than {MAX_FILE_BYTES >> 20}")
        with np.load(path, allow_pickle=False) as stored:
            missing = [tensor.name for tensor in spec.inputs if tensor.name not in stored.files]
            if missing:
                raise InvalidModel(f"it has no array {missing[0]!r}, only {', '.join(map(repr, stored.files[:8]))}")
            arrays = {tensor.name: _fitted(tensor, stored[tensor.name], spec.max_batch > 0) for tensor in spec.inputs}
    except (OSError, ValueError, EOFError, MemoryError, NotImplementedError, zipfile.BadZipFile) as error:
        raise InvalidModel(f"it cannot be read: {str(error) or type(error).__name__}") from None
    if not spec.max_batch:
        return ({name: _sealed(array) for name, array in arrays.items()},)[:most]
    counts = {name: len(array) for name, array in arrays.items()}
    if len(set(counts.values())) > 1:
        raise InvalidModel(f"its arrays differ in samples: {counts}")
    count = min(most, next(iter(counts.values())))
    return tuple({name: _sealed(array[row : row + 1]) for name, array in arrays.items()} for row in range(count))


def _fitted(spec: TensorSpec, array: Array, is_batched: bool) -> Array:
    """`array` in the input's own type. Raises InvalidModel where that or its shape does not fit."""
    expected = spec.shape[1:] if is_batched else spec.shape
    found = array.shape[1:] if is_batched else array.shape
    is_fit = len(expected) == len(found) and all(want in (-1, have) for want, have in zip(expected, found, strict=True))
    if not is_fit or (is_batched and array.ndim == 0):
        raise InvalidModel(f"{spec.name!r} has shape {list(array.shape)}, expected {list(spec.shape)}")
    if spec.dtype == STRING and array.dtype.kind in "SU":
        encoded: Array = np.char.encode(array, "utf-8") if array.dtype.kind == "U" else array
        return encoded.astype(STRING)
    if spec.dtype == BFLOAT16 and array.dtype.kind == "V" and array.dtype.itemsize == 2:
        return array.view(BFLOAT16)  # numpy's files have no name for BF16
    if spec.dtype == STRING or not np.can_cast(array.dtype, spec.dtype, "same_kind"):
        raise InvalidModel(f"{spec.name!r} is {array.dtype}, expected {spec.datatype}")
    return array.astype(spec.dtype, copy=False)


def _bounded(requests: Sequence[Feeds]) -> tuple[Feeds, ...]:
    """As many of the first as fit in `MAX_BYTES`, one at least."""
    kept: list[Feeds] = []
    size = 0
    for feeds in requests:
        size += sum(array.nbytes for array in feeds.values())
        if kept and size > MAX_BYTES:
            break
        kept.append(feeds)
    return tuple(kept)


def _shapings(inputs: Sequence[TensorSpec], is_batched: bool) -> Iterator[Callable[[TensorSpec], tuple[int, ...]]]:
    """Ways to settle free dimensions, likely ones first.

    Without a batch a free first dimension counts things all the same, one of them here; and so do the free dimensions
    of inputs that begin with a fixed one, a recurrent state of [2, -1, 128] say. Then all free dimensions are alike.
    """
    has_free = any(dim < 0 for spec in inputs for dim in spec.shape[is_batched:])
    sizes = GUESSED_SIZES if has_free else GUESSED_SIZES[:1]
    if not is_batched and any(len(spec.shape) > 1 and spec.shape[0] < 0 for spec in inputs):
        yield from (partial(_shape_of_one, size) for size in sizes)
    yield from (partial(_shape, size, is_batched) for size in sizes)


def _shape(size: int, is_batched: bool, spec: TensorSpec) -> tuple[int, ...]:
    shape = tuple(size if dim < 0 else dim for dim in spec.shape)
    return (1, *shape[1:]) if is_batched else shape


def _shape_of_one(size: int, spec: TensorSpec) -> tuple[int, ...]:
    begins_free = len(spec.shape) > 1 and spec.shape[0] < 0
    return _shape(size if begins_free else 1, begins_free, spec)


def _typical(spec: TensorSpec, shape: tuple[int, ...], random: np.random.Generator) -> Array:
    """Values as they come: normal floats, bytes, true masks, words."""
    kind, name = spec.dtype.kind, spec.name.lower()
    if spec.dtype == STRING:
        return random.choice(np.array(_WORDS, STRING), shape) if shape else np.array(_WORDS[0], STRING)
    if "mask" in name:
        return np.ones(shape, spec.dtype)
    if kind in "fV":
        return np.asarray(random.standard_normal(shape, np.float32)).astype(spec.dtype)
    if int(np.prod(shape)) == 1:
        return np.ones(shape, spec.dtype)
    if "type" in name or "segment" in name:
        return np.zeros(shape, spec.dtype)
    if kind == "b":
        return random.integers(0, 2, shape).astype(spec.dtype)
    return random.integers(0, 128 if spec.dtype == np.int8 else 256, shape).astype(spec.dtype)


def _small(spec: TensorSpec, shape: tuple[int, ...], random: np.random.Generator) -> Array:
    """Values that a model with few classes or with roots and logarithms in it takes."""
    if spec.dtype == STRING:
        return np.full(shape, b"1", STRING)
    if spec.dtype.kind in "fV":
        return np.asarray(random.random(shape, np.float32)).astype(spec.dtype)
    return random.integers(0, 2, shape).astype(spec.dtype)


def _ones(spec: TensorSpec, shape: tuple[int, ...], random: np.random.Generator) -> Array:
    return np.full(shape, b"" if spec.dtype == STRING else 1, spec.dtype)


def _guess_note(spec: ModelSpec, shapes: Mapping[str, tuple[int, ...]], is_batched: bool) -> str:
    guessed = [t.name for t in spec.inputs if any(dim < 0 for dim in t.shape[is_batched:])]
    return "sizes guessed: " + ", ".join(f"{name} {list(shapes[name])}" for name in guessed) if guessed else ""


def _sealed(array: Array) -> Array:
    """Contiguous and read-only, as sessions take their inputs."""
    array = np.ascontiguousarray(array) if array.ndim else array.copy()
    array.flags.writeable = False
    return array


def _shapes(feeds: Feeds) -> list[tuple[int, ...]]:
    return [array.shape for array in feeds.values()]
