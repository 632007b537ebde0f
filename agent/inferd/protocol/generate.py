"""The generate extension: one flat JSON object whose keys are the model's inputs, answered by one with its outputs.

A value is a scalar or a flat list, and its shape follows from the model's: fixed dimensions take their part, and the
innermost free one the rest. Keys that are no input are parameters.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np

from inferd.protocol.datatypes import Array, Buffer
from inferd.protocol.errors import ProtocolError
from inferd.protocol.jsondata import decode_header, decode_nested
from inferd.protocol.requests import DEFAULT_LIMITS, Parameter, Request, check_parameters, split_body
from inferd.protocol.v1 import spell

_OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw])
_ID = msgspec.json.Decoder(str | None)
_PARAMETER = msgspec.json.Decoder(Parameter)
_PARAMETERS = msgspec.json.Decoder(dict[str, Parameter] | None)
_NULL = msgspec.Raw(b"null")


class Wanted(NamedTuple):
    """One input of the model; -1 is a free dimension."""

    name: str
    datatype: str
    shape: tuple[int, ...]


def decode_generate(body: Buffer, inputs: Sequence[Wanted]) -> Request:
    """Read a request to a model with these inputs. Raises ProtocolError."""
    _, text = split_body(body, None, DEFAULT_LIMITS)
    given, has_specials = decode_header(_OBJECT, text, "request")
    arrays = {
        each.name: _fitted(decode_nested(raw, each.datatype, each.name, has_specials), each)
        for each in inputs
        if (raw := given.pop(each.name, None)) is not None
    }
    request_id = decode_header(_ID, bytes(given.pop("id", _NULL)), "id")[0]
    parameters = decode_header(_PARAMETERS, bytes(given.pop("parameters", _NULL)), "parameters")[0] or {}
    for key, raw in given.items():
        what = f"'{key[:80]}' is no input (they are {', '.join(each.name for each in inputs)}), so it is a parameter"
        parameters[key] = decode_header(_PARAMETER, bytes(raw), what)[0]
    check_parameters(parameters)
    return Request(
        request_id or "",
        arrays,
        parameters=parameters,
        timeout_us=parameters.get("timeout"),
        priority=parameters.get("priority"),
    )


def _fitted(array: Array, wanted: Wanted) -> Array:
    """A scalar or a flat list in the shape that the model has for it."""
    if array.ndim > 1:
        raise ProtocolError(f"input '{wanted.name}': expected a value or a flat list, got lists in lists")
    shape = [1 if dim < 0 else dim for dim in wanted.shape]
    fixed = math.prod(shape)
    free = [place for place, dim in enumerate(wanted.shape) if dim < 0]
    if free and fixed and array.size % fixed == 0:
        shape[free[-1]] = array.size // fixed
    if math.prod(shape) != array.size:
        raise ProtocolError(f"input '{wanted.name}': {array.size} elements do not make up {list(wanted.shape)}")
    return array.reshape(shape)


def encode_generate(request: Request, model: str, version: str, outputs: Mapping[str, Array]) -> bytes:
    """Write the answer: outputs of one element are scalars, others flat lists."""
    answer = {"id": request.id} if request.id else {}
    answer |= {"model_name": model, "model_version": version}
    return msgspec.json.encode(answer | {name: _value(name, array) for name, array in outputs.items()})


def _value(name: str, array: Array) -> Any:
    values = spell(name, array.reshape(-1))
    value = values[0] if len(values) == 1 else values
    if array.dtype.kind in "fV" and not np.isfinite(array).all():
        return msgspec.Raw(json.dumps(value, separators=(",", ":")).encode())
    return value
