"""Label files: one label a line, named in `model.toml`, read bounded and only from the model's own folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from inferd_runtime.errors import InvalidModel
from inferd_runtime.repository.beside import read_beside

MAX_LABEL_BYTES = 4 << 20
MAX_LABELS = 200_000


def read_labels(folder: Path, labels: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    """The labels of each output. Raises InvalidModel."""
    return {output: _read(folder, name) for output, name in labels.items()}


def _read(folder: Path, name: str) -> tuple[str, ...]:
    try:
        lines = read_beside(folder, name, "labels file", MAX_LABEL_BYTES).decode().splitlines()
    except UnicodeDecodeError:
        raise InvalidModel(f"labels file {name!r} is not UTF-8 text") from None
    if len(lines) > MAX_LABELS:
        raise InvalidModel(f"labels file {name!r} has more than {MAX_LABELS} lines")
    return tuple(line.strip() for line in lines)
