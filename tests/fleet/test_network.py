"""The network that the fleet's tests run on does what they count on."""

from __future__ import annotations

import pytest

from tests.e2e.daemon import until
from tests.fleet import network
from tests.fleet.network import Network

pytestmark = pytest.mark.skipif(bool(network.missing()), reason=network.missing() or "-")


def pings(lan: Network, source: str, address: str) -> bool:
    """Whether a TCP connection is at least refused there: a packet went and came back."""
    script = (
        "import socket, sys\ns = socket.socket(socket.AF_INET6 if ':' in sys.argv[1] else socket.AF_INET)\n"
        "s.settimeout(0.5)\nsys.exit(s.connect_ex((sys.argv[1], 9)) != 111)"
    )
    return lan[source].python("-c", script, address, check=False).returncode == 0


def test_hosts_reach_each_other_until_one_is_cut_off() -> None:
    """Both families work, a partition cuts both, its end brings them back, and nothing is left at the end."""
    with Network("one", "two") as lan:
        two = lan["two"]
        assert lan["one"].run("hostname").stdout.strip() == "one"
        until(lambda: pings(lan, "one", two.address))
        until(lambda: pings(lan, "one", two.address6))
        two.leave()
        assert not pings(lan, "one", two.address)
        two.rejoin()
        until(lambda: pings(lan, "one", two.address))
        sleeper = two.popen("sleep", "1000")
        prefix = lan.prefix
    assert sleeper.wait(10) != 0
    assert not [name for name in network.namespaces() if name.startswith(prefix)]
