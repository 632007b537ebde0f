"""TCP and inherited sockets."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from inferd_agent.config import Listener, parse_listener
from inferd_agent.errors import ConfigError
from inferd_agent.sockets import bind, peer_credentials


def test_port_zero_is_chosen_and_told() -> None:
    """The URL of a bound listener has the real port, for every address of a name."""
    (bound,) = bind([parse_listener("tcp:localhost:0?tls=off&insecure=on")], mode=0o600)
    ports = {each.getsockname()[1] for each in bound.sockets}
    assert len(ports) == 1
    assert bound.url == f"tcp:localhost:{ports.pop()}?tls=off&insecure=on"
    with socket.create_connection(bound.sockets[0].getsockname()[:2]) as client:
        assert peer_credentials(client) is None
    bound.close()


def test_a_port_in_use_is_explained() -> None:
    """The error says which port, and leaves the sockets before it closed."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(ConfigError, match=f"port {port} is in use"):
            bind([parse_listener("tcp:127.0.0.1:0"), parse_listener(f"tcp:127.0.0.1:{port}")], mode=0o600)


def test_an_address_of_another_machine_is_explained() -> None:
    """An address that is not ours is named."""
    with pytest.raises(ConfigError, match=r"192\.0\.2\.77 is not an address of this machine"):
        bind([parse_listener("tcp:192.0.2.77:1")], mode=0o600)


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="no IPv6 on this machine")
def test_the_ipv6_wildcard_takes_both_kinds() -> None:
    """[::] answers IPv4 and IPv6 callers, [::1] only its own."""
    both, own = bind([parse_listener("tcp:[::]:0"), parse_listener("tcp:[::1]:0")], mode=0o600)
    for host in ("127.0.0.1", "::1"):
        socket.create_connection((host, both.sockets[0].getsockname()[1])).close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", own.sockets[0].getsockname()[1]))
    both.close()
    own.close()


def test_a_restart_takes_its_port_at_once() -> None:
    """Connections in TIME_WAIT do not keep the port."""
    (bound,) = bind([parse_listener("tcp:127.0.0.1:0")], mode=0o600)
    address = bound.sockets[0].getsockname()
    client = socket.create_connection(address)
    bound.sockets[0].setblocking(True)
    bound.sockets[0].accept()[0].close()
    client.close()
    bound.close()
    bind([Listener("tcp", host=address[0], port=address[1])], mode=0o600)[0].close()


def test_inherited_sockets_serve_the_listeners_with_their_address(tmp_path_factory: pytest.TempPathFactory) -> None:
    """A socket from systemd is used as it is, its path stays at close, and the listener's TLS rules hold."""
    path = tmp_path_factory.mktemp("s") / "a.sock"
    tcp = socket.create_server(("127.0.0.1", 0))
    unix = socket.socket(socket.AF_UNIX)
    unix.bind(str(path))
    port = tcp.getsockname()[1]
    listeners = [parse_listener(f"tcp:127.0.0.1:{port}?tls=off&insecure=on"), Listener("unix", path=str(path))]
    bound = bind(listeners, mode=0o600, inherited=[unix, tcp])
    assert [each.is_inherited for each in bound] == [True, True]
    assert bound[0].sockets == (tcp,)
    assert not bound[0].listener.tls
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
    for each in bound:
        each.close()
    assert path.is_socket()


def test_an_inherited_socket_may_be_for_memory(tmp_path: Path) -> None:
    """systemd knows paths, not what is spoken there."""
    listener = parse_listener(f"memory+unix:{tmp_path}/m")
    unix = socket.socket(socket.AF_UNIX)
    unix.bind(listener.path)
    (bound,) = bind([listener], mode=0o600, inherited=[unix])
    assert (bound.is_inherited, bound.listener, bound.url) == (True, listener, f"memory+unix:{tmp_path}/m")
    bound.close()


def test_an_inherited_socket_that_nobody_named_stops_the_start() -> None:
    """The configuration decides about TLS, so a socket that it does not know is not served."""
    with socket.create_server(("127.0.0.1", 0)) as stray:
        port = stray.getsockname()[1]
        with pytest.raises(ConfigError, match=f"tcp:127.0.0.1:{port} that server.listen does not name"):
            bind([], mode=0o600, inherited=[stray])
