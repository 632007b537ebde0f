"""gRPC clients of others against the real daemon: tritonclient.grpc, its asyncio form, and grpc.aio bare.

Over TCP with TLS and token, plain loopback, and Unix sockets with and without TLS.
"""

from __future__ import annotations

import asyncio
import gc
import queue
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
from tritonclient.grpc import service_pb2 as pb
from tritonclient.utils import InferenceServerException

from inferd_agent.demo import MODELS as DEMO_MODELS
from tests import onnx_models
from tests.e2e.daemon import Daemon, until
from tests.e2e.raw import free_port

ROW = np.linspace(-1, 1, 64, dtype=np.float32)[np.newaxis]
EXPECTED = onnx_models.mlp_reference(ROW)
SLOW = np.ones((1, 512), np.float32)
DOORS = ("tls", "loopback", "unix", "unix-tls")
SERVICE = "/inference.GRPCInferenceService/"


@dataclass(frozen=True, slots=True)
class Doors:
    """A daemon with a gRPC listener of each kind, and a token's header."""

    daemon: Daemon
    ports: tuple[int, int]
    headers: dict[str, str]

    def at(self, door: str) -> dict[str, Any]:
        """What a client of tritonclient needs to come in."""
        tls = {"ssl": True, "root_certificates": str(self.daemon.ca)}
        folder = self.daemon.folder
        match door:
            case "tls":
                return {"url": f"localhost:{self.ports[0]}", **tls}
            case "loopback":
                return {"url": f"127.0.0.1:{self.ports[1]}"}
            case "unix":
                return {"url": f"unix:{folder}/g"}
        unlimited = [(f"grpc.max_{way}_message_length", -1) for way in ("send", "receive")]
        return {
            "url": f"unix:{folder}/t",
            **tls,
            "channel_args": [("grpc.ssl_target_name_override", "localhost"), *unlimited],
        }

    def bare(self) -> grpc.aio.Channel:
        """A channel of grpc.aio itself, with TLS."""
        credentials = grpc.ssl_channel_credentials(self.daemon.ca.read_bytes())
        return grpc.aio.secure_channel(f"localhost:{self.ports[0]}", credentials)


@pytest.fixture(scope="module")
def doors(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Doors]:
    """mlp, digits, slow, and two versions of versioned."""
    folder = tmp_path_factory.mktemp("g")
    models = folder / "models"
    shutil.copytree(DEMO_MODELS, models)
    onnx_models.mlp(models / "mlp" / "1" / "model.onnx")
    onnx_models.slow(models / "slow" / "1" / "model.onnx", layers=1024)
    onnx_models.mlp(models / "versioned" / "1" / "model.onnx", features=8)
    onnx_models.mlp(models / "versioned" / "2" / "model.onnx", features=16)
    (models / "versioned" / "model.toml").write_text('versions = "all"\n')
    ports = free_port(), free_port()
    listen = (
        f"grpc+tcp:127.0.0.1:{ports[0]}",
        f"grpc+tcp:127.0.0.1:{ports[1]}?tls=off&insecure=on",
        f"grpc+unix:{folder}/g?tls=off",
        f"grpc+unix:{folder}/t",
    )
    with Daemon(folder, models=models, listen=listen, env={"INFERD_SERVER_SOCKET_MODE": "0660"}) as daemon:
        yield Doors(daemon, ports, {"authorization": f"Bearer {daemon.token()}"})


@pytest.fixture(params=DOORS)
def client(request: pytest.FixtureRequest, doors: Doors) -> Iterator[triton.InferenceServerClient]:
    """tritonclient.grpc at each kind of door."""
    with triton.InferenceServerClient(**doors.at(request.param)) as client:
        yield client


@pytest.fixture
def local(doors: Doors) -> Iterator[triton.InferenceServerClient]:
    """tritonclient.grpc at the Unix socket."""
    with triton.InferenceServerClient(**doors.at("unix")) as client:
        yield client


def tensor(array: np.ndarray, datatype: str = "FP32", name: str = "x") -> triton.InferInput:
    made = triton.InferInput(name, list(array.shape), datatype)
    made.set_data_from_numpy(array)
    return made


def test_tritonclient_infers(doors: Doors, client: triton.InferenceServerClient) -> None:
    """At every door, with the id told again."""
    wanted = [triton.InferRequestedOutput("probabilities")]
    answer = client.infer("mlp", [tensor(ROW)], outputs=wanted, request_id="r1", headers=doors.headers)
    np.testing.assert_allclose(answer.as_numpy("probabilities"), EXPECTED, atol=0.02)
    assert answer.get_response().id == "r1"


def test_a_caller_needs_a_token(doors: Doors, client: triton.InferenceServerClient) -> None:
    """At every door: health is open, all else is not, and a token's scopes and a wrong token are told apart."""
    assert client.is_server_live()
    assert client.is_server_ready()
    assert code(client, None) == "UNAUTHENTICATED"
    assert code(client, {"authorization": "Bearer ifd_aaaaaaaa_b"}) == "UNAUTHENTICATED"


def code(client: triton.InferenceServerClient, headers: dict[str, str] | None) -> str:
    with pytest.raises(InferenceServerException) as caught:
        client.infer("mlp", [tensor(ROW)], headers=headers)
    return str(caught.value.status()).removeprefix("StatusCode.")


def test_a_token_opens_what_it_is_for(doors: Doors, local: triton.InferenceServerClient) -> None:
    """A reader does not infer, a caller of one model does not use or see others."""
    reader = {"authorization": f"Bearer {doors.daemon.token('reader', 'read')}"}
    assert code(local, reader) == "PERMISSION_DENIED"
    narrow = {"authorization": f"Bearer {doors.daemon.token('narrow', 'infer,read', '--models', 'digits')}"}
    assert code(local, narrow) == "PERMISSION_DENIED"
    assert {each.name for each in local.get_model_repository_index(headers=narrow).models} == {"digits"}
    stats = local.get_inference_statistics(headers=narrow).model_stats
    assert {each.name for each in stats} == {"digits"}
    with pytest.raises(InferenceServerException, match="lacks the scope 'admin'"):
        local.load_model("mlp", headers=doors.headers)


def test_tritonclient_reads_everything(doors: Doors, local: triton.InferenceServerClient) -> None:
    """Metadata, configuration, index, statistics, versions, settings."""
    headers = doors.headers
    assert local.get_server_metadata(headers=headers).name == "inferd"
    assert local.is_model_ready("mlp", headers=headers)
    [given] = local.get_model_metadata("mlp", headers=headers).inputs
    assert (given.name, given.datatype, list(given.shape)) == ("x", "FP32", [-1, 64])
    config = local.get_model_config("mlp", headers=headers, as_json=True)["config"]
    assert config["max_batch_size"] > 0
    assert config["input"] == [{"name": "x", "data_type": "TYPE_FP32", "dims": ["64"]}]
    index = local.get_model_repository_index(headers=headers).models
    assert {"mlp", "digits", "versioned"} <= {each.name for each in index if each.state == "READY"}
    assert list(local.get_model_metadata("versioned", headers=headers).versions) == ["1", "2"]
    assert local.get_model_metadata("versioned", "1", headers=headers).inputs[0].shape == [-1, 8]
    before = local.get_inference_statistics("mlp", headers=headers).model_stats[0].inference_stats.success.count
    local.infer("mlp", [tensor(ROW)], headers=headers)
    [stats] = local.get_inference_statistics("mlp", headers=headers).model_stats
    assert stats.inference_stats.success.count == before + 1 == stats.inference_stats.queue.count
    assert local.get_trace_settings(headers=headers, as_json=True)["settings"]["trace_level"] == {"value": ["OFF"]}
    assert local.get_log_settings(headers=headers, as_json=True)["settings"]["log_error"] == {"bool_param": True}


@pytest.mark.parametrize(
    ("call", "status", "says"),
    [
        (lambda c, h: c.infer("nope", [tensor(ROW)], headers=h), "NOT_FOUND", "nope"),
        (lambda c, h: c.infer("mlp", [tensor(ROW)], model_version="9", headers=h), "NOT_FOUND", "9"),
        (lambda c, h: c.infer("mlp", [tensor(ROW)], model_version="x", headers=h), "INVALID_ARGUMENT", "version"),
        (lambda c, h: c.infer("mlp", [tensor(ROW, name="y")], headers=h), "INVALID_ARGUMENT", "input 'x'"),
        (lambda c, h: c.infer("mlp", [tensor(ROW[:, :5])], headers=h), "INVALID_ARGUMENT", "x"),
        (lambda c, h: c.infer("mlp", [tensor(ROW.astype("f8"), "FP64")], headers=h), "INVALID_ARGUMENT", "FP64"),
        (
            lambda c, h: c.infer("mlp", [tensor(ROW)], outputs=[triton.InferRequestedOutput("z")], headers=h),
            "INVALID_ARGUMENT", "z",
        ),
        (lambda c, h: c.get_model_metadata("nope", headers=h), "NOT_FOUND", "nope"),
        (lambda c, h: c.register_system_shared_memory("r", "k", 8, headers=h), "UNIMPLEMENTED", "shared_memory.system"),
        (lambda c, h: c.register_cuda_shared_memory("r", b"", 0, 8, headers=h), "UNIMPLEMENTED", "memory of a GPU"),
        (lambda c, h: c.update_log_settings({"log_info": False}, headers=h), "UNIMPLEMENTED", "log.level"),
        (lambda c, h: c.update_trace_settings(None, {"trace_level": "MAX"}, headers=h), "UNIMPLEMENTED", "trace"),
        (lambda c, h: c.infer("slow", [tensor(SLOW)], timeout=1, headers=h), "DEADLINE_EXCEEDED", "deadline"),
    ],
)  # fmt: skip
def test_errors_have_the_right_code(
    doors: Doors, local: triton.InferenceServerClient, call: Any, status: str, says: str
) -> None:
    """Each names what is wrong."""
    with pytest.raises(InferenceServerException, match=says) as caught:
        call(local, doors.headers)
    assert caught.value.status() == f"StatusCode.{status}"


@pytest.mark.parametrize("compression", ["gzip", "deflate"])
def test_compressed_messages_are_taken(doors: Doors, local: triton.InferenceServerClient, compression: str) -> None:
    """As gRPC compresses them."""
    answer = local.infer("mlp", [tensor(ROW)], compression_algorithm=compression, headers=doors.headers)
    np.testing.assert_allclose(answer.as_numpy("probabilities"), EXPECTED, atol=0.02)


def test_classes_are_ranked_with_labels(doors: Doors, local: triton.InferenceServerClient) -> None:
    """The classification parameter of an output."""
    image = tensor(np.zeros((1, 1, 8, 8), np.float32), name="image")
    wanted = [triton.InferRequestedOutput("probabilities", class_count=3)]
    ranked = local.infer("digits", [image], outputs=wanted, headers=doors.headers).as_numpy("probabilities")
    assert ranked.shape == (1, 3)
    assert ranked[0, 0].count(b":") == 2


def test_an_administrator_unloads_and_loads(doors: Doors, local: triton.InferenceServerClient) -> None:
    """Calls then fail clearly, and go on after the load."""
    headers = {"authorization": f"Bearer {doors.daemon.token('admin', 'infer,read,admin')}"}
    local.unload_model("versioned", headers=headers)
    assert not local.is_model_ready("versioned", headers=headers)
    with pytest.raises(InferenceServerException):
        local.infer("versioned", [tensor(ROW[:, :16])], headers=headers)
    local.load_model("versioned", headers=headers)
    assert local.infer("versioned", [tensor(ROW[:, :16])], headers=headers).as_numpy("probabilities").shape == (1, 10)


@pytest.mark.parametrize("door", ["tls", "unix"])
def test_a_stream_answers_in_order(doors: Doors, door: str) -> None:
    """Errors are told in their place and the stream lives on; stop_stream returns."""
    answers: queue.Queue[tuple[Any, Any]] = queue.Queue()
    with triton.InferenceServerClient(**doors.at(door)) as client:
        client.start_stream(lambda result, error: answers.put((result, error)), headers=doors.headers)
        for number in range(50):
            client.async_stream_infer(
                "mlp" if number % 10 else "nope", [tensor(ROW)], request_id=str(number),
                enable_empty_final_response=True,
            )  # fmt: skip
        got = [answers.get(timeout=30) for _ in range(50)]
        client.stop_stream()
    for number, (result, error) in enumerate(got):
        if number % 10:
            assert result.get_response().id == str(number)
            assert result.get_response().parameters["triton_final_response"].bool_param
            np.testing.assert_allclose(result.as_numpy("probabilities"), EXPECTED, atol=0.02)
        else:
            assert "nope" in str(error)


@pytest.mark.parametrize("door", DOORS)
async def test_tritonclient_aio_infers_and_streams(doors: Doors, door: str) -> None:
    """The asyncio client."""

    async def requests() -> Any:
        for number in range(3):
            yield {"model_name": "mlp", "inputs": [tensor(ROW)], "request_id": str(number)}

    async with triton_aio.InferenceServerClient(**doors.at(door)) as client:
        assert await client.is_server_ready()
        answer = await client.infer("mlp", [tensor(ROW)], headers=doors.headers)
        np.testing.assert_allclose(answer.as_numpy("probabilities"), EXPECTED, atol=0.02)
        with pytest.raises(InferenceServerException, match="nope"):
            await client.infer("nope", [tensor(ROW)], headers=doors.headers)
        told = [each async for each in client.stream_infer(requests(), headers=doors.headers)]
    assert [result.get_response().id for result, _ in told] == ["0", "1", "2"]


def slow_request() -> bytes:
    message = pb.ModelInferRequest(model_name="slow", raw_input_contents=[bytes(512 * 4)])
    message.inputs.add(name="x", datatype="FP32", shape=[1, 512])
    return bytes(message.SerializeToString())


async def test_a_cancelled_call_ends_its_work(doors: Doors) -> None:
    """The runtime counts calls that were cancelled while they waited or ran as left."""
    metadata = tuple(doors.headers.items())
    async with doors.bare() as channel:
        infer = channel.unary_unary(f"{SERVICE}ModelInfer")
        for attempt in range(100):
            calls = [infer(slow_request(), metadata=metadata) for _ in range(8)]
            await asyncio.sleep(0.002 * attempt)  # at some length they are under way
            for call in calls:
                call.cancel()
            await asyncio.gather(*(call.code() for call in calls))
            if await asyncio.to_thread(cancelled, doors):
                return
    pytest.fail("no call was counted as left")


def cancelled(doors: Doors) -> float:
    with doors.daemon.client() as client:
        text = client.metrics()
    return sum(
        float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if 'cancellations_total{model="slow"' in line
    )


async def test_a_hostile_caller_is_refused_and_forgotten(doors: Doors) -> None:
    """Garbage, no message at all, too much metadata, messages over the limit, a hundred streams: clean codes, and
    the daemon serves on. Of twelve connections none stays open but those that this process keeps."""
    before = doors.daemon.open_files()
    for _ in range(6):
        await misbehave(doors)
        gc.collect()  # a channel of grpc.aio is closed once nothing refers to its calls
    await asyncio.to_thread(until, lambda: doors.daemon.open_files() <= before + 6)


async def misbehave(doors: Doors) -> None:
    metadata = tuple(doors.headers.items())
    async with doors.bare() as channel:
        infer = channel.unary_unary(f"{SERVICE}ModelInfer")
        for message in (b"", b"\xff" * 100, slow_request()[:-1], b"\x2a\x00" * 5000):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await infer(message, metadata=metadata)
            assert caught.value.code() in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await channel.stream_unary(f"{SERVICE}ModelInfer")(iter(()), metadata=metadata)
        assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await infer(slow_request(), metadata=(*metadata, ("x", "y" * 100_000)))
        assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await infer(bytes(130 << 20), metadata=metadata)
        assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await channel.unary_unary(f"{SERVICE}Nothing")(b"", metadata=metadata)
        assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED
        streams = [channel.stream_stream(f"{SERVICE}ModelStreamInfer")(metadata=metadata) for _ in range(100)]
        await streams[0].write(slow_request())
        assert await streams[0].read()
        for stream in streams:
            stream.cancel()
    async with doors.bare() as channel:
        assert await channel.unary_unary(f"{SERVICE}ServerLive")(b"") == b"\x08\x01"
        health = await channel.unary_unary("/grpc.health.v1.Health/Check")(b"")
        assert health == b"\x08\x01"


def test_a_socket_of_the_owner_alone_needs_no_token(tmp_path: Path) -> None:
    """Where mode 0600 lets in nobody else, callers are the daemon's own user. Idle streams do not hold up a stop, which
    removes the socket."""
    onnx_models.mlp(tmp_path / "models" / "mlp" / "1" / "model.onnx")
    place = tmp_path / "g"
    env = {"INFERD_SERVER_SOCKET_MODE": "0600"}
    with (
        Daemon(tmp_path, listen=(f"grpc+unix:{place}?tls=off",), env=env) as daemon,
        triton.InferenceServerClient(f"unix:{place}") as client,
    ):
        assert place.stat().st_mode & 0o777 == 0o600
        np.testing.assert_allclose(client.infer("mlp", [tensor(ROW)]).as_numpy("probabilities"), EXPECTED, atol=0.02)
        answers: queue.Queue[tuple[Any, Any]] = queue.Queue()
        client.start_stream(lambda result, error: answers.put((result, error)))
        client.async_stream_infer("mlp", [tensor(ROW)])
        assert answers.get(timeout=30)[1] is None
        assert daemon.stop(timeout_s=20) == 0
        assert "shutting down" in str(answers.get(timeout=30)[1])
    assert not place.exists()
    assert not Path(f"{place}.lock").exists()
