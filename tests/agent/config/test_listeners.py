"""Listener URLs."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferd_agent.config import Listener, parse_listener
from inferd_agent.errors import ConfigError


@pytest.mark.parametrize(
    ("url", "listener"),
    [
        ("unix:/run/inferd.sock", Listener("unix", path="/run/inferd.sock")),
        ("unix:/run/a?tls=off", Listener("unix", path="/run/a", tls=False)),
        ("unix:/run/a?tls=on", Listener("unix", path="/run/a")),
        ("tcp:0.0.0.0:8470", Listener("tcp", host="0.0.0.0", port=8470)),
        ("tcp:[::1]:8470", Listener("tcp", host="::1", port=8470)),
        ("tcp:[0:0::1]:0", Listener("tcp", host="::1", port=0)),
        ("tcp:edge-7.lan:1", Listener("tcp", host="edge-7.lan", port=1)),
        ("tcp:127.0.0.1:80?tls=off&insecure=on", Listener("tcp", "", "127.0.0.1", 80, False, True)),
        ("tcp:[::1]:80?insecure=on&tls=off", Listener("tcp", "", "::1", 80, False, True)),
        ("grpc+tcp:0.0.0.0:8471", Listener("tcp", host="0.0.0.0", port=8471, grpc=True)),
        ("grpc+unix:/run/g?tls=off", Listener("unix", path="/run/g", tls=False, grpc=True)),
        ("memory+unix:/run/m", Listener("unix", path="/run/m", tls=False, memory=True)),
        ("tcp:localhost:80?tls=off&insecure=on", Listener("tcp", "", "localhost", 80, False, True)),
    ],
)
def test_a_right_url_is_taken(url: str, listener: Listener) -> None:
    """Every form of the contract parses to what it says."""
    assert parse_listener(url) == listener


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("", "write unix:"),
        ("/run/inferd.sock", "write unix:"),
        ("https://0.0.0.0:8470", "write tcp:0.0.0.0:8470"),
        ("unix:inferd.sock", "must be absolute"),
        ("unix:/run/", "must name a file"),
        ("unix:/a\0b", "must name a file"),
        ("unix:/" + "x" * 107, "has 108 bytes; the kernel takes 107"),
        ("unix:/a?insecure=on", "insecure is for tcp"),
        ("memory+unix", "must be absolute"),
        ("memory+unix:run/m", "must be absolute"),
        ("memory+unix:/run/m?tls=off", "no options"),
        ("memory+tcp:127.0.0.1:80", "write unix:"),
        ("unix:/a?tls=maybe", "tls is on or off"),
        ("unix:/a?tsl=off", "did you mean 'tls'"),
        ("unix:/a?tls=off&tls=off", "given twice"),
        ("tcp:8470", "write unix:"),
        ("tcp::8470", "write unix:"),
        ("tcp:*:8470", "for all addresses write tcp:0.0.0.0:8470"),
        ("tcp:::1:8470", "in brackets, e.g. tcp:[::1]:8470"),
        ("tcp:[::g]:8470", "not an IPv6 address"),
        ("tcp:127.0.0.1:99999", "0 to 65535"),
        ("tcp:127.0.0.1:١", "0 to 65535"),
        ("tcp:127.0.0.1:80?tls=off", "explicit insecure=on"),
        ("tcp:127.0.0.1:80?insecure=on", "means nothing without tls=off"),
        ("tcp:0.0.0.0:80?tls=off&insecure=on", "not a loopback address"),
        ("tcp:[::]:80?tls=off&insecure=on", "not a loopback address"),
        ("tcp:127.0.0.1.evil.example:80?tls=off&insecure=on", "not a loopback address"),
    ],
)
def test_a_wrong_url_is_explained(url: str, says: str) -> None:
    """The error names the URL and what to write instead."""
    with pytest.raises(ConfigError) as caught:
        parse_listener(url)
    assert says in str(caught.value)
    assert repr(url) in str(caught.value)


_PIECES = st.sampled_from(
    [
        "unix",
        "memory+unix",
        "tcp",
        ":",
        "/",
        "?",
        "&",
        "tls",
        "insecure",
        "=",
        "on",
        "off",
        "[",
        "]",
        "::1",
        "127.0.0.1",
        "8470",
        "a",
        "\0",
    ]
)


@given(st.one_of(st.text(), st.lists(_PIECES, max_size=12).map("".join)))
def test_no_text_breaks_the_parser_or_the_rule(text: str) -> None:
    """Any text is refused with ConfigError, or is a listener whose URL parses to itself and that is never bare TCP."""
    try:
        listener = parse_listener(text)
    except ConfigError:
        return
    assert parse_listener(listener.url) == listener
    assert listener.tls or listener.kind == "unix" or listener.host in ("::1", "127.0.0.1", "localhost")
