"""Tokens: their form, their times and their store."""

from __future__ import annotations

import contextlib
import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferd_agent.errors import ConfigError
from inferd_agent.identity import TokenStore, parse_duration_s, parse_expiry_s
from inferd_agent.identity.tokens import digest_of, new_token, token_id
from tests.limits import files_cannot_grow

NOW_S = 1_800_000_000.0


@pytest.fixture
def store(tmp_path: Path) -> TokenStore:
    return TokenStore(tmp_path / "state" / "tokens.json", clock=lambda: NOW_S)


@pytest.mark.parametrize(
    ("text", "expected_s"),
    [("90s", 90.0), ("90m", 5400.0), ("12h", 43200.0), (" 30 d ", 2592000.0), ("2w", 1209600.0)],
)
def test_durations_are_read(text: str, expected_s: float) -> None:
    """A number and one of s, m, h, d, w."""
    assert parse_duration_s(text) == expected_s


@pytest.mark.parametrize(
    ("text", "expected_s"),
    [
        ("1d", NOW_S + 86400),
        ("2030-01-01", 1893542399.999999),
        ("2030-01-01T00:00:00", 1893456000.0),
        ("2030-01-01T02:00:00+02:00", 1893456000.0),
    ],
)
def test_expiries_are_read(text: str, expected_s: float) -> None:
    """Durations count from now, a date to its end, times are UTC unless they say otherwise."""
    assert parse_expiry_s(text, NOW_S) == pytest.approx(expected_s)


@pytest.mark.parametrize("text", ["", "d", "-1d", "1.5d", "0s", "soon", "2001-01-01", "99999999w", "٣d", "9999-12-31"])
def test_wrong_expiries_are_explained(text: str) -> None:
    """What is no time, or lies in the past, is refused with the form to use."""
    with pytest.raises(ConfigError, match=r"write a duration|future"):
        parse_expiry_s(text, NOW_S)


@given(st.text())
def test_no_text_breaks_the_parsers(text: str) -> None:
    """Any text is a time in the future or a ConfigError, and a token or None."""
    with contextlib.suppress(ConfigError):
        assert parse_expiry_s(text, NOW_S) > NOW_S
    token_id(text)


def test_a_token_is_shown_once_and_stored_as_a_digest(store: TokenStore) -> None:
    """256 random bits, of which the file has the SHA-256 only; file and folder are the owner's alone."""
    token, record = store.create("cam", ["infer", "infer"], models=["a*"], expires_s=NOW_S + 5, rate_per_s=2.4)
    assert token_id(token) == record.id
    assert len(token.rsplit("_", 1)[1]) == 64
    text = store.path.read_text()
    assert token.rsplit("_", 1)[1] not in text
    assert digest_of(token) in text
    assert store.read() == (record,)
    assert (record.scopes, record.models, record.burst, record.expires_s) == (("infer",), ("a*",), 2, NOW_S + 5)
    assert stat.S_IMODE(store.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(store.path.parent.stat().st_mode) == 0o700


def test_rotation_overlaps_and_revocation_ends(store: TokenStore) -> None:
    """The old secret stays until the overlap ends, never longer by another rotation; revoked is gone."""
    _, first = store.create("cam", ["infer"])
    _, second = store.rotate("cam", overlap_s=100)
    assert [each.until_s for each in second.secrets] == [None, NOW_S + 100]
    assert second.secrets[1].sha256 == first.secrets[0].sha256
    _, third = store.rotate(first.id, overlap_s=500)
    assert [each.until_s for each in third.secrets] == [None, NOW_S + 500, NOW_S + 100]
    _, fourth = store.rotate("cam")
    assert len(fourth.secrets) == 1
    assert store.revoke("cam").id == first.id
    assert store.read() == ()


def test_an_expired_token_needs_a_new_expiry(store: TokenStore) -> None:
    """Rotating what has expired asks for an expiry instead of making a dead token."""
    store.create("cam", ["infer"], expires_s=NOW_S - 1)
    with pytest.raises(ConfigError, match="give a new expiry"):
        store.rotate("cam")
    assert store.rotate("cam", expires_s=NOW_S + 9)[1].expires_s == NOW_S + 9


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"name": ""}, "1 to 64 printable"),
        ({"name": "a\nb"}, "1 to 64 printable"),
        ({"scopes": []}, "not none"),
        ({"scopes": ["infer", "root"]}, "not root"),
        ({"models": [""]}, "cannot be empty"),
        ({"rate_per_s": -1.0}, "rate is"),
        ({"rate_per_s": float("nan")}, "rate is"),
        ({"priority": 10}, "0 to 9"),
        ({"name": "taken"}, "already"),
    ],
)
def test_wrong_tokens_are_not_made(store: TokenStore, arguments: dict[str, object], says: str) -> None:
    """Each argument is checked, and nothing is stored."""
    store.create("taken", ["read"])
    with pytest.raises(ConfigError, match=says):
        store.create(**{"name": "cam", "scopes": ["infer"], **arguments})  # type: ignore[arg-type]
    assert len(store.read()) == 1


def test_an_unknown_token_is_named_with_those_that_exist(store: TokenStore) -> None:
    """Revoking a typo tells the names there are."""
    store.create("cam", ["infer"])
    with pytest.raises(ConfigError, match="no token 'cma'; there are: cam"):
        store.revoke("cma")


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", '{"format": 2, "tokens": []}', '{"format": 1}', '{"format": 1, "tokens": [{}]}', "\xff"],
)
def test_a_damaged_file_is_an_error_and_stays(store: TokenStore, text: str) -> None:
    """Never an empty list, and never overwritten."""
    store.path.parent.mkdir()
    store.path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ConfigError, match="damaged"):
        store.read()
    with pytest.raises(ConfigError, match="damaged"):
        store.create("cam", ["infer"])
    assert store.path.read_bytes() == text.encode("latin-1")


def test_processes_that_create_at_once_lose_nothing(store: TokenStore) -> None:
    """Four processes make five tokens each: all twenty are there."""
    code = (
        "import sys\nfrom pathlib import Path\nfrom inferd_agent.identity import TokenStore\n"
        "store = TokenStore(Path(sys.argv[1]))\n"
        "for at in range(5): store.create(f'{sys.argv[2]}-{at}', ['infer'])\n"
    )
    children = [subprocess.Popen([sys.executable, "-c", code, str(store.path), str(at)]) for at in range(4)]
    assert [each.wait(timeout=50) for each in children] == [0, 0, 0, 0]
    assert sorted(record.name for record in store.read()) == sorted(f"{a}-{b}" for a in range(4) for b in range(5))


def test_a_full_disk_keeps_the_old_tokens(store: TokenStore) -> None:
    """A write that fails half-way changes nothing, leaves nothing behind and says so."""
    store.create("cam", ["infer"])
    before = store.path.read_bytes()
    with files_cannot_grow(100), pytest.raises(ConfigError, match="File too large; nothing was changed"):
        store.create("other", ["infer"])
    assert store.path.read_bytes() == before
    assert sorted(each.name for each in store.path.parent.iterdir()) == ["tokens.json", "tokens.json.lock"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can write for another user")
def test_root_writes_for_the_service_user(store: TokenStore) -> None:
    """What an administrator makes in the daemon's state folder belongs to the daemon's user."""
    store.path.parent.mkdir()
    os.chown(store.path.parent, 1234, 1235)
    store.create("cam", ["infer"])
    status = store.path.stat()
    assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (1234, 1235, 0o600)


def test_the_file_is_plain_json(store: TokenStore) -> None:
    """People can read it, and nothing in it is a secret."""
    store.create("cam", ["infer"])
    tree = json.loads(store.path.read_text())
    assert tree["format"] == 1
    assert tree["tokens"][0]["name"] == "cam"
    assert token_id(new_token("0123abcd")) == "0123abcd"


@pytest.mark.timeout(60)
def test_a_pipe_in_place_of_the_file_keeps_nobody_waiting(store: TokenStore) -> None:
    """What is no regular file is refused at once, so that the file is followed again when it is back."""
    store.path.parent.mkdir()
    os.mkfifo(store.path)
    with pytest.raises(ConfigError, match="not a regular file"):
        store.read()
