"""Records what the probe reads on this machine, as one small JSON text that a test can play back.

Run `python -m inferd_runtime.probe.record "what machine this is" > tree.json`. Only files that the probe asked for are
kept; serial numbers, UUIDs, mounts other than cgroups and the names of containers are left out.
"""

from __future__ import annotations

import errno
import json
import os
import re
import sys
from collections.abc import Iterable
from typing import Any

from inferd_runtime.probe import examine
from inferd_runtime.probe.formats import show_cpu_list
from inferd_runtime.probe.reader import Node, Reader

_IDENTIFIER = re.compile(r"[0-9a-f]{8}(-?[0-9a-f]{4}){3}-?[0-9a-f]{12,}")
_PRIVATE_LINE = re.compile(r"^(Serial|GPU UUID|Video BIOS)\b.*\n?", re.MULTILINE)

_USEFUL_LINE = re.compile(r"(MemTotal|MemFree|MemAvailable|Cached|hierarchical_memory_limit|(total_)?inactive_file)\b")


class RecordingReader(Reader):
    """Reads below a root and remembers what was there."""

    texts: dict[str, str]
    folders: set[str]
    nodes: dict[str, Node]

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self.texts, self.folders, self.nodes = {}, set(), {}

    def text(self, path: str) -> str | None:
        found = self._reader.text(path)
        if found is not None:
            self.texts[path] = found
        return found

    def names(self, path: str, pattern: str) -> tuple[str, ...]:
        found = self._reader.names(path, pattern)
        self.folders.update(f"{path}/{name}" for name in found)
        return found

    def node(self, path: str) -> Node | None:
        found = self._reader.node(path)
        if found is not None:
            self.nodes[path] = found
        return found


def record(reader: Reader, affinity: Iterable[int], note: str) -> dict[str, Any]:
    """The tree of everything the probe asked `reader` for."""
    bound = frozenset(affinity)
    recorder = RecordingReader(reader)
    examine(recorder, bound)
    texts = {_anonymous(path): _redact(path, text, recorder.nodes) for path, text in sorted(recorder.texts.items())}
    holding = [*texts, *recorder.nodes]
    bare = sorted(f for f in recorder.folders if not any(path.startswith(f"{f}/") for path in holding))
    return {
        "note": note,
        "affinity": show_cpu_list(bound),
        "files": {path: text.split("\n") if "\n" in text.rstrip("\n") else text for path, text in texts.items()},
        "folders": bare,
        "nodes": {path: _node(node) for path, node in sorted(recorder.nodes.items())},
    }


def _redact(path: str, text: str, nodes: dict[str, Node]) -> str:
    if path == "/proc/self/mountinfo":
        text = "".join(line for line in text.splitlines(keepends=True) if " - cgroup" in line)
    if path == "/etc/group":
        wanted = {str(node.gid) for node in nodes.values()}
        rows = (line.split(":") for line in text.splitlines())
        text = "".join(f"{row[0]}:x:{row[2]}:\n" for row in rows if len(row) > 2 and row[2] in wanted)
    if path == "/proc/meminfo" or path.endswith("/memory.stat"):
        text = "".join(line for line in text.splitlines(keepends=True) if _USEFUL_LINE.match(line))
    return _anonymous(_PRIVATE_LINE.sub("", text))


def _anonymous(text: str) -> str:
    return _IDENTIFIER.sub("container", text)


def _node(node: Node) -> dict[str, Any]:
    return {
        "mode": f"{node.mode:04o}",
        "uid": node.uid,
        "gid": node.gid,
        "error": errno.errorcode.get(node.error, "") if node.error else "",
    }


def main() -> None:
    """Write this machine's tree to standard output; the first argument is the note."""
    note = sys.argv[1] if len(sys.argv) > 1 else "recorded"
    json.dump(record(Reader(), os.sched_getaffinity(0), note), sys.stdout, indent=1)
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
