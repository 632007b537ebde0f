"""Label files: one label a line, named in `model.toml`, read bounded and only from the model's own folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from inferd_runtime.errors import InvalidModel

MAX_LABEL_BYTES = 4 << 20
MAX_LABELS = 200_000


def label_paths(folder: Path, labels: Mapping[str, str]) -> tuple[Path, ...]:
    """Where the label files should be; not looked at."""
    return tuple(folder / name for name in labels.values())


def read_labels(folder: Path, labels: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    """The labels of each output. Raises InvalidModel."""
    return {output: _read(folder, name) for output, name in labels.items()}


def _read(folder: Path, name: str) -> tuple[str, ...]:
    try:
        path = (folder / name).resolve(strict=True)
        if not path.is_relative_to(folder.resolve()):
            raise InvalidModel(f"labels file {name!r} lies outside the model's folder")
        if not path.is_file():
            raise InvalidModel(f"labels file {name!r} is not a regular file")
        with path.open("rb") as file:
            data = file.read(MAX_LABEL_BYTES + 1)
        if len(data) > MAX_LABEL_BYTES:
            raise InvalidModel(f"labels file {name!r} is larger than {MAX_LABEL_BYTES} bytes")
        lines = data.decode().splitlines()
    except OSError as error:
        raise InvalidModel(f"labels file {name!r} cannot be read: {error.strerror}") from None
    except ValueError:
        raise InvalidModel(f"labels file {name!r} is not UTF-8 text") from None
    if len(lines) > MAX_LABELS:
        raise InvalidModel(f"labels file {name!r} has more than {MAX_LABELS} lines")
    return tuple(line.strip() for line in lines)
