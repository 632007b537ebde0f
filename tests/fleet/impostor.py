"""Runs on a host of the test's network: announces itself by a name that another device has, and tells what it hears.

A line for every connection: whether its certificate was believed, and how many bytes of a request came. Stdin ends it.
"""

from __future__ import annotations

import json
import socket
import ssl
import sys
import tempfile
import threading
from pathlib import Path

from zeroconf import ServiceInfo, Zeroconf

from inferd.fleet.record import SERVICE, Device, to_txt
from tests.inferd.client.server import make_certificates, server_context


def say(*, handshake: bool, heard: int) -> None:
    """One line to the test."""
    print(json.dumps({"handshake": handshake, "heard": heard}), flush=True)


def listen(sock: socket.socket, context: ssl.SSLContext) -> None:
    """Take connections for as long as there are any."""
    while True:
        plain, _ = sock.accept()
        plain.settimeout(10)
        try:
            with context.wrap_socket(plain, server_side=True) as connection:
                say(handshake=True, heard=len(connection.recv(1 << 16)))
        except OSError:  # the caller did not believe it: that alert comes in the handshake, or instead of a request
            say(handshake=False, heard=0)
            plain.close()


def main() -> None:
    """Take the name given, at the address given."""
    name, address = sys.argv[1:]
    with tempfile.TemporaryDirectory() as folder, socket.create_server((address, 0)) as sock:
        _, leaf = make_certificates(Path(folder))
        context = server_context(leaf)
        threading.Thread(target=listen, args=(sock, context), daemon=True).start()
        port = sock.getsockname()[1]
        device = Device(
            name=name, instance_id="f" * 16, host="fake.local", addresses=(address,), port=port, fingerprint="f" * 64
        )
        info = ServiceInfo(
            SERVICE, f"{name}.{SERVICE}", port=port, properties=to_txt(device), server="fake.local.",
            parsed_addresses=[address],
        )  # fmt: skip
        zeroconf = Zeroconf(interfaces=[address])
        zeroconf.register_service(info, cooperating_responders=True)
        sys.stdin.read()
        zeroconf.close()


if __name__ == "__main__":
    main()
