"""`inferd token`: what is printed where, what is stored, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from inferd_agent.identity import TokenStore
from inferd_agent.identity.bearer import BearerTokens
from tests.agent.cli.conftest import Run


def test_create_prints_the_token_alone(inferd: Run, tmp_path: Path) -> None:
    """A script takes the token from standard output; what it may do is told on standard error."""
    done = inferd("token", "create", "camera", "--scopes", "infer, read", "--models", "ocr-*", "--state", tmp_path)
    assert done.exit_code == 0
    assert done.out.startswith("ifd_")
    assert done.out.count("\n") == 1
    assert "infer, read on ocr-*" in done.err
    assert done.out.strip() not in done.err
    [record] = TokenStore(tmp_path / "tokens.json").read()
    assert (record.scopes, record.models) == (("infer", "read"), ("ocr-*",))


def test_create_stores_every_option(inferd: Run, tmp_path: Path) -> None:
    """Rate, burst, priority and expiry arrive in the record, and in --json under stable names."""
    done = inferd(
        "token", "create", "app", "--rate", "50", "--burst", "9", "--priority", "3", "--expires", "30d",
        "--state", tmp_path, "--json",
    )  # fmt: skip
    shown = json.loads(done.out)
    assert set(shown) == {
        "token", "id", "name", "scopes", "models", "created_s", "expires_s", "rate_per_s", "burst", "priority",
        "overlaps_until_s",
    }  # fmt: skip
    [record] = TokenStore(tmp_path / "tokens.json").read()
    assert (record.rate_per_s, record.burst, record.priority) == (50.0, 9, 3)
    assert record.expires_s == pytest.approx(record.created_s + 30 * 86400, abs=60)


def test_list_never_shows_a_secret(inferd: Run, tmp_path: Path) -> None:
    """Neither the table nor the JSON holds a secret or its digest."""
    token = inferd("token", "create", "[red]app", "--state", tmp_path, "--expires", "2031-01-31").out.strip()
    digest = TokenStore(tmp_path / "tokens.json").read()[0].secrets[0].sha256
    for args in ((), ("--json",)):
        out = inferd("token", "list", "--state", tmp_path, *args).out
        assert "[red]app" in out
        assert token.split("_")[2] not in out
        assert digest not in out
    assert "2031-01-31" in inferd("token", "list", "--state", tmp_path).out


def test_an_empty_list_says_how_to_begin(inferd: Run, tmp_path: Path) -> None:
    """Without tokens there is a hint for people and an empty list for machines."""
    assert "inferd token create" in inferd("token", "list", "--state", tmp_path).out
    assert json.loads(inferd("token", "list", "--state", tmp_path, "--json").out) == []


def test_rotate_replaces_the_secret(inferd: Run, tmp_path: Path) -> None:
    """The new secret is printed, the old one is worth something only for the overlap."""
    old = inferd("token", "create", "app", "--state", tmp_path).out.strip()
    new = inferd("token", "rotate", "app", "--overlap", "1h", "--state", tmp_path).out.strip()
    assert new != old
    tokens = BearerTokens(TokenStore(tmp_path / "tokens.json"))
    assert [tokens.verify(f"Bearer {each}").name for each in (old, new)] == ["app", "app"]
    newest = json.loads(inferd("token", "rotate", "app", "--state", tmp_path, "--json").out)
    assert newest["overlaps_until_s"] is None
    assert len(TokenStore(tmp_path / "tokens.json").read()[0].secrets) == 1


def test_revoke_removes_it(inferd: Run, tmp_path: Path) -> None:
    """By name or id; a second time there is nothing to revoke, exit code 1, and what there is gets named."""
    inferd("token", "create", "kept", "--state", tmp_path)
    inferd("token", "create", "gone", "--state", tmp_path)
    assert "revoked gone" in inferd("token", "revoke", "gone", "--state", tmp_path).out
    done = inferd("token", "revoke", "gone", "--state", tmp_path)
    assert done.exit_code == 1
    assert "kept" in done.err
    token_id = TokenStore(tmp_path / "tokens.json").read()[0].id
    assert json.loads(inferd("token", "revoke", token_id, "--state", tmp_path, "--json").out)["name"] == "kept"
    assert TokenStore(tmp_path / "tokens.json").read() == ()


@pytest.mark.parametrize(
    ("args", "named"),
    [
        (("--scopes", "infre"), "infer, read, admin"),
        (("--scopes", ","), "infer, read, admin"),
        (("--expires", "1y"), "30d"),
        (("--expires", "2001-01-01"), "future"),
        (("--rate", "-1"), "--rate"),
        (("--priority", "10"), "--priority"),
        (("--burst", "-2"), "--burst"),
    ],
)
def test_wrong_options_are_wrong_usage(inferd: Run, tmp_path: Path, args: tuple[str, ...], named: str) -> None:
    """Exit code 2, the option or what it takes is named, and nothing is stored."""
    done = inferd("token", "create", "app", "--state", tmp_path, *args)
    assert done.exit_code == 2
    assert named in done.err
    assert not (tmp_path / "tokens.json").exists()


def test_two_tokens_of_one_name_are_refused(inferd: Run, tmp_path: Path) -> None:
    """The error says what to do instead."""
    inferd("token", "create", "app", "--state", tmp_path)
    done = inferd("token", "create", "app", "--state", tmp_path)
    assert done.exit_code == 1
    assert "rotate" in done.err


def test_a_damaged_file_is_no_trace(inferd: Run, tmp_path: Path) -> None:
    """A token file that cannot be read is one line and exit code 1, never an empty list."""
    (tmp_path / "tokens.json").write_text("{")
    done = inferd("token", "list", "--state", tmp_path)
    assert (done.exit_code, done.out) == (1, "")
    assert "damaged" in done.err


def test_the_environment_names_the_state_folder(inferd: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without --state the tokens are where the configuration says."""
    monkeypatch.setenv("INFERD_STATE_DIR", str(tmp_path))
    inferd("token", "create", "app")
    assert (tmp_path / "tokens.json").exists()
