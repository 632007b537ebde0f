"""A ModelInferResponse as bytes: a head that is mostly the same again, the id, and the tensors, each copied once.

Tensors always go out raw, one entry an output in order, as all clients read them; that of one in a region is empty.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache

from inferd.protocol import Request, datatype_of
from inferd.protocol.binary import write_section
from inferd.protocol.datatypes import Array, sendable
from inferd.protocol.responses import pick_output
from inferd_agent.grpc.messages import ModelInferResponse

_ID_TAG, _RAW_TAG, _STREAMED_TAG = b"\x1a", b"\x32", b"\x12"  # field 3, field 6; field 2 of a stream's answer
FINAL = "triton_final_response"

Labels = Mapping[str, Sequence[str]]
Facts = tuple[tuple[str, str, tuple[int, ...]], ...]


def encode(
    request: Request,
    model: str,
    version: int,
    outputs: Mapping[str, Array],
    *,
    labels: Labels | None = None,
    batched: bool = True,
    is_final: bool = False,
) -> bytes:
    """The answer to a request. `labels` and `batched` matter for classification, `is_final` marks it as the last."""
    in_regions: frozenset[str] = frozenset()
    if request.outputs:
        in_regions = frozenset(each.name for each in request.outputs if each.place is not None)
        outputs = {each.name: pick_output(outputs, each, labels, batched) for each in request.outputs}
    facts: list[tuple[str, str, tuple[int, ...]]] = []
    parts: list[bytes | memoryview] = [b""]
    if request.id:
        parts += _field(_ID_TAG, request.id.encode())
    for name, value in outputs.items():
        array = sendable(value)
        facts.append((name, datatype_of(array.dtype), array.shape))
        parts += _field(_RAW_TAG, b"" if name in in_regions else write_section(array))
    parts[0] = _head(model, version, tuple(facts), is_final)
    return b"".join(parts)


def streamed(answer: bytes) -> bytes:
    """An answer as a stream's message."""
    return b"".join(_field(_STREAMED_TAG, answer))


@lru_cache(maxsize=512)
def _head(model: str, version: int, facts: Facts, is_final: bool) -> bytes:
    message = ModelInferResponse(model_name=model, model_version=str(version))
    for name, datatype, shape in facts:
        message.outputs.add(name=name, datatype=datatype, shape=shape)
    if is_final:
        message.parameters[FINAL].bool_param = True
    head: bytes = message.SerializeToString()
    return head


def _field(tag: bytes, data: bytes | memoryview) -> tuple[bytes, bytes, bytes | memoryview]:
    return tag, _varint(len(data)), data


def _varint(value: int) -> bytes:
    octets = bytearray()
    while value > 0x7F:
        octets.append(value & 0x7F | 0x80)
        value >>= 7
    octets.append(value)
    return bytes(octets)
