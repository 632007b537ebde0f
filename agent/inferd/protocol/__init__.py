"""The Open Inference Protocol v2 over REST, sans IO, both directions: bytes in, arrays out, and back.

Knows numpy and msgspec, and nothing of sockets, HTTP libraries or models. Every malformed message is a ProtocolError;
decoding allocates no more than a small multiple of the bytes that it was given.
"""

from inferd.protocol.classification import classify
from inferd.protocol.datatypes import DATATYPES, as_tensor, config_type, datatype_of, decode_bytes, encode_bytes
from inferd.protocol.errors import ProtocolError
from inferd.protocol.regions import Reference, RegionRef, read_reference
from inferd.protocol.requests import (
    HEADER_LENGTH,
    Limits,
    OutputRequest,
    Parameter,
    Request,
    decode_request,
    encode_request,
    parse_header_length,
)
from inferd.protocol.responses import Response, decode_response, encode_response

__all__ = [
    "DATATYPES",
    "HEADER_LENGTH",
    "Limits",
    "OutputRequest",
    "Parameter",
    "ProtocolError",
    "Reference",
    "RegionRef",
    "Request",
    "Response",
    "as_tensor",
    "classify",
    "config_type",
    "datatype_of",
    "decode_bytes",
    "decode_request",
    "decode_response",
    "encode_bytes",
    "encode_request",
    "encode_response",
    "parse_header_length",
    "read_reference",
]
