"""The JSON bodies beside inference: metadata, configuration, index, statistics, errors, load and unload.

Field names and types are the protocol's: versions are strings everywhere, counters are unsigned integers that must all
be present. Structs are written with `encode` and read with the decoders here, which are made once.
"""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec
from msgspec import UNSET, UnsetType

from inferd.protocol.jsondata import decode_header

T = TypeVar("T")


class ServerMetadata(msgspec.Struct, frozen=True):
    """`GET /v2`."""

    name: str
    version: str
    extensions: tuple[str, ...] = ()


class TensorMetadata(msgspec.Struct, frozen=True):
    """One input or output; -1 is a free dimension, the first one the batch where the model has one."""

    name: str
    datatype: str
    shape: tuple[int, ...]


class ModelMetadata(msgspec.Struct, frozen=True):
    """`GET /v2/models/{model}`."""

    name: str
    versions: tuple[str, ...]
    platform: str
    inputs: tuple[TensorMetadata, ...]
    outputs: tuple[TensorMetadata, ...]


class ConfigTensor(msgspec.Struct, frozen=True):
    """One input or output in a configuration: `dims` leave the batch dimension out."""

    name: str
    data_type: str
    dims: tuple[int, ...]
    label_filename: str = ""
    is_shape_tensor: bool = False


class ConfigInput(ConfigTensor, frozen=True):
    """An input has flags beside; load generators read them."""

    allow_ragged_batch: bool = False
    optional: bool = False


class InstanceGroup(msgspec.Struct, frozen=True):
    """How many runs of a model go at once, and on what."""

    name: str
    kind: str
    count: int


class DynamicBatching(msgspec.Struct, frozen=True):
    """Present only when requests are gathered into batches."""

    preferred_batch_size: tuple[int, ...] = ()
    max_queue_delay_microseconds: int = 0


class ConfigParameter(msgspec.Struct, frozen=True):
    """A free-form entry of a configuration."""

    string_value: str


class TransactionPolicy(msgspec.Struct, frozen=True):
    """Whether a request may have other than one answer."""

    decoupled: bool = False


class ModelConfig(msgspec.Struct, frozen=True, kw_only=True):
    """`GET /v2/models/{model}/config`."""

    name: str
    platform: str
    backend: str
    version_policy: dict[str, dict[str, Any]]
    max_batch_size: int
    input: tuple[ConfigInput, ...]
    output: tuple[ConfigTensor, ...]
    instance_group: tuple[InstanceGroup, ...] = ()
    default_model_filename: str = ""
    parameters: dict[str, ConfigParameter] = {}
    dynamic_batching: DynamicBatching | UnsetType = UNSET
    model_transaction_policy: TransactionPolicy = TransactionPolicy()


class IndexEntry(msgspec.Struct, frozen=True, omit_defaults=True):
    """One line of `POST /v2/repository/index`."""

    name: str
    version: str = ""
    state: str = ""
    reason: str = ""


class Duration(msgspec.Struct, frozen=True):
    """How often, and for how long in all."""

    count: int = 0
    ns: int = 0


class InferStatistics(msgspec.Struct, frozen=True):
    """Sums over requests, by stage."""

    success: Duration = Duration()
    fail: Duration = Duration()
    queue: Duration = Duration()
    compute_input: Duration = Duration()
    compute_infer: Duration = Duration()
    compute_output: Duration = Duration()
    cache_hit: Duration = Duration()
    cache_miss: Duration = Duration()


class BatchStatistics(msgspec.Struct, frozen=True):
    """Sums over engine runs of one batch size."""

    batch_size: int
    compute_input: Duration
    compute_infer: Duration
    compute_output: Duration


class ModelStatistics(msgspec.Struct, frozen=True):
    """One model version's counters; `last_inference` is in milliseconds since the epoch."""

    name: str
    version: str
    last_inference: int
    inference_count: int
    execution_count: int
    inference_stats: InferStatistics
    response_stats: dict[str, Any] = {}
    batch_stats: tuple[BatchStatistics, ...] = ()
    memory_usage: tuple[dict[str, Any], ...] = ()


class StatisticsBody(msgspec.Struct, frozen=True):
    """`GET /v2/models/stats` and `GET /v2/models/{model}/stats`."""

    model_stats: tuple[ModelStatistics, ...]


class ErrorBody(msgspec.Struct, frozen=True):
    """Every refusal: exactly one field."""

    error: str


class LiveBody(msgspec.Struct, frozen=True):
    """`GET /v2/health/live`."""

    live: bool


class ReadyBody(msgspec.Struct, frozen=True):
    """`GET /v2/health/ready`."""

    ready: bool


class MemoryBody(msgspec.Struct, frozen=True):
    """`GET /inferd/v1/memory`: the path of the Unix socket at which callers hand over memory."""

    socket: str


class IndexRequest(msgspec.Struct, frozen=True):
    """The optional body of `POST /v2/repository/index`."""

    ready: bool = False


class LoadRequest(msgspec.Struct, frozen=True):
    """The optional body of a load: `parameters` may hold `config` and `file:...` texts."""

    parameters: dict[str, bool | int | float | str] = {}


class UnloadParameters(msgspec.Struct, frozen=True):
    """What an unload may say."""

    unload_dependents: bool = False


class UnloadRequest(msgspec.Struct, frozen=True):
    """The optional body of an unload."""

    parameters: UnloadParameters = UnloadParameters()


class RegisterRegion(msgspec.Struct, frozen=True):
    """The body of a region's registration: a part of the object that `key` names."""

    key: str
    byte_size: int
    offset: int = 0


class RegionStatus(msgspec.Struct, frozen=True):
    """One registered region."""

    name: str
    key: str
    offset: int
    byte_size: int


_ENCODER = msgspec.json.Encoder()
INDEX_REQUEST = msgspec.json.Decoder(IndexRequest)
LOAD_REQUEST = msgspec.json.Decoder(LoadRequest)
UNLOAD_REQUEST = msgspec.json.Decoder(UnloadRequest)
REGISTER_REGION = msgspec.json.Decoder(RegisterRegion)


def encode(message: msgspec.Struct | list[Any]) -> bytes:
    """A message as JSON."""
    return _ENCODER.encode(message)


def decode(decoder: msgspec.json.Decoder[T], body: bytes | memoryview, what: str) -> T:
    """Read a body with one of the decoders above; `what` begins the text of the ProtocolError."""
    return decode_header(decoder, body, what)[0]


def decode_optional(decoder: msgspec.json.Decoder[T], body: bytes | memoryview, what: str) -> T:
    """As `decode`, where an empty body means `{}`."""
    return decode(decoder, body if len(body) else b"{}", what)
