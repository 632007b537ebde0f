"""What a loaded model takes and gives, and how it stands: plain data that every room above may hold."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Literal

from inferd_runtime.tensor import TensorSpec


class State(enum.Enum):
    """States of a model version; the repository owns the legal moves."""

    UNLOADED = "UNLOADED"
    LOADING = "LOADING"
    READY = "READY"
    DRAINING = "DRAINING"
    FAILED = "FAILED"


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """Inputs and outputs of a model. `max_batch` is the most rows a request may have; 0 means no batch dimension."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    max_batch: int


@dataclass(frozen=True, slots=True)
class Veto:
    """A candidate that was not chosen, and why."""

    candidate: str
    reason: str


@dataclass(frozen=True, slots=True)
class Shape:
    """Another way to run the same compiled file: for an empty queue, say, where one request may have all cores.

    `rows` > 0: compiled for exactly so many rows. `run_us` is the median of one-row runs.
    """

    streams: int
    threads: int
    batch: int
    rows: int
    run_us: float


@dataclass(frozen=True, slots=True)
class Plan:
    """How a version is run on this machine, and why.

    A batch takes `threads` permits of the core budget; `streams` batches may run at once; a batch gathers up to
    `batch` rows (0: the model has no batch dimension, every job runs alone). `inline` batches run on the submitting
    thread. `run_us` is the median of one-row warm-up runs. `rows` > 0: the session is compiled for exactly so many.
    `idle` is how a lone request runs, where that was measured to be faster. `curve` has (rows, median microseconds of
    one run), ascending; empty where it was not measured.
    """

    engine: str
    device: str
    variant: str
    precision: str
    streams: int
    threads: int
    batch: int
    inline: bool
    run_us: float
    reason: str
    vetoes: tuple[Veto, ...] = ()
    rows: int = 0
    idle: Shape | None = None
    curve: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Quantisation:
    """What was found when a model file was examined.

    `kind` is "int8", "mixed" or "float", or "unknown" for a format that is not looked into (.tflite); `layout` is
    "qdq", "qoperator", "dynamic", "fakequantize" or ""; `granularity` is "per-tensor", "per-channel", "mixed" or "".
    `where` counts quantised weights by operator type.
    """

    kind: str
    layout: str = ""
    granularity: str = ""
    where: dict[str, int] = field(default_factory=dict)
    int8_weight_bytes: int = 0
    float_weight_bytes: int = 0
    opset: int = 0


@dataclass(frozen=True, slots=True)
class Embedding:
    """How a version embeds text: `tokenizer` is the content of its file, `output` the tensor that is pooled.

    Pooling "mean" and "cls" take one vector a token, "none" takes one a text. `truncates`: of a text longer than
    `max_tokens` the beginning counts; else it is refused.
    """

    tokenizer: bytes = field(repr=False)
    output: str
    pooling: Literal["mean", "cls", "none"]
    normalise: bool
    max_tokens: int
    truncates: bool


@dataclass(frozen=True, slots=True)
class ModelDescription:
    """One model version as the outside may see it: a snapshot, never live."""

    name: str
    version: int
    state: State
    reason: str = ""
    format: str = ""
    file_bytes: int = 0
    digest: str = ""
    variants: tuple[str, ...] = ()
    spec: ModelSpec | None = None
    plan: Plan | None = None
    quantisation: Quantisation | None = None
    labels: dict[str, tuple[str, ...]] = field(default_factory=dict)
    label_files: dict[str, str] = field(default_factory=dict)
    embedding: Embedding | None = None
