"""Who this daemon is on the LAN: an id that stays over restarts, and the name that people see."""

from __future__ import annotations

import os
import re
import secrets
from pathlib import Path

from inferd.fleet.record import printable_name
from inferd_agent.files import write_atomically

_ID = re.compile(r"[0-9a-f]{16}")


def instance_id(path: Path) -> str:
    """The id in a file, made anew where there is none or it is damaged. OSError where it cannot be kept."""
    try:
        found = path.read_bytes()[:64].decode("ascii", "replace").strip()
    except FileNotFoundError:
        found = ""
    if _ID.fullmatch(found):
        return found
    made = secrets.token_hex(8)
    write_atomically(path, f"{made}\n".encode(), mode=0o644)
    return made


def default_name(given: str, nodename: str | None = None) -> str:
    """The name to announce: as configured, else the host's own."""
    host = (os.uname().nodename if nodename is None else nodename).split(".")[0]
    return printable_name(given) or printable_name(host) or "inferd"
