"""Every call of the API as plain data: method, path, body, and how its answer is read. No IO here.

Both clients send these, so they cannot differ in anything but how they wait.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Generic, NamedTuple, TypeVar
from urllib.parse import quote

import msgspec
import numpy as np

from inferd.errors import BadResponse, InvalidRequest, NotFound, Unsupported, error_from
from inferd.memory import Memories
from inferd.protocol import (
    HEADER_LENGTH,
    OutputRequest,
    Parameter,
    ProtocolError,
    Reference,
    RegionRef,
    as_tensor,
    decode_response,
    encode_request,
    parse_header_length,
)
from inferd.protocol.datatypes import Array, Buffer

T = TypeVar("T")
TIMING = "Inferd-Timing"
# The paths beyond the protocol.
OURS = "/inferd/v1/models"
MEMORY = "/inferd/v1/memory"
Body = tuple[int | None, list[bytes | memoryview]]
# Names of outputs; of a mapping, those with an array are written into it.
Outputs = Sequence[str] | Mapping[str, Array | None] | None


@dataclass(slots=True)
class Reply:
    """An answer: `headers` have lower-case names."""

    status: int
    headers: Mapping[str, str]
    body: Buffer


@dataclass(slots=True)
class Call(Generic[T]):
    """One call. `encode` makes the body for an attempt that has so many seconds left. `headers` are its own.

    `model`, and `version` where one is meant, tell a fleet who can take it.
    """

    method: str
    path: str
    read: Callable[[Reply], T]
    encode: Callable[[float], Body] | None = None
    is_repeatable: bool = True
    headers: Mapping[str, str] = field(default_factory=dict)
    model: str | None = None
    version: str | int | None = None


class Result(Mapping[str, Array]):
    """The outputs by name, in the server's order; arrays are read-only views on the answer. An output that was written
    into an array given for it is a view on that array, and comes last.

    `timing`, where it was asked for: microseconds of `queue`, `gather`, `run` and `split`, and the `rows` of the batch.
    """

    __slots__ = ("_outputs", "id", "model_name", "model_version", "request_id", "timing")

    def __init__(self, reply: Reply, room: _Room | None = None) -> None:
        length = parse_header_length(reply.headers.get(HEADER_LENGTH.lower()))
        response = decode_response(reply.body, length, places=room.places if room else {})
        self._outputs = response.outputs
        if room:
            self._outputs |= {each.name: _received(each, room.arrays[each.name]) for each in response.references}
        self.id = response.id
        self.model_name = response.model_name
        self.model_version = response.model_version
        self.request_id = reply.headers.get("x-request-id")
        timing = reply.headers.get(TIMING.lower())
        self.timing = _read_timing(timing) if timing else {}

    def __getitem__(self, name: str) -> Array:
        return self._outputs[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._outputs)

    def __len__(self) -> int:
        return len(self._outputs)

    def __repr__(self) -> str:
        outputs = ", ".join(f"{name}: {array.dtype} {list(array.shape)}" for name, array in self.items())
        return f"<Result of {self.model_name} {self.model_version}: {outputs}>"


class _Room(NamedTuple):
    """Where outputs are to be written: the arrays, and their places in shared memory."""

    arrays: Mapping[str, Array]
    places: Mapping[str, RegionRef]


def infer(
    model: str,
    inputs: Mapping[str, Any],
    *,
    outputs: Outputs,
    version: str | int | None,
    classification: int | None,
    parameters: Mapping[str, Parameter] | None,
    request_id: str | None,
    timing: bool,
    memories: Memories,
) -> Call[Result]:
    """An inference over binary tensors. The time left is told to the server, which then need not work in vain.

    Of tensors that lie in `memories` only the places are sent.
    """
    try:
        arrays = {name: as_tensor(value) for name, value in inputs.items()}
    except (ProtocolError, ValueError) as error:
        raise InvalidRequest(str(error)) from None
    places = {name: place for name, array in arrays.items() if (place := memories.place(array)) is not None}
    room = _make_room(outputs, memories) if isinstance(outputs, Mapping) else None
    wanted = None
    if room and classification:
        raise InvalidRequest("classification answers with words, which arrays in shared memory cannot hold")
    if outputs is not None:
        rooms = room.places if room else {}
        wanted = [OutputRequest(name, True, classification or 0, rooms.get(name)) for name in outputs]
    fixed: dict[str, Parameter] = dict(parameters or {})
    own_timeout = "timeout" in fixed

    def encode(left_s: float) -> Body:
        told = fixed if own_timeout else {**fixed, "timeout": max(1, int(left_s * 1e6))}
        return encode_request(arrays, wanted, told, id=request_id or "", places=places)

    headers = {TIMING: "1"} if timing else {}
    path = _model(model, version) + "/infer"
    read = partial(_read_result, room=room)
    return Call("POST", path, read, encode, headers=headers, model=model, version=version)


def _make_room(outputs: Mapping[str, Array | None], memories: Memories) -> _Room | None:
    """The outputs that arrays were given for. Raises InvalidRequest."""
    arrays = {name: array for name, array in outputs.items() if array is not None}
    places = {}
    for name, array in arrays.items():
        place = memories.place(array) if isinstance(array, np.ndarray) else None
        if place is None or not array.flags.writeable:
            raise InvalidRequest(f"output '{name}': expected None, or a writable array in memory shared by `share`")
        places[name] = place
    return _Room(arrays, places) if arrays else None


def _received(reference: Reference, array: Array) -> Array:
    """What was written into an array given for an output. Raises InvalidRequest where it is of another dtype."""
    if reference.dtype != array.dtype:
        raise InvalidRequest(f"output '{reference.name}' is {reference.dtype}, the array given for it {array.dtype}")
    if reference.elements > array.size:
        raise ProtocolError(f"output '{reference.name}' has {reference.elements} elements, room was for {array.size}")
    return array.reshape(-1)[: reference.elements].reshape(reference.shape)


def is_live() -> Call[bool]:
    """Whether the daemon runs."""
    return Call("GET", "/v2/health/live", _is_ok)


def is_ready(model: str | None, version: str | int | None) -> Call[bool]:
    """Whether the daemon, or one model, serves."""
    path = "/v2/health/ready" if model is None else _model(model, version) + "/ready"
    return Call("GET", path, _is_ok, model=model, version=version)


def server_metadata() -> Call[dict[str, Any]]:
    """Name, version and extensions."""
    return Call("GET", "/v2", _read_object)


def metadata(model: str, version: str | int | None) -> Call[dict[str, Any]]:
    """Inputs, outputs and versions of a model."""
    return Call("GET", _model(model, version), _read_object, model=model, version=version)


def config(model: str, version: str | int | None) -> Call[dict[str, Any]]:
    """The model's configuration."""
    return Call("GET", _model(model, version) + "/config", _read_object, model=model, version=version)


def stats(model: str | None, version: str | int | None) -> Call[dict[str, Any]]:
    """Counters of a model, or of all."""
    path = "/v2/models/stats" if model is None else _model(model, version) + "/stats"
    return Call("GET", path, _read_object, model=model, version=version)


def index(*, ready: bool) -> Call[list[dict[str, Any]]]:
    """All model versions known, or only the ready ones."""
    body = b'{"ready":true}' if ready else b"{}"
    return Call("POST", "/v2/repository/index", _read_list, lambda _: (None, [body]))


def descriptions(model: str | None) -> Call[list[dict[str, Any]]]:
    """What inferd knows beyond the protocol: plan, vetoes, quantisation."""
    return Call("GET", OURS if model is None else _model(model, None, OURS), _read_list, model=model)


def evidence(model: str, version: str | int | None) -> Call[dict[str, Any]]:
    """How a model is run, what was measured for it, and how far a measuring is."""
    return Call("GET", _model(model, version, OURS) + "/plan", _read_object, model=model, version=version)


def measure(model: str, *, budget_s: float | None, thorough: bool) -> Call[dict[str, Any]]:
    """Order a measuring; answered at once with what `evidence` tells at that moment."""
    body = msgspec.json.encode({"budget_s": budget_s, "thorough": thorough})
    return Call(
        "POST", _model(model, None, OURS) + "/plan", _read_object, lambda _: (None, [body]), is_repeatable=False
    )


def metrics() -> Call[str]:
    """The Prometheus page."""
    return Call("GET", "/metrics", lambda reply: bytes(_checked(reply).body).decode())


def memory() -> Call[str]:
    """The socket at which the daemon takes memory."""
    return Call("GET", MEMORY, _read_memory)


def load(model: str) -> Call[None]:
    """Load, or load again; returns when it serves."""
    return _control(model, "load")


def unload(model: str) -> Call[None]:
    """Stop serving a model."""
    return _control(model, "unload")


def _control(model: str, verb: str) -> Call[None]:
    path = f"/v2/repository/models/{quote(model, safe='')}/{verb}"
    return Call("POST", path, _read_nothing, lambda _: (None, [b"{}"]), is_repeatable=False)


def _model(model: str, version: str | int | None, root: str = "/v2/models") -> str:
    path = f"{root}/{quote(model, safe='')}"
    return path if version is None else f"{path}/versions/{quote(str(version), safe='')}"


def _checked(reply: Reply) -> Reply:
    if not 200 <= reply.status < 300:
        raise error_from(reply.status, reply.headers, reply.body)
    return reply


def _is_ok(reply: Reply) -> bool:
    if reply.status in (401, 403, 429):
        _checked(reply)
    return reply.status == 200


def _read_result(reply: Reply, room: _Room | None) -> Result:
    try:
        return Result(_checked(reply), room)
    except ProtocolError as error:
        raise BadResponse(str(error), status=reply.status) from error


def _read_timing(text: str) -> dict[str, float]:
    """`queue=3.1;rows=2` as a dict; what is no figure is left out, so that later servers may say more."""
    pairs = (part.partition("=") for part in text.split(";"))
    return {name: float(value) for name, _, value in pairs if value.replace(".", "", 1).isdecimal()}


_OBJECT = msgspec.json.Decoder(dict[str, Any])
_LIST = msgspec.json.Decoder(list[dict[str, Any]])


def _read_json(decoder: msgspec.json.Decoder[T], reply: Reply) -> T:
    try:
        return decoder.decode(_checked(reply).body)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise BadResponse(f"the answer is not the JSON expected: {error}", status=reply.status) from None


def _read_object(reply: Reply) -> dict[str, Any]:
    return _read_json(_OBJECT, reply)


def _read_list(reply: Reply) -> list[dict[str, Any]]:
    return _read_json(_LIST, reply)


def _read_memory(reply: Reply) -> str:
    try:
        path = _read_object(reply).get("socket")
    except NotFound as error:
        raise Unsupported(error.message, status=error.status, request_id=error.request_id) from None
    if not isinstance(path, str):
        raise BadResponse("the answer names no socket for memory", status=reply.status)
    return path


def _read_nothing(reply: Reply) -> None:
    _checked(reply)
