"""Files that `model.toml` names: read bounded, and only from the model's own folder."""

from __future__ import annotations

from pathlib import Path

from inferd_runtime.errors import InvalidModel


def read_beside(folder: Path, name: str, what: str, max_bytes: int) -> bytes:
    """The content of the file `name` in the model's folder. Raises InvalidModel; `what` begins its text."""
    try:
        path = (folder / name).resolve(strict=True)
        if not path.is_relative_to(folder.resolve()):
            raise InvalidModel(f"{what} {name!r} lies outside the model's folder")
        if not path.is_file():
            raise InvalidModel(f"{what} {name!r} is not a regular file")
        with path.open("rb") as file:
            data = file.read(max_bytes + 1)
    except OSError as error:
        raise InvalidModel(f"{what} {name!r} cannot be read: {error.strerror}") from None
    except ValueError:
        raise InvalidModel(f"{what} {name!r} is not the name of a file") from None
    if len(data) > max_bytes:
        raise InvalidModel(f"{what} {name!r} is larger than {max_bytes} bytes")
    return data
