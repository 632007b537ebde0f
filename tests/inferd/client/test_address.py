"""URLs, and what is found without any."""

from __future__ import annotations

from pathlib import Path

import pytest

from inferd.address import SYSTEM_SOCKET, find_url, parse_url
from inferd.errors import BadAddress


def test_urls_are_read() -> None:
    """All four forms, with and without TLS."""
    unix = parse_url("unix:/run/a b.sock")
    assert (unix.path, unix.server_name, unix.authority) == ("/run/a b.sock", "localhost", "localhost")
    assert parse_url("unix:///run/x").path == "/run/x"
    assert parse_url("unix:/run/x?tls=off").server_name is None
    https = parse_url("https://box.local:8470/")
    assert (https.host, https.port, https.server_name, https.authority) == (
        "box.local",
        8470,
        "box.local",
        "box.local:8470",
    )
    assert parse_url("https://[::1]:1").authority == "[::1]:1"
    assert parse_url("http://localhost").port == 80
    assert parse_url("http://127.0.0.9:7").server_name is None


@pytest.mark.parametrize(
    "url",
    [
        "", "box:8470", "tcp:127.0.0.1:1", "unix:rel/path", "unix:", "unix:/x?tls=maybe", "unix:/x?mode=1",
        "https://", "https://h:99999", "https://h/base", "https://h?x=1", "https://u:p@h", "http://box:80", "http://10.0.0.1",
    ],
)  # fmt: skip
def test_bad_urls_are_refused(url: str) -> None:
    """The message shows the URL; plain http beyond loopback is among them."""
    with pytest.raises(BadAddress):
        parse_url(url)


def test_the_local_daemon_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """INFERD_URL, then a socket that is there, then where one would be."""
    runtime, state = tmp_path / "run", tmp_path / "state"
    env = {"XDG_RUNTIME_DIR": str(runtime), "XDG_STATE_HOME": str(state), "INFERD_URL": "https://h"}
    assert find_url(env) == "https://h"
    del env["INFERD_URL"]
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    if not Path(SYSTEM_SOCKET).exists():
        assert find_url(env) == f"unix:{runtime}/inferd/inferd.sock"
        monkeypatch.setattr("os.geteuid", lambda: 0)
        assert find_url(env) == f"unix:{SYSTEM_SOCKET}"
    (state / "inferd").mkdir(parents=True)
    (state / "inferd" / "inferd.sock").touch()
    assert find_url(env) == f"unix:{state}/inferd/inferd.sock"
