"""The daemon's log on standard error: for people, for the journal, or one JSON object a line. No secret passes.

Written where it is logged, without a queue, so nothing can grow. Every line goes through `redact` last, which covers
messages, arguments, extras and tracebacks alike; control characters cannot forge lines or reach a terminal.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sys
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Literal, TextIO

Format = Literal["auto", "human", "json"]

_TOKEN = re.compile(r"\bifd_([A-Za-z0-9]{1,16})_[A-Za-z0-9_-]+")
_HEADER = re.compile(r"""(authorization['"]?\s*[:=,]\s*(?:b?['"])?(?:(?:bearer|basic)\s+)?+)[^'"\n]+""", re.IGNORECASE)
_BEARER = re.compile(r"(\b(?:bearer|basic)\s+)[A-Za-z0-9._~+/=-]{16,}", re.IGNORECASE)
_PEM = re.compile(r"-----BEGIN ([A-Z ]*PRIVATE KEY)-----.*?(?:-----END \1-----|\Z)", re.DOTALL)
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029]")
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "request_id"}
_SYSLOG = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3, logging.CRITICAL: 2}
_MAX_CHARS = 16_384


def redact(text: str) -> str:
    """The text without tokens, credentials of Authorization headers and private keys; a token's id stays."""
    text = _PEM.sub(r"-----BEGIN \1----- ***", text)
    text = _HEADER.sub(r"\1***", text)
    text = _TOKEN.sub(r"ifd_\1_***", text)
    return _BEARER.sub(r"\1***", text)


class HumanFormatter(logging.Formatter):
    """`12:00:01 info  name: message [request id]`; in the journal a priority instead of time and level."""

    def __init__(self, *, is_journal: bool) -> None:
        super().__init__()
        self._is_journal = is_journal

    def format(self, record: logging.LogRecord) -> str:
        text = f"{_name(record)}: {_message(record)}"
        if request_id := getattr(record, "request_id", None):
            text += f" [{_escape(redact(str(request_id)))}]"
        lines = [text, *_trace(record, self).splitlines()]
        if self._is_journal:
            priority = _SYSLOG.get(record.levelno, 5)
            return "\n".join(f"<{priority}>{line}" for line in lines)
        clock = time.strftime("%H:%M:%S", time.localtime(record.created))
        return f"{clock} {record.levelname.lower():<7} " + "\n".join(lines)


class JsonFormatter(logging.Formatter):
    """One object a line: time, level, logger, message, request_id, trace, and whatever `extra` brought."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": _name(record),
            "message": _message(record),
        }
        if request_id := getattr(record, "request_id", None):
            line["request_id"] = redact(str(request_id))
        for key, value in vars(record).items():
            if key not in _STANDARD and key not in line:
                plain = isinstance(value, bool | int | float) or value is None
                line[key] = value if plain else redact(str(value))
        if trace := _trace(record, self):
            line["trace"] = trace
        return json.dumps(line)


class _Handler(logging.StreamHandler[TextIO]):
    """Standard error; a reader that is gone is no reason to fail or to complain."""

    def handleError(self, record: logging.LogRecord) -> None:
        return


def configure(
    level: str = "info",
    format: Format = "auto",  # noqa: A002  # the configuration's word
    *,
    stream: TextIO | None = None,
    env: Mapping[str, str] | None = None,
    root: logging.Logger | None = None,
) -> None:
    """Send every logger's lines to the stream in one format. Callable again with other settings."""
    stream = sys.stderr if stream is None else stream
    root = logging.getLogger() if root is None else root
    handler = _Handler(stream)
    handler.setFormatter(_formatter(format, stream, os.environ if env is None else env))
    for old in [each for each in root.handlers if isinstance(each, _Handler)]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level.upper())
    # Both tell at info what our own lines tell better.
    for chatty in ("aiohttp.access", "asyncio"):
        logging.getLogger(chatty).setLevel(max(logging.WARNING, root.level))
    logging.captureWarnings(True)


def is_journal(stream: TextIO, env: Mapping[str, str]) -> bool:
    """True where the stream is the one that systemd connected to the journal."""
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return env.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


def _formatter(format: Format, stream: TextIO, env: Mapping[str, str]) -> logging.Formatter:  # noqa: A002
    has_journal = is_journal(stream, env)
    if format == "json" or (format == "auto" and not has_journal and not stream.isatty()):
        return JsonFormatter()
    return HumanFormatter(is_journal=has_journal)


def _name(record: logging.LogRecord) -> str:
    return record.name.removeprefix("inferd_")


def _message(record: logging.LogRecord) -> str:
    """The message on one line. Secrets go first: escaping would hide a key's line ends from the pattern."""
    try:
        text = record.getMessage()
    except (TypeError, ValueError) as error:  # a wrong format string must not lose the event
        text = f"{record.msg!r} {record.args!r} ({error})"
    text = redact(text)
    return _escape(text if len(text) <= _MAX_CHARS else text[:_MAX_CHARS] + "...")


def _trace(record: logging.LogRecord, formatter: logging.Formatter) -> str:
    parts = [formatter.formatException(record.exc_info)] if record.exc_info and record.exc_info[0] else []
    if record.stack_info:
        parts.append(record.stack_info)
    text = redact("\n".join(parts))
    return "\n".join(_escape(line) for line in text.split("\n"))


def _escape(text: str) -> str:
    return _CONTROL.sub(lambda match: match[0].encode("unicode_escape").decode(), text)
