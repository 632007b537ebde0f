"""A daemon for hostile callers of gRPC: what it has, whether it serves, and what they say to it."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path

import grpc
from tritonclient.grpc import service_pb2 as pb

from tests.clients.frames import (
    END_HEADERS,
    END_STREAM,
    HEADERS,
    RST_STREAM,
    SERVICE,
    Frame,
    Line,
    call,
    dialled,
    message,
)
from tests.e2e.daemon import Daemon

_LARGE = 1 << 19


@dataclass(frozen=True, slots=True)
class Prey:
    """A daemon with a plain gRPC listener and one with TLS, and what to say to be somebody."""

    daemon: Daemon
    port: int
    tls_port: int
    known: tuple[tuple[str, str], ...]

    def dial(self, window: int = 65535) -> contextlib.AbstractContextManager[Line]:
        """A connection to the plain listener; `window` is what the daemon may send on a stream unasked."""
        return dialled(("127.0.0.1", self.port), window=window)

    def serves(self) -> bool:
        """Whether an inference of a caller with a token is answered, on a connection of its own."""
        with self.dial() as line:
            line.send(call(1, "ModelInfer", self.known), message(1, infer("mlp", 64)))
            return line.status(1) == 0

    def warm_up(self) -> None:
        """Threads are started as they are needed: need all of them once."""
        assert self.serves()
        with grpc.insecure_channel(f"127.0.0.1:{self.port}") as channel:
            ask = channel.unary_unary(f"{SERVICE}ModelInfer")
            for asked in [ask.future(infer("wide", _LARGE), metadata=self.known) for _ in range(16)]:
                asked.result(30)

    def threads(self) -> int:
        """Threads that the daemon has."""
        assert self.daemon.process is not None
        return len(list(Path(f"/proc/{self.daemon.process.pid}/task").iterdir()))

    def dropped(self) -> int:
        """Streams that ended because an answer was not taken."""
        with self.daemon.client() as client:
            lines = [each for each in client.metrics().splitlines() if "grpc/ModelStreamInfer" in each]
        return sum(int(float(each.rsplit(" ", 1)[1])) for each in lines if '"408"' in each)


def infer(model: str, width: int) -> bytes:
    """A proper request, of one row of zeros."""
    asked = pb.ModelInferRequest(model_name=model, raw_input_contents=[bytes(4 * width)])
    asked.inputs.add(name="x", datatype="FP32", shape=[1, width])
    return bytes(asked.SerializeToString())


def ends(line: Line) -> list[Frame]:
    """The frames that ended a stream."""
    trailers = (HEADERS, END_HEADERS | END_STREAM)
    return [each for each in line.frames if each.kind == RST_STREAM or (each.kind, each.flags) == trailers]
