"""What a shell and `man` know of inferd, written from its own commands: neither says what the program does not."""

from __future__ import annotations


def written() -> dict[str, str]:
    """The files by their paths from `/`."""
    return {}
