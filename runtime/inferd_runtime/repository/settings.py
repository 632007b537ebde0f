"""One model's own settings, `model.toml`: strict, so that a slip of the pen is told and not silently ignored.

An unknown key names the nearest known one; a bad value says where it stands, what came and what is allowed. A model
without the file has the defaults. Nothing here touches the model itself.
"""

from __future__ import annotations

import difflib
import os
import stat
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, cast, get_type_hints

import msgspec
from msgspec import Meta, Struct

from inferd_runtime.errors import InvalidModel
from inferd_runtime.planning.plan import Wishes

MAX_SETTINGS_BYTES = 64 << 10
# A key of n parts costs the parser n * n steps and pointers; no settings have more than two.
MAX_LINE_DOTS = 64

_VersionNumber = Annotated[int, Meta(ge=1, le=999_999_999)]
_VersionList = Annotated[tuple[_VersionNumber, ...], Meta(min_length=1, max_length=100)]
_LabelFiles = dict[str, Annotated[str, Meta(min_length=1, max_length=255, pattern=r"^[^\x00]*$")]]
_Shape = Annotated[tuple[Annotated[int, Meta(ge=-1, le=(1 << 63) - 1)], ...], Meta(max_length=32)]


class EmbeddingSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """What the table `[embedding]` may say: this model of token ids embeds text."""

    tokenizer: Annotated[
        str,
        Meta(min_length=1, max_length=255, pattern=r"^[^\x00]*$", description='a file name such as "tokenizer.json"'),
    ] = "tokenizer.json"
    pooling: Annotated[Literal["mean", "cls", "none"], Meta(description='"mean", "cls" or "none"')] = "mean"
    normalise: Annotated[bool, Meta(description="true or false")] = True
    max_tokens: Annotated[int, Meta(ge=1, le=65_536, description="a whole number from 1 to 65536")] = 512
    truncate: Annotated[bool, Meta(description="true or false")] = False
    output: Annotated[str, Meta(max_length=255, description='the name of an output, or "" for the first that fits')] = (
        ""
    )


class ModelSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """What `model.toml` may say; the description of each key is what error messages and the documentation show."""

    versions: Annotated[
        str | _VersionList,
        Meta(description='"latest", "latest:2" for two, "all" or a list of version numbers such as [1, 3]'),
    ] = "latest"
    variant: Annotated[
        str | None,
        Meta(description='the name of a variant such as "int8", or "" for the plain file'),
    ] = None
    engine: Annotated[
        Literal["auto", "onnxruntime", "openvino"], Meta(description='"auto", "onnxruntime" or "openvino"')
    ] = "auto"
    device: Annotated[
        str,
        Meta(
            pattern=r"^(auto|cpu|npu|gpu|(gpu|cuda|tensorrt)[:.][0-9]{1,2})$",
            description='"auto", "cpu", "cuda:0", "tensorrt:0", "gpu" or "npu"',
        ),
    ] = "auto"
    precision: Annotated[Literal["auto", "f32", "bf16", "f16"], Meta(description='"auto", "f32", "bf16" or "f16"')] = (
        "auto"
    )
    streams: Annotated[int, Meta(ge=0, le=256, description="a whole number from 0 (chosen for you) to 256")] = 0
    threads: Annotated[int, Meta(ge=0, le=1024, description="a whole number from 0 (chosen for you) to 1024")] = 0
    max_batch: Annotated[
        int | None,
        Meta(description="a whole number from 0 (the first dimension is not a batch) to 65536"),
    ] = None
    batch: Annotated[int, Meta(ge=0, le=65_536, description="a whole number from 0 (chosen for you) to 65536")] = 0
    inline: Annotated[Literal["auto", "off", "on"], Meta(description='"auto", "off" or "on"')] = "auto"
    objective: Annotated[
        Literal["", "latency", "throughput", "balanced"],
        Meta(description='"latency", "throughput", "balanced", or "" for the daemon\'s own'),
    ] = ""
    isolation: Annotated[
        Literal["none", "process"], Meta(description='"none", or "process" for a child process of its own')
    ] = "none"
    metric: Annotated[
        Literal["auto", "top1", "cosine", "relative"], Meta(description='"auto", "top1", "cosine" or "relative"')
    ] = "auto"
    tolerance: Annotated[
        float, Meta(ge=0, le=1000, description="a number from 0 (chosen by the kind of output) to 1000")
    ] = 0.0
    labels: Annotated[
        _LabelFiles, Meta(description='a table of output names and file names: [labels] probabilities = "labels.txt"')
    ] = msgspec.field(default_factory=dict)
    embedding: Annotated[
        EmbeddingSettings | None, Meta(description='a table: [embedding] tokenizer = "tokenizer.json"')
    ] = None
    shapes: Annotated[
        dict[str, _Shape],
        Meta(
            description="a table of inputs and outputs and their dimensions without the batch, -1 for a free one: "
            "[shapes] image = [3, 224, 224]"
        ),
    ] = msgspec.field(default_factory=dict)

    @property
    def newest(self) -> int:
        """How many of the highest versions serve; 0: the policy does not count them."""
        if not isinstance(self.versions, str) or self.versions == "all":
            return 0
        return int(self.versions.partition(":")[2] or 1)

    def beside(self, folder: Path) -> tuple[Path, ...]:
        """Where the files should be that are named here; not looked at."""
        names = (*self.labels.values(), *((self.embedding.tokenizer,) if self.embedding else ()))
        return tuple(folder / name for name in names)

    def wishes(self) -> Wishes:
        """What planning is asked for."""
        return Wishes(
            variant=self.variant,
            engine=self.engine,
            device=self.device.replace(".", ":"),
            precision=self.precision,
            streams=self.streams,
            threads=self.threads,
            max_batch=self.max_batch,
            batch=self.batch,
            inline=self.inline,
            objective=self.objective,
            isolation=self.isolation,
            metric=self.metric,
            tolerance=self.tolerance,
            shapes=tuple(sorted(self.shapes.items())),
        )


_HINTS: dict[str, Any] = get_type_hints(ModelSettings, include_extras=True)
_EMBEDDING_HINTS: dict[str, Any] = get_type_hints(EmbeddingSettings, include_extras=True)
# What a union's alternatives cannot carry themselves.
_OPTIONAL: dict[str, Any] = {
    "variant": Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]{0,64}$")],
    "max_batch": Annotated[int, Meta(ge=0, le=65_536)],
}
_POLICY = Annotated[str, Meta(pattern=r"^(latest(:[1-9][0-9]?)?|all)$")]


def read_settings(path: Path, inside: Sequence[Path], given: Mapping[str, Any] | None = None) -> ModelSettings:
    """The settings in `path`, which need not be there. Raises InvalidModel.

    `given` is what another file says, in the same words (see `checked`): what `path` says wins, in tables entry by
    entry. A symlink that leads out of all the folders `inside` is refused, and so is what is no regular file.
    """
    data = read_bounded(path, inside)
    return parse_settings(data or b"", path.name, given)


def read_bounded(path: Path, inside: Sequence[Path]) -> bytes | None:
    """The bytes of a small configuration file, None where there is none. Raises InvalidModel."""
    try:
        if path.is_symlink() and not any(path.resolve().is_relative_to(root.resolve()) for root in inside):
            raise InvalidModel(f"{path.name} is a symlink that leads out of the repository")
        # Opening a pipe waits for its other end otherwise.
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise InvalidModel(f"{path.name} is not a regular file")
            data = file.read(MAX_SETTINGS_BYTES + 1)
    except FileNotFoundError:
        return None
    except (OSError, RuntimeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it leads in a circle"
        raise InvalidModel(f"{path.name} cannot be read: {reason}") from None
    if len(data) > MAX_SETTINGS_BYTES:
        raise InvalidModel(f"{path.name} is larger than {MAX_SETTINGS_BYTES} bytes")
    return data


def parse_settings(data: bytes, place: str, given: Mapping[str, Any] | None = None) -> ModelSettings:
    """Settings from the bytes of a file called `place` in messages. Raises InvalidModel."""
    for number, line in enumerate(data.split(b"\n"), 1):
        if line.count(b".") > MAX_LINE_DOTS and not line.lstrip().startswith(b"#"):
            raise InvalidModel(f"{place}: line {number} has more than {MAX_LINE_DOTS} dots")
    try:
        table = tomllib.loads(data.decode())
    except (ValueError, RecursionError) as error:
        raise InvalidModel(f"{place} is not TOML: {error}") from None
    values = dict(given or {})
    for key, value in checked(place, table).items():
        values[key] = {**values.get(key, {}), **value} if isinstance(value, dict) else value
    return ModelSettings(**values)


def checked(place: str, table: Mapping[str, object]) -> dict[str, Any]:
    """The values of a table as `ModelSettings` takes them. Raises InvalidModel, which names `place`, key and value."""
    return _values(place, table, _HINTS)


def _values(place: str, table: Mapping[str, object], hints: dict[str, Any]) -> dict[str, Any]:
    return {key: _value(place, key, value, hints) for key, value in table.items()}


def _value(place: str, key: str, value: object, hints: dict[str, Any]) -> object:
    if key not in hints:
        near = difflib.get_close_matches(key, hints, n=1, cutoff=0.0)[0]
        raise InvalidModel(f"{place}: unknown key {key!r}; the nearest known key is {near!r}")
    if key == "embedding" and isinstance(value, dict):
        return EmbeddingSettings(**_values(f"{place}: [embedding]", value, _EMBEDDING_HINTS))
    hint = _POLICY if key == "versions" and isinstance(value, str) else _OPTIONAL.get(key, hints[key])
    try:
        return cast(object, msgspec.convert(value, hint))
    except msgspec.ValidationError:
        raise InvalidModel(f"{place}: {key} = {_shown(value)}, but it must be {_allowed(hints[key])}") from None


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _allowed(hint: Any) -> str:
    return next(str(meta.description) for meta in hint.__metadata__ if isinstance(meta, Meta) and meta.description)
