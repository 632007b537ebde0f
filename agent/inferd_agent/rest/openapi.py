"""`GET /openapi.json`: the document of the REST interface, made of the route table and of the structs that bodies are
read into and written from, so that it cannot say anything else than the code does.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from inferd.protocol import messages, openai, v1
from inferd.protocol.requests import RequestBody
from inferd.protocol.responses import ResponseBody
from inferd_agent.rest.plans import MeasureRequest
from inferd_agent.rest.routes import Endpoint
from inferd_agent.rest.settings import LogRequest, TraceRequest

_PARAMETERS = {
    "{m}": ("model", "The name of a model."),
    "{n}": ("version", "A version: a plain decimal number."),
    "{g}": ("region", "The name of a region of shared memory."),
    "{r}": ("repository", "Any name; repositories have none here."),
}
# By label: what an endpoint reads (and whether it must come) and writes. Bodies of the others are any JSON.
_READS: dict[str, tuple[Any, bool]] = {
    "infer": (RequestBody, True),
    "predict": (v1.PredictBody, True),
    "generate": (dict[str, Any], True),
    "generate_stream": (dict[str, Any], True),
    "embeddings": (openai.EmbeddingsRequest, True),
    "index": (messages.IndexRequest, False),
    "load": (messages.LoadRequest, False),
    "unload": (messages.UnloadRequest, False),
    "plan": (MeasureRequest, False),
    "register": (messages.RegisterRegion, True),
    "trace": (TraceRequest, False),
    "logging": (LogRequest, False),
}
_WRITES: dict[str, Any] = {
    "infer": ResponseBody,
    "predict": v1.PredictionBody,
    "generate": dict[str, Any],
    "status": v1.StatusBody,
    "signature": v1.SignatureBody,
    "embeddings": openai.EmbeddingsBody,
    "list": openai.ModelList,
    "server": messages.ServerMetadata,
    "metadata": messages.ModelMetadata,
    "config": messages.ModelConfig,
    "statistics": messages.StatisticsBody,
    "index": list[messages.IndexEntry],
    "regions": list[messages.RegionStatus],
    "memory": messages.MemoryBody,
}
_PARTLY = frozenset({"load", "unload", "register", "trace", "logging"})  # some of what may be asked is not done here
_SCHEMA = "#/components/schemas/{name}"
Json = dict[str, Any]


def document(table: Mapping[str, Endpoint], version: str) -> bytes:
    """The document of all paths in `table`, as JSON."""
    kinds = [kind for kind, _ in _READS.values()] + list(_WRITES.values()) + [messages.ErrorBody, openai.OpenAIError]
    schemas, components = msgspec.json.schema_components(kinds, ref_template=_SCHEMA)
    schema_of = {repr(kind): schema for kind, schema in zip(kinds, schemas, strict=True)}
    paths = {_path(path): _operations(path, endpoint, schema_of) for path, endpoint in table.items()}
    whole = {
        "openapi": "3.1.0",
        "info": {"title": "inferd", "version": version, "license": {"name": "Apache-2.0"}},
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer", "bearerFormat": "ifd_..."}},
        },
    }
    return msgspec.json.encode(whole)


def _path(path: str) -> str:
    return re.sub(r"\{[mngr]\}", lambda found: f"{{{_PARAMETERS[found[0]][0]}}}", path)


def _operations(path: str, endpoint: Endpoint, schema_of: Json) -> Json:
    found: Json = {"parameters": [_parameter(word) for word in re.findall(r"\{[mngr]\}", path)]}
    for each in (endpoint, endpoint.other):
        if each is not None:
            found[each.method.lower()] = _operation(path, each, schema_of)
    return found


def _parameter(word: str) -> Json:
    name, description = _PARAMETERS[word]
    schema: Json = {"type": "string", "minLength": 1}
    if word == "{n}":
        schema["pattern"] = "^[0-9]{1,18}$"
    return {"name": name, "in": "path", "required": True, "description": description, "schema": schema}


def _operation(path: str, endpoint: Endpoint, schema_of: Json) -> Json:
    """One method of one path; what it needs of the caller is told in words, as bearer tokens have no scopes here."""
    scopes = endpoint.scopes
    operation: Json = {
        "operationId": f"{endpoint.method.lower()}{re.sub(r'[^A-Za-z0-9]+', '_', path).rstrip('_')}",
        "tags": [endpoint.label],
        "responses": {
            "2XX": {"description": "Done.", "content": _content(endpoint, schema_of)},
            "4XX": {"description": "Refused, with the reason.", "content": _json(_refusal(path, schema_of))},
            "5XX": {"description": "Not now, or a fault.", "content": _json(_refusal(path, schema_of))},
        },
        "security": [] if scopes is None else [{"token": []}],
    }
    if endpoint.label in _PARTLY:
        content = _json(_refusal(path, schema_of))
        operation["responses"]["501"] = {"description": "Something that is not done here.", "content": content}
    if scopes:
        operation["description"] = f"Needs the scope {' or '.join(scopes)}."
    if endpoint.method == "POST" and endpoint.label in _READS:
        kind, is_required = _READS[endpoint.label]
        operation["requestBody"] = {"required": is_required, "content": _json(schema_of[repr(kind)])}
    return operation


def _content(endpoint: Endpoint, schema_of: Json) -> Json:
    if endpoint.label == "metrics":
        return {"text/plain": {"schema": {"type": "string"}}}
    if endpoint.label == "generate_stream":
        return {"text/event-stream": {"schema": {"type": "string"}}}
    content = _json(schema_of[repr(_WRITES[endpoint.label])] if endpoint.label in _WRITES else {})
    if endpoint.label == "infer":
        content["application/octet-stream"] = {"schema": {"type": "string", "format": "binary"}}
    return content


def _refusal(path: str, schema_of: Json) -> Json:
    kind = openai.OpenAIError if path == "/v1/embeddings" else messages.ErrorBody
    found: Json = schema_of[repr(kind)]
    return found


def _json(schema: Json) -> Json:
    return {"application/json": {"schema": schema}}
