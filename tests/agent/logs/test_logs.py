"""What the log shows, and what it never does."""

from __future__ import annotations

import io
import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferd_agent.identity.tokens import new_token
from inferd_agent.logs import Format, configure, is_journal, redact

KEY = "-----BEGIN PRIVATE KEY-----\nMIGHAgEAMBMGByqGSM49\n-----END PRIVATE KEY-----"


@pytest.fixture
def root() -> Iterator[logging.Logger]:
    """A root of our own, so that the test runner's stays as it is."""
    chatty = [logging.getLogger(name) for name in ("aiohttp.access", "asyncio")]
    levels = [each.level for each in chatty]
    yield logging.Logger("inferd_agent.rest")
    for each, level in zip(chatty, levels, strict=True):
        each.setLevel(level)
    logging.captureWarnings(False)


def _lines(root: logging.Logger, format: Format, level: str = "info") -> io.StringIO:  # noqa: A002
    stream = io.StringIO()
    configure(level, format, stream=stream, env={}, root=root)
    return stream


def test_json_lines_hold_what_machines_want(root: logging.Logger) -> None:
    """One object a line with time, level, logger, message, request id, extras and trace."""
    stream = _lines(root, "json")
    try:
        raise ValueError("boom\nsecond")
    except ValueError:
        root.exception("failed %s", "x\ny", extra={"request_id": "r-1", "model": "ocr", "took_us": 3, "shape": [1]})
    (text,) = stream.getvalue().splitlines()
    line = json.loads(text)
    assert line.pop("time").endswith("+00:00")
    assert line.pop("trace").startswith("Traceback")
    assert line == {
        "level": "error", "logger": "agent.rest", "message": r"failed x\ny", "request_id": "r-1", "model": "ocr",
        "took_us": 3, "shape": "[1]",
    }  # fmt: skip


def test_human_lines_are_for_people(root: logging.Logger) -> None:
    """Clock, level, name, message and request id; the level is obeyed."""
    stream = _lines(root, "human", "warning")
    root.info("not shown")
    root.warning("slow", extra={"request_id": "r-1"})
    (line,) = stream.getvalue().splitlines()
    assert line[8:] == " warning agent.rest: slow [r-1]"


def test_nobody_forges_a_line(root: logging.Logger) -> None:
    """Line ends and terminal escapes of a caller stay visible text, in both formats."""
    for format in ("human", "json"):  # noqa: A001
        stream = _lines(root, format)  # type: ignore[arg-type]
        root.info("model %s", "a\n12:00:00 error agent: hacked\x1b[2J\u2028", extra={"request_id": "r\n1"})
        assert len(stream.getvalue().splitlines()) == 1
        assert "\x1b" not in stream.getvalue()


@pytest.mark.parametrize("format", ["human", "json"])
def test_no_secret_passes(root: logging.Logger, format: Format) -> None:  # noqa: A002
    """Tokens, credentials and keys vanish from messages, arguments, extras and tracebacks."""
    token = new_token("0123abcd")
    secret = token.rsplit("_", 1)[1]
    stream = _lines(root, format)
    root.info("got %s", token)
    root.info("headers %s", {"Authorization": f"Bearer {token}", "X": "kept"})
    root.info("raw %r", [(b"authorization", b"Basic c2VjcmV0OnNlY3JldA==")])
    root.info("Authorization: Bearer opaque-secret-value")
    root.info("curl -H 'authorization: c2VjcmV0OnNlY3JldA=='")
    root.info("key %s", KEY)
    root.info("cut key %s", KEY[:50])
    root.info("told", extra={"header": f"Bearer {token}", "request_id": token})
    try:
        raise RuntimeError(f"refused {token} {KEY}")
    except RuntimeError:
        root.exception("failed")
    text = stream.getvalue()
    for each in (secret, "c2VjcmV0", "opaque-secret-value", "MIGHAgEA"):
        assert each not in text
    assert "ifd_0123abcd_***" in text
    assert "kept" in text


@given(st.text(max_size=30), st.text(max_size=30))
def test_a_token_is_found_in_any_surroundings(before: str, after: str) -> None:
    """Whatever stands around it, the secret is not in the result; other text without secrets stays."""
    token = "ifd_0123abcd_" + "5" * 64
    assert "5" * 64 not in redact(f"{before} {token}{after}")
    plain = f"{before} model 'ocr' took 3 ms"
    if not any(word in plain.lower() for word in ("ifd_", "authorization", "bearer", "basic", "private key")):
        assert redact(plain) == plain


def test_the_journal_gets_priorities_and_no_clock(root: logging.Logger, tmp_path: Path) -> None:
    """On the journal's own stream every line starts with its syslog priority, those of a trace too."""
    with (tmp_path / "stream").open("w+") as stream:
        status = os.fstat(stream.fileno())
        env = {"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"}
        assert is_journal(stream, env)
        assert not is_journal(stream, {})
        assert not is_journal(io.StringIO(), env)
        configure("info", "auto", stream=stream, env=env, root=root)
        root.info("up")
        try:
            raise ValueError("x")
        except ValueError:
            root.exception("down")
        stream.seek(0)
        lines = stream.read().splitlines()
    assert lines[:3] == ["<6>agent.rest: up", "<3>agent.rest: down", "<3>Traceback (most recent call last):"]
    assert all(line.startswith("<3>") for line in lines[1:])


def test_auto_means_json_where_nobody_looks(root: logging.Logger) -> None:
    """Neither terminal nor journal: JSON."""
    stream = _lines(root, "auto")
    root.info("up")
    assert json.loads(stream.getvalue())["message"] == "up"


def test_configure_replaces_itself(root: logging.Logger) -> None:
    """A reload changes level and format without doubling lines, and leaves foreign handlers alone."""
    foreign = logging.NullHandler()
    root.addHandler(foreign)
    first, second = _lines(root, "human"), _lines(root, "json", "debug")
    root.debug("once")
    assert first.getvalue() == ""
    assert len(second.getvalue().splitlines()) == 1
    assert foreign in root.handlers


def test_a_wrong_format_or_a_closed_stream_harms_nobody(root: logging.Logger) -> None:
    """The event is told as well as it can be, and logging never raises."""
    stream = _lines(root, "human")
    root.info("%d models", "many")
    assert "'%d models' ('many',)" in stream.getvalue()
    stream.close()
    root.info("nobody hears")


def test_a_huge_message_is_cut(root: logging.Logger) -> None:
    """A line is bounded."""
    stream = _lines(root, "json")
    root.info("x" * 1_000_000)
    assert len(stream.getvalue()) < 20_000
