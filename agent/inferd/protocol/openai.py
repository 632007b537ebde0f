"""The bodies of OpenAI's embeddings and model list, as much of them as has a meaning here.

A text is a string or a list of token ids; several of one kind make a list. Fields that are not known are ignored, as
clients of many ages send many. Vectors go out as numbers, or as base64 of little-endian float32.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Annotated, Any, Literal, cast

import msgspec
import numpy as np
from msgspec import Meta, Struct

from inferd.protocol.errors import ProtocolError
from inferd.protocol.messages import decode, encode

Token = Annotated[int, Meta(ge=0, le=(1 << 31) - 1)]
Text = str | list[int]
MAX_TEXTS = 2048


class EmbeddingsRequest(Struct, frozen=True):
    """`POST /v1/embeddings`."""

    model: Annotated[str, Meta(min_length=1, max_length=256)]
    input: str | list[str | Token | list[Token]]
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: Annotated[int, Meta(ge=1, le=1 << 20)] | None = None

    def texts(self) -> list[Text]:
        """The texts in their order, all strings or all token ids. Raises ProtocolError."""
        given = self.input
        if isinstance(given, str):
            return [given]
        kinds = {type(each) for each in given}
        if len(kinds) != 1:
            raise ProtocolError("input: expected a string, token ids, or a list of either; got a mix or nothing")
        if kinds == {int}:
            return [cast(list[int], given)]
        if len(given) > MAX_TEXTS:
            raise ProtocolError(f"input: {len(given)} texts, at most {MAX_TEXTS} are taken in one request")
        return cast(list[Text], given)


class EmbeddingEntry(Struct, frozen=True):
    """One vector; `embedding` is base64 where that was asked for."""

    index: int
    embedding: list[float] | str
    object: str = "embedding"


class Usage(Struct, frozen=True):
    """What was read, in tokens."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingsBody(Struct, frozen=True):
    """The answer: a vector for each text, in the order of the texts."""

    data: list[EmbeddingEntry]
    model: str
    usage: Usage
    object: str = "list"


class ModelEntry(Struct, frozen=True):
    """One line of the list; when a model was made is not known here, so `created` is 0."""

    id: str
    object: str = "model"
    created: int = 0
    owned_by: str = "inferd"


class ModelList(Struct, frozen=True):
    """`GET /v1/models`, for clients of OpenAI (`data`) and of KServe V1 (`models`)."""

    data: list[ModelEntry]
    models: list[str]
    object: str = "list"


class ErrorDetail(Struct, frozen=True):
    """What went wrong, in OpenAI's words."""

    message: str
    type: str
    param: str | None = None
    code: str | None = None


class OpenAIError(Struct, frozen=True):
    """Every refusal under `/v1/embeddings`."""

    error: ErrorDetail


_REQUEST = msgspec.json.Decoder(EmbeddingsRequest)
_KINDS = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
_CODES = {401: "invalid_api_key", 404: "model_not_found", 413: "request_too_large", 429: "rate_limit_exceeded"}


def decode_embeddings(body: bytes | memoryview) -> EmbeddingsRequest:
    """Read a request. Raises ProtocolError."""
    return decode(_REQUEST, body, "embeddings")


def encode_embeddings(vectors: np.ndarray[Any, Any], request: EmbeddingsRequest, tokens: int) -> bytes:
    """Write the answer; `vectors` has a row of float32 for each text."""
    told: Sequence[list[float] | str]
    if request.encoding_format == "base64":
        told = [base64.b64encode(row.astype("<f4").tobytes()).decode() for row in vectors]
    else:
        told = vectors.tolist()
    entries = [EmbeddingEntry(index, each) for index, each in enumerate(told)]
    return encode(EmbeddingsBody(entries, request.model, Usage(tokens, tokens)))


def encode_error(status: int, text: str) -> bytes:
    """A refusal as OpenAI's clients read it."""
    kind = _KINDS.get(status, "invalid_request_error" if status < 500 else "server_error")
    return encode(OpenAIError(ErrorDetail(text, kind, None, _CODES.get(status))))
