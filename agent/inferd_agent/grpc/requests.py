"""A ModelInferRequest from its bytes, with the checks that REST makes, and no more allocated than its bytes can mean.

What the bytes beside id and raw tensors mean is remembered, for clients repeat them. Raw tensors are views on the
message, and never pass through protobuf.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from types import NoneType
from typing import Any, NamedTuple

import numpy as np
from google.protobuf.message import DecodeError

from inferd.protocol import DATATYPES, Limits, OutputRequest, Parameter, ProtocolError, Reference, RegionRef, Request
from inferd.protocol.binary import read_section
from inferd.protocol.datatypes import BYTES, Array
from inferd.protocol.jsondata import MAX_RANK
from inferd.protocol.regions import REGION, REGION_BYTES, REGION_OFFSET, place_of, refer
from inferd.protocol.requests import DEFAULT_LIMITS, check_parameters, output_in_region
from inferd.protocol.tensors import count_elements
from inferd_agent.grpc.layouts import Layouts, Span, take_apart
from inferd_agent.grpc.messages import ModelInferRequest
from inferd_agent.inference import read_version

WANTS_FINAL = "triton_enable_empty_final_response"
# Heads that are remembered: half a megabyte of bytes at most.
_KEPT_HEADS = 512
_KEPT_BYTES = 1024
# Which field holds a datatype's elements; FP16 and BF16 have none.
_FIELDS = {
    "BOOL": "bool_contents",
    "INT8": "int_contents", "INT16": "int_contents", "INT32": "int_contents", "INT64": "int64_contents",
    "UINT8": "uint_contents", "UINT16": "uint_contents", "UINT32": "uint_contents", "UINT64": "uint64_contents",
    "FP32": "fp32_contents", "FP64": "fp64_contents", "BYTES": "bytes_contents",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Asked:
    """A request with the model that it names. `wants_final`: its answer on a stream is to say that it is the last."""

    model: str
    version: int | None
    request: Request
    wants_final: bool = False


class _Input(NamedTuple):
    """An input's claims, which agree with each other; `data` is there where it came as typed contents."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    elements: int
    data: Array | None


class _Head(NamedTuple):
    """What the fields beside id and raw tensors mean. `inputs` are those that do not lie in regions."""

    model: str
    version: int | None
    inputs: tuple[_Input, ...]
    references: tuple[Reference, ...]
    outputs: tuple[OutputRequest, ...]
    parameters: Mapping[str, Parameter]
    wants_final: bool


def decode(message: bytes, limits: Limits = DEFAULT_LIMITS) -> Asked:
    """The request in a message. Raises ProtocolError, InvalidRequest."""
    layout = _LAYOUTS.recall(message)
    if layout is not None:
        parts, known = layout.parts, layout.meaning
    else:
        parts = take_apart(message, limits)
        known = _known_head(parts.head) if len(parts.head) <= _KEPT_BYTES else _read_head(parts.head)
        if limits is DEFAULT_LIMITS:
            _LAYOUTS.remember(message, parts, known)
    begin, end = parts.id
    try:
        request_id = message[begin:end].decode()
    except UnicodeError:
        raise ProtocolError("the id is not UTF-8") from None
    parameters = known.parameters
    request = Request(
        request_id,
        _read_inputs(known.inputs, message, parts.sections),
        known.outputs,
        True,
        parameters,
        parameters.get("timeout"),  # type: ignore[arg-type]  # check_parameters has seen to it
        parameters.get("priority"),  # type: ignore[arg-type]
        known.references,
    )
    return Asked(known.model, known.version, request, known.wants_final)


def _read_head(head: bytes) -> _Head:
    try:
        message = ModelInferRequest.FromString(head)
    except DecodeError as error:
        raise ProtocolError(f"this is no ModelInferRequest: {error}") from None
    parameters = read_parameters(message.parameters)
    wants_final = parameters.pop(WANTS_FINAL, False) is True
    check_parameters(parameters)
    tensors = [_read_input(each) for each in message.inputs]
    outputs = tuple(_read_output(each) for each in message.outputs)
    _check_unique("input", [each.name for each in tensors])
    _check_unique("output", [each.name for each in outputs])
    version = read_version(message.model_version) if message.model_version else None
    inputs = tuple(each for each in tensors if isinstance(each, _Input))
    references = tuple(each for each in tensors if isinstance(each, Reference))
    return _Head(message.model_name, version, inputs, references, outputs, parameters, wants_final)


_LAYOUTS: Layouts[_Head] = Layouts()


@lru_cache(maxsize=_KEPT_HEADS)
def _known_head(head: bytes) -> _Head:
    """`_read_head`, remembered; errors are not."""
    return _read_head(head)


def read_parameters(given: Mapping[str, Any]) -> dict[str, Parameter]:
    """Parameters as plain values."""
    found: dict[str, Parameter] = {}
    for key, value in given.items():
        choice = value.WhichOneof("parameter_choice")
        if choice is None:
            raise ProtocolError(f"parameter '{key}' has no value")
        found[key] = getattr(value, choice)
    return found


def _check_unique(kind: str, names: Sequence[str]) -> None:
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ProtocolError(f"{kind} '{twice}' is given twice")


def _read_input(tensor: Any) -> _Input | Reference:
    name, shape = tensor.name, tuple(tensor.shape)
    dtype = DATATYPES.get(tensor.datatype)
    if dtype is None:
        raise ProtocolError(f"tensor '{name}': unknown datatype '{tensor.datatype}', not in {', '.join(DATATYPES)}")
    if len(shape) > MAX_RANK or any(dim < 0 for dim in shape):
        raise ProtocolError(f"tensor '{name}': a shape has at most {MAX_RANK} dimensions of 0 or more")
    count = count_elements(shape, name)
    place = _read_place(f"tensor '{name}'", tensor.parameters)
    if place is None:
        return _Input(name, dtype, shape, count, _read_contents(tensor, name, dtype, shape, count))
    if tensor.contents.ListFields():
        raise ProtocolError(f"tensor '{name}' has both contents and {REGION}, one is needed")
    return refer(name, dtype, shape, count, place)


def _read_output(output: Any) -> OutputRequest:
    classes = output.parameters["classification"].int64_param if "classification" in output.parameters else None
    if classes is not None and classes < 1:
        raise ProtocolError(f"output '{output.name}': classification must be an integer of 1 or more (int64_param)")
    place = _read_place(f"output '{output.name}'", output.parameters)
    if place is not None:
        return output_in_region(output.name, classes or 0, place)
    return OutputRequest(output.name, binary=True, classification=classes or 0)


def _read_place(what: str, parameters: Any) -> RegionRef | None:
    """Where in a region a tensor lies, None where it does not."""
    if REGION not in parameters:
        return None
    given = read_parameters(
        {key: parameters[key] for key in (REGION, REGION_OFFSET, REGION_BYTES) if key in parameters}
    )
    region, offset, nbytes = given[REGION], given.get(REGION_OFFSET, 0), given.get(REGION_BYTES)
    if type(region) is not str or type(offset) is not int or type(nbytes) not in (int, NoneType):
        raise ProtocolError(f"{what}: {REGION} is a string_param, {REGION_OFFSET} and {REGION_BYTES} are int64_params")
    return place_of(what, region, offset, nbytes)  # type: ignore[arg-type]


def _read_contents(tensor: Any, name: str, dtype: np.dtype[Any], shape: tuple[int, ...], count: int) -> Array | None:
    """The tensor from its typed contents, read-only; None where there are none."""
    filled = tensor.contents.ListFields() if tensor.HasField("contents") else ()
    if not filled:
        return None
    wanted = _FIELDS.get(tensor.datatype)
    if wanted is None:
        raise ProtocolError(f"tensor '{name}': {tensor.datatype} has no typed contents, use raw_input_contents")
    if [field.name for field, _ in filled] != [wanted]:
        came = ", ".join(field.name for field, _ in filled)
        raise ProtocolError(f"tensor '{name}': {tensor.datatype} goes into {wanted}, not {came}")
    values = filled[0][1]
    if len(values) != count:
        raise ProtocolError(f"tensor '{name}': shape {list(shape)} has {count} elements, {wanted} has {len(values)}")
    array = _to_array(values, dtype, name, tensor.datatype).reshape(shape)
    array.flags.writeable = False
    return array


def _to_array(values: Any, dtype: np.dtype[Any], name: str, datatype: str) -> Array:
    if dtype is BYTES:
        array = np.empty(len(values), BYTES)
        array[:] = list(values)
        return array
    try:
        return np.array(list(values), dtype)
    except OverflowError:
        raise ProtocolError(f"tensor '{name}': a value is out of range for {datatype}") from None


def _read_inputs(inputs: Sequence[_Input], message: bytes, sections: Sequence[Span]) -> dict[str, Array]:
    """All tensors by name. Either all are raw, one section an input in their order, or none is."""
    if not sections:
        return {each.name: each.data if each.data is not None else _empty(each) for each in inputs}
    found: dict[str, Array] = {}
    for place, (name, dtype, shape, count, data) in enumerate(inputs):
        if data is not None:
            raise ProtocolError(f"tensor '{name}' has contents, beside raw_input_contents; use one of them for all")
        if place >= len(sections):
            raise ProtocolError(
                f"tensor '{name}' has no data: there are {len(inputs)} inputs and {len(sections)} raw_input_contents"
            )
        begin, end = sections[place]
        if dtype is not BYTES and count * dtype.itemsize != end - begin:
            raise ProtocolError(
                f"tensor '{name}': shape {list(shape)} of {dtype.itemsize}-byte elements takes "
                f"{count * dtype.itemsize} bytes, its raw_input_contents has {end - begin}"
            )
        found[name] = read_section(message, begin, end - begin, dtype, shape, count, name)
    if len(sections) > len(inputs):
        raise ProtocolError(f"{len(sections)} raw_input_contents came for {len(inputs)} inputs")
    return found


def _empty(tensor: _Input) -> Array:
    if tensor.elements:
        raise ProtocolError(f"tensor '{tensor.name}' has neither contents nor raw_input_contents")
    array = np.empty(tensor.shape, tensor.dtype)
    array.flags.writeable = False
    return array
