"""Why a library failed, in one readable line.

Engine libraries answer with C++ traces of many lines, source paths and ANSI codes. `reason` keeps what a person can
use, hides where the model lies on this machine, and bounds the length, because the line travels into plans and answers.
"""

from __future__ import annotations

import re
from pathlib import Path

MAX_CHARS = 400

_NOISE = (
    re.compile(r"\x1b\[[0-9;]*m"),
    re.compile(r"^\[ONNXRuntimeError\] : \d+ : \w+ : "),
    # "/onnxruntime_src/.../reshape_helper.h:91 onnxruntime::ReshapeHelper::ReshapeHelper(...) "
    re.compile(
        r"/\S*onnxruntime\S*\.(?:cc|h|cpp|hpp):\d+ (?:[\w:<>*&~, ]+\([^()]*(?:\([^()]*\)[^()]*)*\)(?: const)? ?)?"
    ),
    re.compile(r"Exception from src/\S+:\d+:"),
    re.compile(r"Check '.*?' failed at src/\S+:\d+:"),
    re.compile(r"FrontEnd API failed with \w+:"),
    re.compile(r"Model wasn't fully converted\.(?: Failed operations detailed log:)?"),
    re.compile(r"^\s*(?:Summary:|Loading input model)\s*$", re.MULTILINE),
)
_GAP = re.compile(r"\s+")


def reason(error: BaseException, path: Path | None = None) -> str:
    """One line that says what `error` says; `path`, the model file, appears by its name only."""
    text = str(error)[:20_000]
    if path is not None:
        text = text.replace(str(path), path.name).replace(f"{path.parent}", ".")
    for pattern in _NOISE:
        text = pattern.sub("", text)
    lines = (_GAP.sub(" ", line).strip().removeprefix("-- ") for line in text.splitlines())
    kept = "; ".join(dict.fromkeys(line for line in lines if line)) or type(error).__name__
    return kept if len(kept) <= MAX_CHARS else kept[: MAX_CHARS - 1].rstrip() + "…"
