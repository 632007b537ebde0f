"""An inference request, read and written.

The decoder takes any bytes at all and answers with a `Request` or a ProtocolError. It trusts no claim: sizes and shapes
are compared with the bytes present before anything is allocated. The inputs of a `Request` are views on the body.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from types import MappingProxyType
from typing import Annotated, NamedTuple

import msgspec
from msgspec import UNSET, Meta, UnsetType

from inferd.protocol.binary import pad_header, write_section
from inferd.protocol.datatypes import DATATYPES, Array, Buffer, datatype_of, sendable
from inferd.protocol.errors import ProtocolError
from inferd.protocol.jsondata import decode_header, encode_data
from inferd.protocol.regions import NO_PLACES, Reference, RegionRef, place_of, refer
from inferd.protocol.tensors import Place, TensorHeader, TensorOut, place_tensors, read_tensors

HEADER_LENGTH = "Inference-Header-Content-Length"
Parameter = bool | int | float | str
UINT64_MAX = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on one message: JSON takes many times its size once it is objects, so it has a bound of its own."""

    max_json_bytes: int = 32 << 20
    max_tensors: int = 1024


@dataclass(frozen=True, slots=True)
class OutputRequest:
    """One wanted output: its form, how many classes to make of it (0: the tensor itself), and where in a region it is
    to be written, whose `nbytes` is how much there is room for (None: it is sent)."""

    name: str
    binary: bool = False
    classification: int = 0
    place: RegionRef | None = None


@dataclass(slots=True)
class Request:
    """What a caller asks. `outputs` is empty when all are wanted; then `binary_default` tells their form.

    `parameters` holds everything the caller sent, of checked types. `timeout_us` and `priority` are None when not sent.
    `references` are the inputs that lie in regions: whoever has the regions adds them to `inputs`.
    """

    id: str = ""
    inputs: dict[str, Array] = field(default_factory=dict)
    outputs: tuple[OutputRequest, ...] = ()
    binary_default: bool = False
    parameters: Mapping[str, Parameter] = field(default_factory=dict)
    timeout_us: int | None = None
    priority: int | None = None
    references: tuple[Reference, ...] = ()


class _OutputParameters(msgspec.Struct, gc=False):
    binary_data: bool | None = None
    classification: Annotated[int, Meta(ge=1)] | None = None
    shared_memory_region: str | None = None
    shared_memory_offset: Annotated[int, Meta(ge=0)] | None = None
    shared_memory_byte_size: Annotated[int, Meta(ge=0)] | None = None


class _Output(msgspec.Struct, gc=False):
    name: str
    parameters: _OutputParameters | None = None


class RequestBody(msgspec.Struct):
    """The JSON of a request, as read; `data` of an input is looked at once its datatype and shape are."""

    inputs: list[TensorHeader]
    outputs: list[_Output] | None = None
    id: str | None = None
    parameters: dict[str, Parameter] | None = None


class _OutputOut(msgspec.Struct, gc=False):
    name: str
    parameters: dict[str, Parameter] | UnsetType = UNSET


class _RequestOut(msgspec.Struct, omit_defaults=True, kw_only=True, gc=False):
    id: str = ""  # first, where `_ID` finds it
    inputs: list[TensorOut]
    parameters: Mapping[str, Parameter] | None = None
    outputs: list[_OutputOut] | None = None


_DECODER = msgspec.json.Decoder(RequestBody)
_ENCODER = msgspec.json.Encoder()
DEFAULT_LIMITS = Limits()
_UNSIGNED = frozenset({"timeout", "priority"})
_FLAGS = frozenset({"sequence_start", "sequence_end", "binary_data_output"})
_NO_SEQUENCES = "sequences are not supported: models here keep no state from one request to the next"
_NO_PARAMETERS: Mapping[str, Parameter] = MappingProxyType({})
# Headers that are remembered: half a megabyte of text at most.
_KEPT_HEADERS = 512
_KEPT_BYTES = 1024
# The id of a request whose header begins with it, as clients write it: what differs where all else is repeated.
_ID = re.compile(rb'\{"id": ?"([ !#-\[\]-~]*)", ?')


def parse_header_length(text: str | None) -> int | None:
    """The value of the Inference-Header-Content-Length header: plain decimal digits, or None when it is absent."""
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 19):
        raise ProtocolError(f"{HEADER_LENGTH} must be a plain decimal number, got '{text[:40]}'")
    return int(text)


def split_body(
    body: Buffer, header_length: int | None, limits: Limits
) -> tuple[bytes | memoryview, bytes | memoryview]:
    """The body as something read-only, and the JSON at its start."""
    whole: bytes | memoryview = body if isinstance(body, bytes) else memoryview(body).toreadonly().cast("B")
    size = len(whole)
    if header_length is None:
        header_length = size
    elif not 0 <= header_length <= size:
        raise ProtocolError(f"{HEADER_LENGTH} is {header_length}, the body has {size} bytes")
    if header_length == 0:
        raise ProtocolError("the JSON header is empty" if size else "the body is empty, expected a JSON object")
    if header_length > limits.max_json_bytes:
        raise ProtocolError(
            f"{header_length} bytes of JSON, at most {limits.max_json_bytes} are taken: use binary data"
        )
    return whole, whole if header_length == size else whole[:header_length]


class _Header(NamedTuple):
    """What the JSON of a request says, checked against the size of its body; never changed once read."""

    id: str | None
    places: Sequence[Place]
    references: tuple[Reference, ...]
    has_specials: bool
    outputs: tuple[OutputRequest, ...]
    binary_default: bool
    parameters: Mapping[str, Parameter]


def decode_request(body: Buffer, header_length: int | None = None, limits: Limits = DEFAULT_LIMITS) -> Request:
    """Read a request; `header_length` is None when the whole body is JSON. The body must stay unchanged meanwhile."""
    whole, text = split_body(body, header_length, limits)
    size, length = len(whole), len(text)
    # Callers repeat themselves: the header of one shape of request is read once, and then known by its bytes.
    given_id = None
    if length <= _KEPT_BYTES and length < size and limits is DEFAULT_LIMITS:
        known = bytes(text)
        if (found := _ID.match(known)) is not None:
            given_id = found[1].decode()
            known = b"{" + known[found.end() :]
        header = _known_header(known, size, length)
    else:
        header = _read_header(text, size, length, limits)
    parameters = header.parameters
    return Request(
        given_id if header.id is None and given_id is not None else header.id or "",
        read_tensors(header.places, whole, header.has_specials),
        header.outputs,
        header.binary_default,
        parameters,
        parameters.get("timeout"),  # type: ignore[arg-type]  # check_parameters has seen to it
        parameters.get("priority"),  # type: ignore[arg-type]
        header.references,
    )


def _read_header(text: bytes | memoryview, size: int, length: int, limits: Limits) -> _Header:
    """Read the JSON of a body of `size` bytes, which began with `length` bytes of JSON before its id was cut out."""
    header, has_specials = decode_header(_DECODER, text, "request")
    if len(header.inputs) > limits.max_tensors or (header.outputs and len(header.outputs) > limits.max_tensors):
        raise ProtocolError(f"at most {limits.max_tensors} inputs and as many outputs are taken")
    parameters = header.parameters or _NO_PARAMETERS
    check_parameters(parameters)
    return _Header(
        header.id,
        *place_tensors(header.inputs, size, length),
        has_specials,
        _read_outputs(header.outputs),
        parameters.get("binary_data_output", False) is True,
        parameters,
    )


@lru_cache(maxsize=_KEPT_HEADERS)
def _known_header(text: bytes, size: int, length: int) -> _Header:
    """`_read_header`, remembered; errors are not."""
    return _read_header(text, size, length, DEFAULT_LIMITS)


def _read_outputs(outputs: list[_Output] | None) -> tuple[OutputRequest, ...]:
    if not outputs:
        return ()
    wanted = tuple(_read_output(output) for output in outputs)
    if len({output.name for output in wanted}) != len(wanted):
        raise ProtocolError("an output is requested twice")
    return wanted


def _read_output(output: _Output) -> OutputRequest:
    parameters = output.parameters
    if parameters is None:
        return OutputRequest(output.name)
    region, classification = parameters.shared_memory_region, parameters.classification or 0
    if region is None:
        return OutputRequest(output.name, parameters.binary_data is True, classification)
    offset, nbytes = parameters.shared_memory_offset, parameters.shared_memory_byte_size
    place = place_of(f"output '{output.name}'", region, offset, nbytes)
    return output_in_region(output.name, classification, place)


def output_in_region(name: str, classification: int, place: RegionRef) -> OutputRequest:
    """An output that is to be written into a region, which classes are not."""
    if classification:
        raise ProtocolError(f"output '{name}': classification goes with no shared_memory_region, take one of them")
    return OutputRequest(name, True, 0, place)


def check_parameters(parameters: Mapping[str, Parameter]) -> None:
    """Refuse a request's parameters where one that has a meaning has the wrong type, or is reserved."""
    for key, value in parameters.items():
        kind = type(value)
        if kind is int and not -(1 << 63) <= value <= UINT64_MAX:  # type: ignore[operator]
            raise ProtocolError(f"parameter '{key}' is out of range")
        if key in _UNSIGNED:
            if kind is not int or value < 0:  # type: ignore[operator]
                raise ProtocolError(f"parameter '{key}' must be an integer of 0 or more")
        elif key in _FLAGS:
            if kind is not bool:
                raise ProtocolError(f"parameter '{key}' must be true or false")
            if value and key != "binary_data_output":
                raise ProtocolError(_NO_SEQUENCES)
        elif key == "sequence_id":
            if kind is not str and (kind is not int or value < 0):  # type: ignore[operator]
                raise ProtocolError("parameter 'sequence_id' must be a string or an integer of 0 or more")
            if value:
                raise ProtocolError(_NO_SEQUENCES)
        elif key.startswith("triton_"):
            raise ProtocolError(f"parameter '{key}' is reserved")


def encode_request(
    inputs: Mapping[str, Array],
    outputs: Iterable[str | OutputRequest] | None = None,
    parameters: Mapping[str, Parameter] | None = None,
    *,
    binary: bool = True,
    id: str = "",  # noqa: A002  the protocol's own word
    places: Mapping[str, RegionRef] = NO_PLACES,
) -> tuple[int | None, list[bytes | memoryview]]:
    """Write a request: the header length (None: all JSON) and the buffers of the body, header first.

    Large arrays are sent as views, so they must not change until sent. Of inputs that lie in regions, at `places`, only
    the dtype and shape are sent.
    """
    tensors: list[TensorOut] = []
    sections: list[bytes | memoryview] = []
    for name, value in inputs.items():
        if (place := places.get(name)) is not None:
            tensors.append(_write_reference(name, value, place))
            continue
        array = sendable(value)
        datatype = datatype_of(array.dtype)
        if binary:
            section = write_section(array)
            sections.append(section)
            tensors.append(TensorOut(name, datatype, array.shape, {"binary_data_size": len(section)}))
        else:
            tensors.append(TensorOut(name, datatype, array.shape, data=encode_data(array, datatype, name)))
    wanted = [_write_output(output, binary) for output in outputs] if outputs is not None else None
    if wanted is None and binary:
        parameters = {"binary_data_output": True, **(parameters or {})}
    header = _ENCODER.encode(_RequestOut(id=id, inputs=tensors, parameters=parameters or None, outputs=wanted))
    if not binary:
        return None, [header]
    header = pad_header(header)
    return len(header), [header, *sections]


def _write_reference(name: str, array: Array, place: RegionRef) -> TensorOut:
    dtype = DATATYPES[datatype_of(array.dtype)]
    if array.dtype != dtype:
        raise ProtocolError(f"tensor '{name}': in region '{place.region}' its dtype must be {dtype}, not {array.dtype}")
    refer(name, dtype, array.shape, array.size, place)
    return TensorOut(name, datatype_of(dtype), array.shape, place.parameters)


def _write_output(output: str | OutputRequest, binary: bool) -> _OutputOut:
    if isinstance(output, str):
        return _OutputOut(output, {"binary_data": binary})
    if output.place is not None:
        return _OutputOut(output.name, {**output.place.parameters})
    parameters: dict[str, Parameter] = {"binary_data": output.binary}
    if output.classification:
        parameters["classification"] = output.classification
    return _OutputOut(output.name, parameters)
