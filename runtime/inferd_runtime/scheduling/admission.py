"""What a model takes, checked once per job at the door: names, datatypes, shapes, rows, wanted outputs.

Everything that can be known from the `ModelSpec` is computed when the lane is made; the check itself is on the hot
path. It fills in the job's `rows`, `nbytes` and `group`. Messages say what was expected and what came.
"""

from __future__ import annotations

from inferd_runtime.errors import InvalidRequest
from inferd_runtime.job import Array, Job
from inferd_runtime.spec import ModelSpec
from inferd_runtime.tensor import STRING, TensorSpec, datatype_name

# How many unknown names a message repeats, and how much of each: the caller chose them.
_SHOWN_NAMES = 3
_SHOWN_CHARACTERS = 40


class _Input:
    """One input, taken apart for speed: `tail` is the shape after the batch dimension, `is_exact` when none is free."""

    __slots__ = ("dtype", "is_exact", "is_text", "name", "rank", "spec", "tail")

    def __init__(self, spec: TensorSpec, is_batched: bool) -> None:
        self.spec = spec
        self.name = spec.name
        self.dtype = spec.dtype
        self.rank = len(spec.shape)
        self.tail = spec.shape[1:] if is_batched else spec.shape
        self.is_exact = all(dim >= 0 for dim in self.tail)
        self.is_text = spec.dtype == STRING

    def takes(self, tail: tuple[int, ...]) -> bool:
        """Whether a shape without its batch dimension fits."""
        if self.is_exact:
            return tail == self.tail
        return all(want < 0 or want == came for want, came in zip(self.tail, tail, strict=True))


class Admission:
    """The checks of one model version."""

    def __init__(self, spec: ModelSpec) -> None:
        self._max_rows = spec.max_batch
        self._inputs = tuple(_Input(tensor, spec.max_batch > 0) for tensor in spec.inputs)
        self._names = tuple(tensor.name for tensor in spec.inputs)
        self._output_names = frozenset(tensor.name for tensor in spec.outputs)
        self._has_one_group = all(one.is_exact for one in self._inputs)

    def check(self, job: Job) -> None:
        """Fill in `rows`, `nbytes` and `group`, or raise InvalidRequest."""
        arrays = job.inputs
        if len(arrays) != len(self._inputs):
            raise self._wrong_names(job)
        if job.outputs and not self._output_names.issuperset(job.outputs):
            raise self._unknown_output(job)
        if self._max_rows:
            self._check_batched(job)
        else:
            self._check_single(job)

    def _check_batched(self, job: Job) -> None:
        rows = -1
        nbytes = 0
        tails = []
        arrays = job.inputs
        for one in self._inputs:
            array = arrays.get(one.name)
            if array is None:
                raise self._wrong_names(job)
            shape = array.shape
            tail = shape[1:]
            if array.dtype != one.dtype or len(shape) != one.rank or not one.takes(tail):
                raise _mismatch(one.spec, array)
            if shape[0] != rows:
                if rows >= 0:
                    raise self._uneven(one.name, shape[0], rows)
                rows = shape[0]
            nbytes += _text_bytes(one.name, array) if one.is_text else array.nbytes
            tails.append(tail)
        if not 0 < rows <= self._max_rows:
            raise InvalidRequest(f"the request has {rows} rows; this model takes 1 to {self._max_rows}")
        job.rows = rows
        job.nbytes = nbytes
        job.group = None if self._has_one_group else tuple(tails)

    def _check_single(self, job: Job) -> None:
        nbytes = 0
        arrays = job.inputs
        for one in self._inputs:
            array = arrays.get(one.name)
            if array is None:
                raise self._wrong_names(job)
            shape = array.shape
            if array.dtype != one.dtype or len(shape) != one.rank or not one.takes(shape):
                raise _mismatch(one.spec, array)
            nbytes += _text_bytes(one.name, array) if one.is_text else array.nbytes
        job.rows = 1
        job.nbytes = nbytes
        job.group = None

    def _wrong_names(self, job: Job) -> InvalidRequest:
        missing = [name for name in self._names if name not in job.inputs]
        if missing:
            first = next(one.spec for one in self._inputs if one.name == missing[0])
            return InvalidRequest(f"input {missing[0]!r} is missing: expected {_form(first)}")
        unknown = _quoted([name for name in job.inputs if name not in self._names])
        return InvalidRequest(f"unknown input {unknown}; this model takes {_quoted(self._names)}")

    def _unknown_output(self, job: Job) -> InvalidRequest:
        unknown = _quoted([name for name in job.outputs if name not in self._output_names])
        return InvalidRequest(f"unknown output {unknown}; this model gives {_quoted(sorted(self._output_names))}")

    def _uneven(self, name: str, rows: int, other: int) -> InvalidRequest:
        return InvalidRequest(
            f"input {name!r} has {rows} rows, but input {self._names[0]!r} has {other}; the first dimensions must agree"
        )


def _text_bytes(name: str, array: Array) -> int:
    """What a string tensor holds: its pointers and its bytes."""
    total = array.nbytes
    for element in array.flat:
        if type(element) is not bytes:
            raise InvalidRequest(f"input {name!r}: elements of a BYTES tensor are bytes, got {type(element).__name__}")
        total += len(element)
    return total


def _mismatch(spec: TensorSpec, array: Array) -> InvalidRequest:
    got = f"{datatype_name(array.dtype)} {_dims(array.shape)}"
    return InvalidRequest(f"input {spec.name!r}: expected {_form(spec)}, got {got}")


def _form(spec: TensorSpec) -> str:
    return f"{spec.datatype} {_dims(spec.shape)}"


def _dims(shape: tuple[int, ...]) -> str:
    return "[" + ",".join(map(str, shape)) + "]"


def _quoted(names: list[str] | tuple[str, ...]) -> str:
    shown = ", ".join(repr(name[:_SHOWN_CHARACTERS]) for name in names[:_SHOWN_NAMES])
    return shown + (f" and {len(names) - _SHOWN_NAMES} more" if len(names) > _SHOWN_NAMES else "")
