"""Triton's `config.pbtxt` in a model folder: what of it maps to the words of `model.toml`, and what does not.

Read strictly: a field that Triton does not have, or a value of another type, is an error as it is there. Whatever has
no counterpart here is named in one warning. Tensor types are the model's own, so only their names are looked at.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from inferd_runtime.errors import InvalidModel
from inferd_runtime.repository.pbtxt import Message, Value, Word, parse_text
from inferd_runtime.repository.settings import checked, read_bounded

_MODEL = (
    "name platform backend runtime version_policy max_batch_size input output batch_input batch_output optimization "
    "dynamic_batching sequence_batching ensemble_scheduling instance_group default_model_filename cc_model_filenames "
    "metric_tags parameters model_warmup model_operations model_transaction_policy model_repository_agents "
    "response_cache model_metrics"
)
_TENSOR = (
    "name data_type format dims reshape label_filename is_shape_tensor allow_ragged_batch optional "
    "is_non_linear_format_io"
)
_GROUP = "name kind count rate_limiter gpus secondary_devices profile passive host_policy"
_BATCHING = (
    "preferred_batch_size max_queue_delay_microseconds preserve_ordering priority_levels default_priority_level "
    "default_queue_policy priority_queue_policy"
)
_TYPES = frozenset({
    "TYPE_BOOL", "TYPE_UINT8", "TYPE_UINT16", "TYPE_UINT32", "TYPE_UINT64", "TYPE_INT8", "TYPE_INT16", "TYPE_INT32",
    "TYPE_INT64", "TYPE_FP16", "TYPE_FP32", "TYPE_FP64", "TYPE_STRING", "TYPE_BF16",
})  # fmt: skip
_ENGINES = {"onnxruntime_onnx": "onnxruntime", "onnxruntime": "onnxruntime", "openvino": "openvino"}
# The bounds of the words that these become.
_MOST_STREAMS, _MOST_NEWEST = 256, 99


def read_triton(path: Path | None, inside: Sequence[Path], name: str) -> tuple[dict[str, Any], str]:
    """The settings that the file of the model `name` makes, and the warning about what it says in vain. Nothing of
    both where there is no file. Raises InvalidModel, also for a symlink that leads out of all the folders `inside`."""
    data = read_bounded(path, inside) if path is not None else None
    if data is None:
        return {}, ""
    return parse_triton(data, "config.pbtxt", name)


def parse_triton(data: bytes, place: str, name: str) -> tuple[dict[str, Any], str]:
    """As `read_triton`, of the bytes of a file called `place` in messages."""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        raise InvalidModel(f"{place} is not UTF-8 text") from None
    reading = _Reading(_Fields(parse_text(text, place), place, _MODEL), name)
    values = checked(place, reading.values())
    left = "; ".join(dict.fromkeys(reading.left_out))
    return values, f"{place} is followed, but not in this: {left}" if left else ""


class _Fields:
    """One message with the names that it may have; takes single and repeated values out, of the right types."""

    def __init__(self, message: Message, place: str, known: str) -> None:
        self._message = message
        self._place = place
        names = known.split()
        for name in message:
            if name not in names:
                near = difflib.get_close_matches(name, names, n=1, cutoff=0.0)[0]
                raise InvalidModel(f"{place}: unknown field {name[:80]!r}; the nearest known field is {near!r}")

    def __contains__(self, name: str) -> bool:
        return any(value not in ("", 0, "false") for value in self._message.get(name, ()))

    def text(self, name: str) -> str:
        value = self._single(name)
        return "" if value is None else self._checked(name, value, str, "a string")

    def number(self, name: str) -> int | None:
        value = self._single(name)
        return None if value is None else self._checked(name, value, int, "a whole number")

    def word(self, name: str) -> str:
        value = self._single(name)
        return "" if value is None else self._checked(name, value, Word, "a word")

    def numbers(self, name: str) -> tuple[int, ...]:
        return tuple(self._checked(name, value, int, "whole numbers") for value in self._message.get(name, ()))

    def messages(self, name: str, known: str) -> list[_Fields]:
        place = f"{self._place}: {name}"
        return [
            _Fields(self._checked(name, value, dict, "a message"), place, known)
            for value in self._message.get(name, ())
        ]

    def message(self, name: str, known: str) -> _Fields | None:
        """The one message of that name, None where there is none."""
        self._single(name)
        return next(iter(self.messages(name, known)), None)

    def fault(self, text: str) -> InvalidModel:
        return InvalidModel(f"{self._place}: {text}")

    def _single(self, name: str) -> Value | None:
        values = self._message.get(name, ())
        if len(values) > 1:
            raise self.fault(f"{name} is given {len(values)} times")
        return values[0] if values else None

    def _checked(self, name: str, value: Value, kind: type, what: str) -> Any:
        is_word = isinstance(value, Word)
        if not isinstance(value, kind) or (is_word and kind is not Word):
            raise self.fault(f"{name} takes {what}, got {str(value)[:40]!r}")
        return value


class _Reading:
    """What one configuration means; `left_out` gathers what means nothing here."""

    def __init__(self, config: _Fields, name: str) -> None:
        self._config = config
        self._name = name
        self.left_out: list[str] = []

    def values(self) -> dict[str, Any]:
        """The settings, in the words of `model.toml`."""
        config = self._config
        if config.text("name") not in ("", self._name):
            self.left_out.append(f"name {config.text('name')!r} (the folder's name counts)")
        found = {**self._engine(), **self._versions(), **self._tensors(), **self._batching(), **self._instances()}
        for name in ("runtime", "default_model_filename"):
            if config.text(name) not in ("", "model.onnx", "model.xml"):
                self.left_out.append(f"{name} {config.text(name)!r}")
        for name in (
            "batch_input", "batch_output", "optimization", "sequence_batching", "ensemble_scheduling",
            "cc_model_filenames", "metric_tags", "parameters", "model_warmup", "model_operations",
            "model_repository_agents", "model_metrics",
        ):  # fmt: skip
            if name in config:
                self.left_out.append(name)
        for name, field in (("model_transaction_policy", "decoupled"), ("response_cache", "enable")):
            one = config.message(name, field)
            if one is not None and field in one:
                self.left_out.append(name)
        return found

    def _engine(self) -> dict[str, str]:
        found = {}
        for field in ("platform", "backend"):
            asked = self._config.text(field)
            if asked in _ENGINES:
                found["engine"] = _ENGINES[asked]
            elif asked:
                self.left_out.append(f"{field} {asked[:80]!r}")
        return found

    def _versions(self) -> dict[str, str | tuple[int, ...]]:
        policy = self._config.message("version_policy", "latest all specific")
        if policy is None:
            return {}
        latest, specific = policy.message("latest", "num_versions"), policy.message("specific", "versions")
        every = policy.message("all", "")
        if sum(choice is not None for choice in (latest, specific, every)) > 1:
            raise policy.fault("only one of latest, all and specific can be")
        if every is not None:
            return {"versions": "all"}
        if specific is not None:
            return {"versions": specific.numbers("versions")}
        count = (latest.number("num_versions") if latest is not None else 1) or 1
        if not 1 <= count <= _MOST_NEWEST:
            raise policy.fault(f"num_versions is {count}, but 1 to {_MOST_NEWEST} can be served")
        return {"versions": f"latest:{count}" if count > 1 else "latest"}

    def _tensors(self) -> dict[str, Any]:
        """Labels, shapes, and the batch, without which dimensions would not be told apart from it."""
        labels: dict[str, str] = {}
        shapes: dict[str, tuple[int, ...]] = {}
        for field in ("input", "output"):
            for tensor in self._config.messages(field, _TENSOR):
                name = tensor.text("name")
                if not name:
                    raise tensor.fault("a tensor has no name")
                if tensor.word("data_type") not in ("", *_TYPES):
                    raise tensor.fault(f"data_type {tensor.word('data_type')[:40]!r} of {name!r} is unknown")
                if dims := tensor.numbers("dims"):
                    shapes[name] = dims
                if label := tensor.text("label_filename"):
                    labels[name] = label
                if "reshape" in tensor:
                    shapes.pop(name, None)
                for flag in ("reshape", "is_shape_tensor", "allow_ragged_batch", "optional", "is_non_linear_format_io"):
                    if flag in tensor:
                        self.left_out.append(f"{flag} of {field} {name!r}")
        most = self._config.number("max_batch_size")
        found = {"labels": labels, "shapes": shapes}
        return {**found, "max_batch": most or 0} if most is not None or shapes else found

    def _batching(self) -> dict[str, int]:
        batching = self._config.message("dynamic_batching", _BATCHING)
        if batching is None:
            return {}
        for name in _BATCHING.split()[1:]:
            if name in batching:
                self.left_out.append(f"{name} of dynamic_batching")
        preferred = batching.numbers("preferred_batch_size")
        return {"batch": max(preferred)} if preferred else {}

    def _instances(self) -> dict[str, Any]:
        """A hint: how many runs go at once, where that is said to be more than one, and whether on the CPU."""
        found: dict[str, Any] = {}
        groups = self._config.messages("instance_group", _GROUP)
        kinds = {group.word("kind") or "KIND_AUTO" for group in groups}
        if kinds == {"KIND_CPU"}:
            found["device"] = "cpu"
        elif kinds - {"KIND_AUTO", "KIND_CPU"}:
            self.left_out.append(f"instance_group {', '.join(sorted(kinds))[:80]} (the device is chosen by measuring)")
        for name in ("rate_limiter", "gpus", "secondary_devices", "profile", "passive", "host_policy"):
            if any(name in group or (name == "gpus" and group.numbers(name)) for group in groups):
                self.left_out.append(f"{name} of instance_group")
        count = sum(max(group.number("count") or 1, 1) for group in groups)
        return {**found, "streams": min(count, _MOST_STREAMS)} if count > 1 else found
