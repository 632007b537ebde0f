"""An inference response, written and read.

Outputs go in the order asked, each in the form asked. JSON outputs are flat and carry no `parameters`: some clients
take their presence to mean binary. A response without a single binary byte is plain JSON, with no header length. Of an
output that was written into a region only name, datatype and shape are told.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from inferd.protocol.binary import pad_header, write_section
from inferd.protocol.classification import classify
from inferd.protocol.datatypes import Array, Buffer, datatype_of, sendable
from inferd.protocol.errors import ProtocolError
from inferd.protocol.jsondata import decode_header, encode_data
from inferd.protocol.regions import NO_PLACES, Reference, RegionRef
from inferd.protocol.requests import Limits, OutputRequest, Request, split_body
from inferd.protocol.tensors import TensorHeader, TensorOut, place_tensors, read_tensors

# A response comes from a server that the caller chose, and JSON outputs can be long.
RESPONSE_LIMITS = Limits(max_json_bytes=1 << 30, max_tensors=1 << 16)


@dataclass(slots=True)
class Response:
    """What a model answered; `outputs` are read-only views on the body, in the server's order.

    `references` are the outputs that were written into the regions offered for them.
    """

    model_name: str
    model_version: str = ""
    id: str = ""
    outputs: dict[str, Array] = field(default_factory=dict)
    parameters: Mapping[str, Any] = field(default_factory=dict)
    references: tuple[Reference, ...] = ()


class ResponseBody(msgspec.Struct, omit_defaults=True, gc=False):
    """The JSON of a response, as written."""

    model_name: str
    model_version: str
    outputs: list[TensorOut]
    id: str = ""


class _Response(msgspec.Struct):
    outputs: list[TensorHeader]
    model_name: str = ""
    model_version: str | None = None
    id: str | None = None
    parameters: dict[str, Any] | None = None


_ENCODER = msgspec.json.Encoder()
_DECODER = msgspec.json.Decoder(_Response)


def encode_response(
    request: Request,
    model_name: str,
    model_version: str,
    outputs: Mapping[str, Array],
    *,
    labels: Mapping[str, Sequence[str]] | None = None,
    batched: bool = True,
) -> tuple[int | None, list[bytes | memoryview]]:
    """Write the answer to `request`: the header length (None: plain JSON) and the buffers of the body, header first.

    `labels` and `batched` matter for classification only. Large arrays are sent as views: they must stay unchanged.
    Outputs with a place in a region are in it already.
    """
    tensors: list[TensorOut] = []
    sections: list[bytes | memoryview] = []
    if not request.outputs:
        for name, array in outputs.items():
            _write(name, array, request.binary_default, tensors, sections)
    for wanted in request.outputs:
        array = pick_output(outputs, wanted, labels, batched)
        if wanted.place is not None:
            tensors.append(TensorOut(wanted.name, datatype_of(array.dtype), array.shape))
            continue
        _write(wanted.name, array, wanted.binary, tensors, sections)
    header = _ENCODER.encode(ResponseBody(model_name, model_version, tensors, request.id))
    if not sections:
        return None, [header]
    header = pad_header(header)
    return len(header), [header, *sections]


def pick_output(
    outputs: Mapping[str, Array], wanted: OutputRequest, labels: Mapping[str, Sequence[str]] | None, batched: bool
) -> Array:
    """The tensor that answers one wanted output, ranked where classes were asked for. ProtocolError if it has none."""
    array = outputs.get(wanted.name)
    if array is None:
        raise ProtocolError(f"no output '{wanted.name}', the model has {', '.join(outputs)}")
    if not wanted.classification:
        return array
    names = labels.get(wanted.name, ()) if labels else ()
    return classify(array, wanted.classification, names, batched=batched, name=wanted.name)


def _write(name: str, value: Array, binary: bool, tensors: list[TensorOut], sections: list[bytes | memoryview]) -> None:
    array = sendable(value)
    datatype = datatype_of(array.dtype)
    if not binary:
        tensors.append(TensorOut(name, datatype, array.shape, data=encode_data(array, datatype, name)))
        return
    section = write_section(array)
    tensors.append(TensorOut(name, datatype, array.shape, {"binary_data_size": len(section)}))
    if section:
        sections.append(section)


def decode_response(
    body: Buffer,
    header_length: int | None = None,
    limits: Limits = RESPONSE_LIMITS,
    places: Mapping[str, RegionRef] = NO_PLACES,
) -> Response:
    """Read a response; `header_length` is None when the whole body is JSON. `places`: in which regions the caller wants
    which outputs. Whether such an output fits the room that it was offered is for the caller to see."""
    whole, text = split_body(body, header_length, limits)
    header, has_specials = decode_header(_DECODER, text, "response")
    if len(header.outputs) > limits.max_tensors:
        raise ProtocolError(f"at most {limits.max_tensors} outputs are taken")
    found, references = place_tensors(header.outputs, len(whole), len(text), places)
    outputs = read_tensors(found, whole, has_specials)
    return Response(
        header.model_name, header.model_version or "", header.id or "", outputs, header.parameters or {}, references
    )
