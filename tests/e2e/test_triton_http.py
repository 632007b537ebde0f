"""tritonclient over HTTP, sync and asyncio, with TLS and a token and over plain loopback, the asyncio one over a Unix
socket, too: everything it can ask."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import aiohttp
import numpy as np
import pytest
import tritonclient.http as triton
import tritonclient.http.aio as triton_aio
from tritonclient.utils import InferenceServerException

from tests import onnx_models
from tests.e2e.daemon import Daemon
from tests.e2e.raw import free_port

pytestmark = pytest.mark.filterwarnings("default")

CONFIG = """
name: "ranked"
platform: "onnxruntime_onnx"
max_batch_size: 4
input [ { name: "x" data_type: TYPE_FP32 dims: [ 8 ] } ]
output [ { name: "probabilities" data_type: TYPE_FP32 dims: [ 3 ] label_filename: "names.txt" } ]
dynamic_batching { }
model_warmup [ { name: "w" } ]
"""


@dataclass(frozen=True, slots=True)
class Site:
    """A daemon, its two ports, and tokens."""

    daemon: Daemon
    ports: dict[str, int]
    token: str
    admin: str

    def options(self, way: str) -> dict[str, Any]:
        """How the sync client connects."""
        if way == "plain":
            return {}
        return {"ssl": True, "ssl_context_factory": self.context, "ssl_options": {}}

    def context(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.daemon.ca))

    def headers(self, *, admin: bool = False) -> dict[str, str]:
        """Fresh ones: the client writes into what it is given."""
        return {"Authorization": f"Bearer {self.admin if admin else self.token}"}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """An identity model, a Triton model folder, versions, and one that can fail."""
    folder = tmp_path_factory.mktemp("t")
    models = folder / "models"
    onnx_models.identity(models / "same.onnx", "FP32", ("N", "W"))
    onnx_models.mlp(models / "ranked" / "1" / "model.onnx", features=8, classes=3)
    (models / "ranked" / "config.pbtxt").write_text(CONFIG)
    (models / "ranked" / "names.txt").write_text("cat\ndog\nfox\n")
    for version in (1, 2):
        onnx_models.mlp(models / "both" / str(version) / "model.onnx", features=8 * version)
    (models / "both" / "config.pbtxt").write_text("version_policy { all { } }")
    onnx_models.faulting(models / "faulting.onnx")
    (models / "faulting.toml").write_text('engine = "onnxruntime"\n')
    ports = {"tls": free_port(), "plain": free_port()}
    listen = (
        f"tcp:127.0.0.1:{ports['tls']}",
        f"tcp:127.0.0.1:{ports['plain']}?tls=off&insecure=on",
        f"unix:{folder}/plain?tls=off",
    )
    with Daemon(folder, models=models, listen=listen) as daemon:
        yield Site(daemon, ports, daemon.token(), daemon.token("admin", "infer,read,admin"))


@pytest.fixture(params=["tls", "plain"])
def client(site: Site, request: pytest.FixtureRequest) -> Iterator[triton.InferenceServerClient]:
    """The sync client, each way."""
    found = triton.InferenceServerClient(f"127.0.0.1:{site.ports[request.param]}", **site.options(request.param))
    yield found
    found.close()


def tensor(name: str, array: np.ndarray, datatype: str, *, is_binary: bool = True) -> triton.InferInput:
    """One input."""
    found = triton.InferInput(name, list(array.shape), datatype)
    found.set_data_from_numpy(array, binary_data=is_binary)
    return found


def test_versions(site: Site, client: triton.InferenceServerClient) -> None:
    """A named version answers, the highest where none is named; config.pbtxt asked for all."""
    assert client.get_model_metadata("both", headers=site.headers())["versions"] == ["1", "2"]
    for version, width in (("1", 8), ("2", 16), ("", 16)):
        inputs = [tensor("x", np.zeros((1, width), np.float32), "FP32")]
        answer = client.infer("both", inputs, model_version=version, headers=site.headers())
        assert answer.get_response()["model_version"] == (version or "2")


def test_a_model_folder_of_tritons(site: Site, client: triton.InferenceServerClient) -> None:
    """Its configuration comes back, its labels rank, its batch is the limit, and what does not map was warned of."""
    config = client.get_model_config("ranked", headers=site.headers())
    assert (config["platform"], config["backend"], config["max_batch_size"]) == ("onnxruntime_onnx", "onnxruntime", 4)
    assert config["output"][0]["label_filename"] == "names.txt"
    assert config["input"][0] == {
        "name": "x", "data_type": "TYPE_FP32", "dims": [8], "label_filename": "", "is_shape_tensor": False,
        "allow_ragged_batch": False, "optional": False,
    }  # fmt: skip
    assert config["model_transaction_policy"] == {"decoupled": False}
    wanted = [triton.InferRequestedOutput("probabilities", class_count=5)]
    inputs = [tensor("x", np.ones((2, 8), np.float32), "FP32")]
    ranked = client.infer("ranked", inputs, outputs=wanted, headers=site.headers()).as_numpy("probabilities")
    assert ranked.shape == (2, 3)
    assert {each.split(b":")[2] for each in ranked[0]} == {b"cat", b"dog", b"fox"}
    with pytest.raises(InferenceServerException, match="1 to 4"):
        client.infer("ranked", [tensor("x", np.ones((5, 8), np.float32), "FP32")], headers=site.headers())
    assert "config.pbtxt is followed, but not in this: model_warmup" in site.daemon.log()


def test_parameters(site: Site, client: triton.InferenceServerClient) -> None:
    """Priority and timeout are taken, a deadline that passed is 504, sequences and reserved names are refused."""
    inputs = [tensor("x", np.ones((1, 8), np.float32), "FP32")]
    client.infer("ranked", inputs, priority=3, timeout=5_000_000, headers=site.headers(), parameters={"mine": "x"})
    for more, status, text in (
        ({"sequence_id": 7, "sequence_start": True}, "400", "sequences are not supported"),
        ({"sequence_id": "a"}, "400", "sequences are not supported"),
        ({"timeout": 1}, "504", "deadline"),
    ):
        with pytest.raises(InferenceServerException, match=text) as caught:
            client.infer("ranked", inputs, headers=site.headers(), **more)  # type: ignore[arg-type]
        assert caught.value.status() == status


@pytest.mark.parametrize(
    ("model", "name", "shape", "datatype", "version", "status"),
    [
        ("nobody", "x", (1, 8), "FP32", "", "404"),
        ("ranked", "x", (1, 8), "FP32", "9", "404"),
        ("ranked", "z", (1, 8), "FP32", "", "400"),
        ("ranked", "x", (1, 9), "FP32", "", "400"),
        ("ranked", "x", (8,), "FP32", "", "400"),
        ("ranked", "x", (1, 8), "FP64", "", "400"),
        ("faulting", "index", (1, 1), "INT64", "", "500"),
    ],
)
def test_errors_have_the_right_code(
    site: Site, client: triton.InferenceServerClient, model: str, name: str, shape: tuple[int, ...], datatype: str,
    version: str, status: str,
) -> None:  # fmt: skip
    """Unknown names, wrong shapes and types, and an engine that fails."""
    array = np.full(shape, 99, onnx_models.DATATYPES[datatype])
    with pytest.raises(InferenceServerException) as caught:
        client.infer(model, [tensor(name, array, datatype)], model_version=version, headers=site.headers())
    assert caught.value.status() == status
    assert caught.value.message()


def test_tokens(site: Site, client: triton.InferenceServerClient) -> None:
    """No token is 401, one without the scope 403."""
    for headers, status in (({}, "401"), ({"Authorization": "Bearer x"}, "401"), (site.headers(), "403")):
        with pytest.raises(InferenceServerException) as caught:
            client.unload_model("ranked", headers=headers)
        assert caught.value.status() == status


def test_repository_control(site: Site, client: triton.InferenceServerClient) -> None:
    """Unloaded is told in the index, refuses, and loads again; unknown models are told apart."""
    admin = site.headers(admin=True)
    client.unload_model("same", headers=admin)
    index = {each["name"]: each for each in client.get_model_repository_index(headers=site.headers())}
    assert index["same"]["state"] == "UNAVAILABLE"
    assert not client.is_model_ready("same", headers=site.headers())
    with pytest.raises(InferenceServerException) as caught:
        client.infer("same", [tensor("x", np.ones((1, 3), np.float32), "FP32")], headers=site.headers())
    assert caught.value.status() == "503"
    client.load_model("same", headers=admin)
    assert client.is_model_ready("same", headers=site.headers())
    with pytest.raises(InferenceServerException, match="nobody"):
        client.load_model("nobody", headers=admin)


def test_settings_are_told_and_stay(site: Site, client: triton.InferenceServerClient) -> None:
    """Traces and logs: what is so already may be said again, all else is set elsewhere."""
    assert client.get_trace_settings(headers=site.headers())["trace_level"] == ["OFF"]
    assert client.get_trace_settings("ranked", headers=site.headers())["trace_count"] == "-1"
    assert client.get_log_settings(headers=site.headers())["log_file"] == ""
    client.update_trace_settings(settings={"trace_level": ["OFF"]}, headers=site.headers())
    client.update_log_settings({"log_format": "default"}, headers=site.headers())
    with pytest.raises(InferenceServerException, match="not traced"):
        client.update_trace_settings(settings={"trace_level": ["TIMESTAMPS"]}, headers=site.headers())
    with pytest.raises(InferenceServerException, match=r"log\.level") as caught:
        client.update_log_settings({"log_verbose_level": 3}, headers=site.headers())
    assert caught.value.status() == "501"


def counters(client: triton.InferenceServerClient, site: Site, model: str) -> dict[str, Any]:
    """The statistics of one model."""
    [found] = client.get_inference_statistics(model, headers=site.headers())["model_stats"]
    return dict(found)


def test_statistics_add_up(site: Site, client: triton.InferenceServerClient) -> None:
    """After successes, failures, late ones and refusals side by side: requests are successes or failures, batches make
    up the runs, and the runs the rows."""
    before = counters(client, site, "faulting")
    good, bad, late, malformed = 40, 12, 8, 5

    def ask(kind: str, rows: int) -> None:
        own = triton.InferenceServerClient(f"127.0.0.1:{site.ports['plain']}")
        index = np.full((rows, 1), 99 if kind == "bad" else 3, np.int64)
        inputs = [tensor("wrong" if kind == "malformed" else "index", index, "INT64")]
        more = {"timeout": 1} if kind == "late" else {}
        with suppress(InferenceServerException):
            own.infer("faulting", inputs, headers=site.headers(), **more)
        own.close()

    kinds = ["good"] * good + ["bad"] * bad + ["late"] * late + ["malformed"] * malformed
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(ask, kinds[::2] + kinds[1::2], [1 + i % 3 for i in range(len(kinds))]))
    after = counters(client, site, "faulting")
    now, then = after["inference_stats"], before["inference_stats"]
    assert now["success"]["count"] - then["success"]["count"] == good
    assert now["fail"]["count"] - then["fail"]["count"] == bad + late
    for stage in ("queue", "compute_input", "compute_infer", "compute_output"):
        assert now[stage]["count"] == now["success"]["count"]
    batches = after["batch_stats"]
    assert sum(each["compute_infer"]["count"] for each in batches) == after["execution_count"]
    assert sum(each["compute_infer"]["count"] * each["batch_size"] for each in batches) == after["inference_count"]
    assert now["success"]["ns"] >= now["compute_infer"]["ns"]


async def asyncio_client(site: Site, way: str) -> triton_aio.InferenceServerClient:
    """Each way; it has no option for Unix sockets, so its session is exchanged for one that has."""
    if way == "unix":
        found = triton_aio.InferenceServerClient("localhost")
        await found._stub.close()
        connector = aiohttp.UnixConnector(str(site.daemon.folder / "plain"))
        found._stub = aiohttp.ClientSession(connector=connector, auto_decompress=False)
        return found
    context = await asyncio.to_thread(site.context)
    options: dict[str, Any] = {"ssl": True, "ssl_context": context} if way == "tls" else {}
    return triton_aio.InferenceServerClient(f"127.0.0.1:{site.ports[way]}", **options)


@pytest.mark.parametrize("way", ["tls", "plain", "unix"])
async def test_the_asyncio_client(site: Site, way: str) -> None:
    """Health, metadata, configuration, many inferences at once, compression, errors."""
    async with await asyncio_client(site, way) as client:
        assert await client.is_server_live()
        assert await client.is_model_ready("ranked", headers=site.headers())
        assert (await client.get_model_config("ranked", headers=site.headers()))["max_batch_size"] == 4
        assert (await client.get_model_metadata("both", "1", headers=site.headers()))["versions"] == ["1"]

        async def echo(number: int) -> None:
            array = np.full((1, 3), number, np.float32)
            encoding = (None, "gzip", "deflate")[number % 3]
            answer = await client.infer(
                "same", [tensor("x", array, "FP32", is_binary=number % 2 == 0)], headers=site.headers(),
                request_compression_algorithm=encoding, response_compression_algorithm=encoding,
            )  # fmt: skip
            np.testing.assert_array_equal(answer.as_numpy("y"), array)

        await asyncio.gather(*(echo(number) for number in range(30)))
        with pytest.raises(InferenceServerException) as caught:
            await client.infer("nobody", [tensor("x", np.ones((1, 1), np.float32), "FP32")], headers=site.headers())
        assert caught.value.status() == "404"
