"""What a gRPC listener is given: limits, a certificate, and whom it knows without a token.

gRPC accepts connections by itself, so nobody here sees the credentials of the process at the other end.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

import grpc

from inferd_agent.config import Listener
from inferd_agent.config.schema import Server as Limits
from inferd_agent.grpc.server import Server
from inferd_agent.sockets import PeerCredentials
from inferd_agent.tls import Pem

# A connection has at most so many calls under way; further ones wait at the caller's.
MAX_STREAMS = 128
# A connection on which nothing comes is asked whether it lives, and is let go when it does not say so.
_PING_S, _PING_WAIT_S = 20, 10
# Callers that ping more often than this, a few times over, are cut off.
_LEAST_PING_S = 10


def options(limits: Limits) -> Sequence[tuple[str, int]]:
    """gRPC's own limits."""
    return (
        ("grpc.so_reuseport", 0),  # a second daemon is to be told that the port is taken
        ("grpc.max_allowed_incoming_connections", limits.max_connections),
        ("grpc.max_concurrent_streams", MAX_STREAMS),
        ("grpc.max_receive_message_length", limits.max_body_bytes),
        ("grpc.max_send_message_length", -1),
        ("grpc.max_metadata_size", limits.max_header_bytes),
        ("grpc.absolute_max_metadata_size", limits.max_header_bytes),
        ("grpc.server_handshake_timeout_ms", _ms(limits.header_timeout_s)),
        ("grpc.http2.settings_timeout", _ms(limits.header_timeout_s)),  # the limits count once they are acknowledged
        ("grpc.max_connection_idle_ms", _ms(limits.keepalive_s)),
        ("grpc.keepalive_time_ms", _PING_S * 1000),
        ("grpc.keepalive_timeout_ms", _PING_WAIT_S * 1000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", _LEAST_PING_S * 1000),
    )


def _ms(seconds: float) -> int:
    return min(max(int(seconds * 1000), 1), (1 << 31) - 1)


def listen(server: Server, address: str, pem: Callable[[], Pem | None]) -> int:
    """Listen at an address in gRPC's words; the port. Raises RuntimeError. `pem` is asked again for each handshake."""
    first, place = pem(), address.encode()
    port: int = server.add_insecure_port(place) if first is None else _listen_with_tls(server, place, first, pem)
    if not port:
        raise RuntimeError("gRPC could not bind it: is it taken, or not of this machine?")
    return port


def _listen_with_tls(server: Server, place: bytes, first: Pem, pem: Callable[[], Pem | None]) -> int:
    shown = first

    def renewed() -> grpc.ServerCertificateConfiguration | None:
        nonlocal shown
        newest = pem()
        if newest is None or newest is shown:
            return None
        shown = newest
        return _configuration(newest)

    credentials = grpc.dynamic_ssl_server_credentials(_configuration(first), renewed)
    port: int = server.add_secure_port(place, credentials)
    return port


def _configuration(pem: Pem) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration([(pem.key, pem.chain)])


def known_peer(listener: Listener, mode: int) -> PeerCredentials | None:
    """Who calls without a token: the daemon's own user where the socket lets in nobody else (and root), else nobody."""
    if listener.kind != "unix" or mode & 0o077:
        return None
    return PeerCredentials(0, os.geteuid(), os.getegid())
