"""What gRPC callers meet of the daemon's own rules: rates, sequences, renewed certificates, a missing extra."""

from __future__ import annotations

import hashlib
import queue
import signal
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from tests import onnx_models
from tests.clients.frames import GOAWAY, call, dialled, message
from tests.e2e.daemon import Daemon, until
from tests.e2e.raw import free_port

ROW = np.zeros((1, 64), np.float32)


@dataclass(frozen=True, slots=True)
class Place:
    """A daemon with gRPC on TCP with TLS, its configuration file, and where it listens."""

    daemon: Daemon
    config: Path
    port: int
    headers: dict[str, str]

    @property
    def plain(self) -> Path:
        """The Unix socket, which has no TLS."""
        return self.daemon.folder / "plain"

    def channel(self) -> grpc.Channel:
        """With channels of its own, so that nobody else's connection is used again."""
        credentials = grpc.ssl_channel_credentials(self.daemon.ca.read_bytes())
        return grpc.secure_channel(f"localhost:{self.port}", credentials, [("grpc.use_local_subchannel_pool", 1)])

    def client(self) -> triton.InferenceServerClient:
        return triton.InferenceServerClient(f"localhost:{self.port}", ssl=True, root_certificates=str(self.daemon.ca))

    def shown(self) -> str:
        """The fingerprint of the certificate that a new connection sees."""
        context = ssl.create_default_context(cafile=str(self.daemon.ca))
        context.set_alpn_protocols(["h2"])
        with (
            socket.create_connection(("127.0.0.1", self.port), 10) as plain,
            context.wrap_socket(plain, server_hostname="localhost") as secure,
        ):
            return hashlib.sha256(secure.getpeercert(binary_form=True) or b"").hexdigest()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A daemon with mlp."""
    folder = tmp_path_factory.mktemp("p")
    onnx_models.mlp(folder / "models" / "mlp" / "1" / "model.onnx")
    config, port = folder / "inferd.toml", free_port()
    config.write_text("[server]\nkeepalive_s = 2\n")
    listen = (f"grpc+tcp:localhost:{port}", f"grpc+unix:{folder}/plain?tls=off")
    with Daemon(folder, listen=listen, args=("--config", str(config))) as daemon:
        yield Place(daemon, config, port, {"authorization": f"Bearer {daemon.token()}"})


def given() -> triton.InferInput:
    tensor = triton.InferInput("x", [1, 64], "FP32")
    tensor.set_data_from_numpy(ROW)
    return tensor


def test_a_rate_that_is_used_up_says_when_to_come_again(place: Place) -> None:
    """RESOURCE_EXHAUSTED, with the seconds in the trailing metadata."""
    token = place.daemon.token("slow", "read", "--rate", "0.01", "--burst", "1")
    metadata = (("authorization", f"Bearer {token}"),)
    with place.channel() as channel:
        ask = channel.unary_unary("/inference.GRPCInferenceService/ServerMetadata")
        with pytest.raises(grpc.RpcError) as caught:
            until(lambda: not ask(b"", metadata=metadata))
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert int(dict(caught.value.trailing_metadata())["retry-after"]) >= 1


@pytest.mark.parametrize("sequence", [7, "camera-7"])
def test_sequences_are_refused(place: Place, sequence: int | str) -> None:
    """By calls and on streams, with the reason; the request after it is answered."""
    answers: queue.Queue[tuple[Any, Any]] = queue.Queue()
    with place.client() as client:
        with pytest.raises(InferenceServerException, match="sequences are not supported") as caught:
            client.infer("mlp", [given()], sequence_id=sequence, sequence_start=True, headers=place.headers)
        assert caught.value.status() == "StatusCode.INVALID_ARGUMENT"
        client.start_stream(lambda result, error: answers.put((result, error)), headers=place.headers)
        client.async_stream_infer("mlp", [given()], sequence_id=sequence, sequence_start=True)
        client.async_stream_infer("mlp", [given()])
        assert "sequences are not supported" in str(answers.get(timeout=30)[1])
        assert answers.get(timeout=30)[1] is None
        client.stop_stream()


def test_a_renewed_certificate_is_shown_and_calls_go_on(place: Place) -> None:
    """New connections see it after a reload, without a restart; a stream that is open stays open."""
    assert place.daemon.process is not None
    before = place.shown()
    answers: queue.Queue[tuple[Any, Any]] = queue.Queue()
    with place.client() as kept:
        kept.start_stream(lambda result, error: answers.put((result, error)), headers=place.headers)
        kept.async_stream_infer("mlp", [given()])
        assert answers.get(timeout=30)[1] is None
        place.config.write_text('[tls]\nnames = ["renewed.example"]\n')
        place.daemon.process.send_signal(signal.SIGHUP)
        until(lambda: place.shown() != before)
        kept.async_stream_infer("mlp", [given()])
        assert answers.get(timeout=30)[1] is None
        kept.stop_stream()
    with place.channel() as fresh:
        assert fresh.unary_unary("/inference.GRPCInferenceService/ServerLive")(b"") == b"\x08\x01"


def test_a_connection_that_is_idle_is_let_go(place: Place) -> None:
    """After server.keepalive_s without a call it is told so and closed; while a stream is open it is not idle."""
    with dialled(str(place.plain)) as line:
        known = tuple(place.headers.items())
        line.send(call(1, "ModelStreamInfer", known), call(3, "ServerLive"), message(3, b""))
        assert line.status(3) == 0
        with dialled(str(place.plain)) as other:
            other.send(call(1, "ServerLive"), message(1, b""))
            assert other.status(1) == 0
            assert GOAWAY in [each.kind for each in other.until_closed()]
        line.send(call(5, "ServerLive"), message(5, b""))
        assert line.status(5) == 0
        assert GOAWAY not in [each.kind for each in line.frames]


def test_without_the_extra_a_grpc_listener_stops_the_start(tmp_path: Path) -> None:
    """The message names the listener and what to install."""
    (tmp_path / "none" / "grpc").mkdir(parents=True)
    (tmp_path / "none" / "grpc" / "__init__.py").write_text("raise ImportError('No module named grpc')\n")
    daemon = Daemon(tmp_path / "d")
    listener = f"grpc+tcp:127.0.0.1:{free_port()}"
    args = ("--models", str(daemon.models), "--state", str(daemon.state), "--listen", daemon.url, "--listen", listener)
    done = daemon.cli("serve", *args, PYTHONPATH=str(tmp_path / "none"))
    assert done.returncode != 0
    assert f"{listener}: gRPC is not installed" in done.stderr
    assert "pip install 'inferd[grpc]'" in done.stderr
    assert not daemon.socket.exists()
