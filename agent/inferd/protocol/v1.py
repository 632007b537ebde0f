"""KServe's V1 protocol and TensorFlow Serving's, which are one for predictions, sans IO.

Rows (`instances` -> `predictions`) or columns (`inputs` -> `outputs`); shapes are what the nesting says, bytes that are
no text are `{"b64": "..."}`. Numbers are read by the datatypes of the model's inputs, never guessed.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
from msgspec import UNSET, UnsetType

from inferd.protocol.datatypes import Array, Buffer, datatype_of
from inferd.protocol.errors import ProtocolError
from inferd.protocol.jsondata import decode_header, decode_nested
from inferd.protocol.openai import ModelEntry
from inferd.protocol.requests import DEFAULT_LIMITS, split_body

_ROW_OBJECT = re.compile(rb"\s*\[\s*\{(?!\s*\"\$\")")
_ROW_BYTES = re.compile(rb"\s*\[\s*\{\s*\"b64\"\s*:")
_OBJECT = re.compile(rb"\s*\{(?!\s*\"\$\")")
_SIGNATURES = ("", "serving_default")


class PredictBody(msgspec.Struct):
    """`POST /v1/models/{model}:predict`, as read: rows or columns."""

    instances: msgspec.Raw = msgspec.field(default_factory=msgspec.Raw)  # a schema cannot show a default of raw JSON
    inputs: msgspec.Raw = msgspec.field(default_factory=msgspec.Raw)
    signature_name: str | None = None


class PredictionBody(msgspec.Struct):
    """The answer, as written, in the form that was asked in."""

    predictions: list[Any] | UnsetType = UNSET
    outputs: Any = UNSET


class VersionError(msgspec.Struct, frozen=True):
    """What keeps a version from serving; `OK` where nothing does."""

    error_code: str
    error_message: str


class VersionStatus(msgspec.Struct, frozen=True):
    """One version, in TensorFlow Serving's words."""

    version: str
    state: str
    status: VersionError


class StatusBody(ModelEntry, frozen=True, kw_only=True):
    """`GET /v1/models/{model}`: these are KServe's and TensorFlow Serving's, what is inherited is OpenAI's."""

    name: str
    ready: bool
    model_version_status: list[VersionStatus]


class ModelSpecBody(msgspec.Struct, frozen=True):
    """Which model and version is told of."""

    name: str
    version: str
    signature_name: str = ""


class SignatureBody(msgspec.Struct, frozen=True):
    """`GET /v1/models/{model}/metadata`."""

    model_spec: ModelSpecBody
    metadata: dict[str, Any]


_DECODER = msgspec.json.Decoder(PredictBody)
_ROWS = msgspec.json.Decoder(list[dict[str, msgspec.Raw]])
_COLUMNS = msgspec.json.Decoder(dict[str, msgspec.Raw])


@dataclass(frozen=True, slots=True)
class Prediction:
    """What was asked: tensors by input name; `rows` is how many there are in row form, None in column form."""

    inputs: dict[str, Array]
    rows: int | None


def decode_predict(body: Buffer, datatypes: Mapping[str, str]) -> Prediction:
    """Read a request to a model whose inputs have these datatypes. Raises ProtocolError."""
    _, text = split_body(body, None, DEFAULT_LIMITS)
    asked, has_specials = decode_header(_DECODER, text, "request")
    if (asked.signature_name or "") not in _SIGNATURES:
        raise ProtocolError(f"there is no signature {str(asked.signature_name)[:40]!r} here, only 'serving_default'")
    instances, inputs = bytes(asked.instances), bytes(asked.inputs)
    if bool(instances) == bool(inputs):
        raise ProtocolError("a request has either 'instances' (rows) or 'inputs' (columns)")
    raws = _columns(inputs, datatypes) if inputs else _rows(instances, datatypes)
    arrays = {name: decode_nested(msgspec.Raw(raw), datatypes[name], name, has_specials) for name, raw in raws.items()}
    if inputs:
        return Prediction(arrays, None)
    rows = max((len(array) for array in arrays.values() if array.ndim), default=0)
    if not rows:
        raise ProtocolError("'instances' has no rows")
    return Prediction(arrays, rows)


def _rows(text: bytes, datatypes: Mapping[str, str]) -> dict[str, bytes]:
    """The JSON of each input, from rows that are values of the only input or objects with a value for each."""
    is_bytes = list(datatypes.values()) == ["BYTES"] and "b64" not in datatypes and _ROW_BYTES.match(text)
    if is_bytes or _ROW_OBJECT.match(text) is None:
        return {_only(datatypes, "instances"): text}
    try:
        rows = _ROWS.decode(text)
    except msgspec.MsgspecError as error:
        raise ProtocolError(f"'instances' has objects and other things: {error}") from None
    names = rows[0].keys()
    for number, row in enumerate(rows):
        if row.keys() != names:
            raise ProtocolError(f"row {number} of 'instances' has {sorted(row)}, the first has {sorted(names)}")
    _check_names(names, datatypes)
    return {name: b"[" + b",".join([bytes(row[name]) for row in rows]) + b"]" for name in names}


def _columns(text: bytes, datatypes: Mapping[str, str]) -> dict[str, bytes]:
    """The JSON of each input, from the value of the only input or an object with a value for each."""
    if _OBJECT.match(text) is None:
        return {_only(datatypes, "inputs"): text}
    columns = _COLUMNS.decode(text)
    if columns.keys() == {"b64"} and "b64" not in datatypes:
        return {_only(datatypes, "inputs"): text}
    _check_names(columns.keys(), datatypes)
    return {name: bytes(raw) for name, raw in columns.items()}


def _only(datatypes: Mapping[str, str], where: str) -> str:
    if len(datatypes) != 1:
        raise ProtocolError(f"the model has several inputs, so {where!r} has to name them: {', '.join(datatypes)}")
    return next(iter(datatypes))


def _check_names(names: Any, datatypes: Mapping[str, str]) -> None:
    for name in names:
        if name not in datatypes:
            raise ProtocolError(f"unknown input {name[:40]!r}; this model takes {', '.join(datatypes)}")


def encode_predict(prediction: Prediction, outputs: Mapping[str, Array]) -> bytes:
    """Write the answer, in the form that was asked in: an object by output name where there are several."""
    spelled = {name: spell(name, array) for name, array in outputs.items()}
    is_finite = all(array.dtype.kind not in "fV" or bool(np.isfinite(array).all()) for array in outputs.values())
    if prediction.rows is None:
        columns = next(iter(spelled.values())) if len(spelled) == 1 else spelled
        return msgspec.json.encode(PredictionBody(outputs=columns if is_finite else _with_specials(columns)))
    for name, array in outputs.items():
        if not array.ndim or len(array) != prediction.rows:
            raise ProtocolError(
                f"output {name!r} has shape {list(array.shape)} for {prediction.rows} rows: "
                "ask with 'inputs' in place of 'instances'"
            )
    rows = _joined(spelled)
    return msgspec.json.encode(PredictionBody(predictions=rows if is_finite else _with_specials(rows)))


def _with_specials(values: Any) -> Any:
    """Values with NaN and infinities among them, which only the standard library spells."""
    return msgspec.Raw(json.dumps(values, separators=(",", ":")).encode())


def _joined(columns: Mapping[str, list[Any]]) -> list[Any]:
    """Rows out of columns."""
    if len(columns) == 1:
        return next(iter(columns.values()))
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def spell(name: str, array: Array) -> Any:
    """The nested values of a tensor. Bytes are text where they are UTF-8 and the name does not end in `_bytes`."""
    datatype = datatype_of(array.dtype)
    if datatype in ("FP16", "BF16"):
        return array.astype(np.float32).tolist()
    if datatype != "BYTES":
        return array.tolist()
    is_text = not name.endswith("_bytes")
    flat = np.empty(array.size, object)
    flat[:] = [_spell_bytes(each, is_text) for each in array.ravel().tolist()]
    return flat.reshape(array.shape).tolist()


def _spell_bytes(element: bytes | str, is_text: bool) -> Any:
    raw = element.encode() if isinstance(element, str) else element
    if is_text:
        try:
            return raw.decode()
        except UnicodeDecodeError:
            pass
    return {"b64": base64.b64encode(raw).decode()}
