"""A load generator for one fixed HTTP/1.1 request: keep-alive connections over a Unix socket, closed loop, uvloop.

It runs in a process of its own and prints one JSON object; a connection sends its next request when the last answer is
complete. Latency is from the last write to the end of the answer. An answer that is not 200 ends the run with its text.
Where the request has the id 0000000000, every copy sent gets an id of its own.

    python -m bench.load --socket S --ca CA.pem --request FILE --connections 8 --seconds 2 [--core 1]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import ssl
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import uvloop

WARM_UP_S = 0.4
ID = b'"id":"0000000000"'
BUFFER_BYTES = 1 << 20


@dataclass(slots=True)
class Tally:
    """What the connections have seen; `is_counting` turns on after the warm-up."""

    latencies_ns: list[int] = field(default_factory=list)
    is_counting: bool = False
    failure: str = ""
    sent: int = 0


class Caller(asyncio.BufferedProtocol):
    """One connection: send, read one answer, note the time, again."""

    def __init__(self, request: bytes, tally: Tally, over: asyncio.Future[None]) -> None:
        self._request = request
        self._id_at = request.find(ID) + len(ID) - 11 if ID in request else 0
        self._tally = tally
        self._over = over
        self._head = b""
        self._missing = 0
        self._sent_ns = 0
        self._buffer = memoryview(bytearray(BUFFER_BYTES))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._send()

    def _send(self) -> None:
        request, at = self._request, self._id_at
        if at:
            self._tally.sent += 1
            request = b"%b%010d%b" % (request[:at], self._tally.sent, request[at + 10 :])
        self._sent_ns = time.perf_counter_ns()
        self._transport.write(request)  # type: ignore[attr-defined]

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        if self._missing:
            self._missing -= nbytes
        else:
            self._head += self._buffer[:nbytes]
            end = self._head.find(b"\r\n\r\n")
            if end < 0:
                return
            self._missing = self._length(end) - (len(self._head) - end - 4)
        if self._missing == 0:
            self._answered()

    def _length(self, end: int) -> int:
        """The body's length; an answer without one, or other than 200, ends the run."""
        head = self._head[:end].lower()
        mark = head.find(b"\r\ncontent-length:")
        if mark < 0 or not head.startswith(b"http/1.1 200"):
            self._fail(self._head[:2000].decode("utf-8", "replace"))
            return 1 << 62
        return int(head[mark + 17 :].split(b"\r\n", 1)[0])

    def _answered(self) -> None:
        if self._tally.is_counting:
            self._tally.latencies_ns.append(time.perf_counter_ns() - self._sent_ns)
        self._head = b""
        self._send()

    def connection_lost(self, error: Exception | None) -> None:
        self._fail(f"connection lost: {error}")

    def _fail(self, text: str) -> None:
        if not self._over.done():
            self._tally.failure = text
            self._over.set_result(None)


async def load(
    socket: str, ca: str, request: bytes, connections: int, seconds: float, warm_up_s: float = WARM_UP_S
) -> dict[str, float | int | str]:
    """Run the loop and sum it up; times in microseconds."""
    context = ssl.create_default_context(cafile=ca) if ca else None
    tally, loop = Tally(), asyncio.get_running_loop()
    over: asyncio.Future[None] = loop.create_future()
    transports = []
    for _ in range(connections):
        transport, _ = await loop.create_unix_connection(
            lambda: Caller(request, tally, over), socket, ssl=context, server_hostname="localhost" if context else None
        )
        transports.append(transport)
    await asyncio.wait([over], timeout=warm_up_s)
    tally.is_counting = True
    start_s, cpu_s = time.perf_counter(), time.process_time()
    await asyncio.wait([over], timeout=seconds)
    took_s, cpu_s = time.perf_counter() - start_s, time.process_time() - cpu_s
    tally.is_counting = False
    failure = tally.failure
    if not over.done():
        over.set_result(None)
    for transport in transports:
        transport.abort()
    return summary(tally.latencies_ns, took_s, cpu_s) | {"connections": connections, "failure": failure}


def summary(latencies_ns: list[int], took_s: float, cpu_s: float) -> dict[str, float | int | str]:
    """Throughput, percentiles, and how busy the generator itself was."""
    ordered = sorted(latencies_ns) or [0]

    def percentile_us(share: float) -> float:
        return round(ordered[min(len(ordered) - 1, int(share * len(ordered)))] / 1000, 1)

    return {
        "requests": len(latencies_ns),
        "per_s": round(len(latencies_ns) / took_s, 1),
        "p50_us": percentile_us(0.50),
        "p99_us": percentile_us(0.99),
        "client_cpu": round(cpu_s / took_s, 3),
    }


def main() -> int:
    """Parse, pin, run, print."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--socket", required=True)
    arguments.add_argument("--ca", default="", help="CA certificate; without it, no TLS")
    arguments.add_argument("--request", type=Path, required=True, help="file with the bytes of the whole request")
    arguments.add_argument("--connections", type=int, default=1)
    arguments.add_argument("--seconds", type=float, default=2.0)
    arguments.add_argument("--warm-up", type=float, default=WARM_UP_S, help="seconds before counting begins")
    arguments.add_argument("--core", type=int, default=-1, help="run on this core only")
    given = arguments.parse_args()
    if given.core >= 0:
        os.sched_setaffinity(0, {given.core})
    request = given.request.read_bytes()
    found = uvloop.run(load(given.socket, given.ca, request, given.connections, given.seconds, given.warm_up))
    print(json.dumps(found))
    return 1 if found["failure"] else 0


if __name__ == "__main__":
    sys.exit(main())
