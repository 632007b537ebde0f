"""Clients that other people wrote: curl, tritonclient (sync and aio), wrk."""

from __future__ import annotations

import json
import re
import shutil
import ssl
import subprocess
from pathlib import Path

import numpy as np
import pytest
import tritonclient.http as triton
import tritonclient.http.aio as triton_aio
from tritonclient.utils import InferenceServerException

from tests import onnx_models
from tests.e2e.conftest import Served
from tests.e2e.daemon import Daemon
from tests.e2e.raw import free_port

ROW = np.linspace(-1, 1, 64, dtype=np.float32)[np.newaxis]
EXPECTED = onnx_models.mlp_reference(ROW)


def curl(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["curl", "-sS", *args], capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_curl_over_the_unix_socket(served: Served) -> None:
    """curl with the CA beside the socket and a token infers; without a CA it refuses to talk."""
    socket, body = (
        str(served.daemon.socket),
        json.dumps({"inputs": [{"name": "x", "shape": [1, 64], "datatype": "FP32", "data": ROW.ravel().tolist()}]}),
    )
    url = "https://localhost/v2/models/mlp/infer"
    done = curl(
        "--unix-socket", socket, "--cacert", str(served.daemon.ca), "-H", f"Authorization: Bearer {served.token}",
        "-d", body, url,
    )  # fmt: skip
    answer = json.loads(done.stdout)
    np.testing.assert_allclose(answer["outputs"][0]["data"], EXPECTED.ravel(), atol=0.02)
    assert curl("--unix-socket", socket, "-d", body, url).returncode == 60


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_the_curl_line_of_the_summary_works(served: Served) -> None:
    """The start-up summary shows a curl line that can be pasted into a shell as it is."""
    [line] = re.findall(r"curl --.*", served.daemon.log())
    done = subprocess.run(["sh", "-c", line], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, line + done.stderr
    assert json.loads(done.stdout)


def tls_options(daemon: Daemon) -> dict[str, object]:
    return {
        "ssl": True,
        "ssl_context_factory": lambda: ssl.create_default_context(cafile=str(daemon.ca)),
        "ssl_options": {},
    }


@pytest.fixture
def sync_client(served: Served) -> triton.InferenceServerClient:
    """tritonclient.http on the TLS listener."""
    return triton.InferenceServerClient(f"127.0.0.1:{served.port}", **tls_options(served.daemon))


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("is_binary", [True, False])
@pytest.mark.parametrize("compression", [None, "gzip", "deflate"])
def test_tritonclient_infers(
    served: Served, sync_client: triton.InferenceServerClient, is_binary: bool, compression: str | None
) -> None:
    """Binary and JSON tensors, compressed or not, in both directions."""
    tensor = triton.InferInput("x", [1, 64], "FP32")
    tensor.set_data_from_numpy(ROW, binary_data=is_binary)
    wanted = [triton.InferRequestedOutput("probabilities", binary_data=is_binary)]
    answer = sync_client.infer(
        "mlp", [tensor], outputs=wanted, request_id="r1", headers={"Authorization": f"Bearer {served.token}"},
        request_compression_algorithm=compression, response_compression_algorithm=compression,
    )  # fmt: skip
    np.testing.assert_allclose(answer.as_numpy("probabilities"), EXPECTED, atol=0.02)
    assert answer.get_response()["id"] == "r1"


@pytest.mark.filterwarnings("default")
def test_tritonclient_reads_everything(served: Served, sync_client: triton.InferenceServerClient) -> None:
    """Health, metadata, configuration, index, statistics, versions."""
    headers = {"Authorization": f"Bearer {served.token}"}
    assert sync_client.is_server_live()
    assert sync_client.is_model_ready("mlp", headers=headers)
    assert not sync_client.is_model_ready("nope", headers=headers)
    assert sync_client.get_server_metadata(headers=headers)["name"] == "inferd"
    metadata = sync_client.get_model_metadata("mlp", headers=headers)
    assert metadata["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, 64]}]
    config = sync_client.get_model_config("mlp", headers=headers)
    assert config["max_batch_size"] > 0
    assert config["input"][0]["dims"] == [64]
    names = {m["name"] for m in sync_client.get_model_repository_index(headers=headers)}
    assert {"mlp", "digits", "versioned"} <= names
    assert sync_client.get_model_metadata("versioned", headers=headers)["versions"] == ["1", "2"]
    assert sync_client.get_model_metadata("versioned", "1", headers=headers)["inputs"][0]["shape"] == [-1, 8]
    [stats] = sync_client.get_inference_statistics("mlp", headers=headers)["model_stats"]
    assert stats["version"] == "1"


@pytest.mark.filterwarnings("default")
def test_tritonclient_loads_and_unloads(served: Served, sync_client: triton.InferenceServerClient) -> None:
    """An administrator's token unloads a model, requests then fail clearly, and load brings it back."""
    headers = {"Authorization": f"Bearer {served.daemon.token('admin', 'infer,read,admin')}"}
    sync_client.unload_model("fixed_batch", headers=headers)
    assert not sync_client.is_model_ready("fixed_batch", headers=headers)
    tensor = triton.InferInput("x", [4, 3], "FP32")
    tensor.set_data_from_numpy(np.ones((4, 3), np.float32))
    with pytest.raises(InferenceServerException):
        sync_client.infer("fixed_batch", [tensor], headers=headers)
    sync_client.load_model("fixed_batch", headers=headers)
    answer = sync_client.infer("fixed_batch", [tensor], headers=headers)
    np.testing.assert_array_equal(answer.as_numpy("y"), np.full((4, 3), 2, np.float32))


@pytest.mark.filterwarnings("default")
def test_tritonclient_sends_strings_and_classifies(served: Served, sync_client: triton.InferenceServerClient) -> None:
    """BYTES tensors survive, and the classification parameter ranks with the model's labels.

    Each call gets its own headers: this client leaves the length of a binary request in the ones it is given.
    """
    texts = np.array([["grüße"], [""], ["x" * 1000]], dtype=np.object_)
    for is_binary in (True, False):
        headers = {"Authorization": f"Bearer {served.token}"}
        tensor = triton.InferInput("x", [3, 1], "BYTES")
        tensor.set_data_from_numpy(texts, binary_data=is_binary)
        wanted = [triton.InferRequestedOutput("y", binary_data=is_binary)]
        answer = sync_client.infer("strings", [tensor], outputs=wanted, headers=headers).as_numpy("y")
        got = [b.decode() if isinstance(b, bytes) else b for b in answer.ravel()]
        assert got == texts.ravel().tolist()
    image = triton.InferInput("image", [1, 1, 8, 8], "FP32")
    image.set_data_from_numpy(np.zeros((1, 1, 8, 8), np.float32))
    ranked = sync_client.infer(
        "digits", [image], outputs=[triton.InferRequestedOutput("probabilities", class_count=3)], headers=headers
    ).as_numpy("probabilities")
    assert ranked.shape == (1, 3)
    assert ranked[0, 0].count(b":") == 2


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("is_binary", [True, False])
async def test_tritonclient_aio_infers(served: Served, is_binary: bool) -> None:
    """The asyncio client, which offers compression that it does not always undo, gets right answers."""
    context = ssl.create_default_context(cafile=str(served.daemon.ca))
    headers = {"Authorization": f"Bearer {served.token}"}
    async with triton_aio.InferenceServerClient(f"127.0.0.1:{served.port}", ssl=True, ssl_context=context) as client:
        assert await client.is_server_ready()
        assert (await client.get_model_metadata("mlp", headers=headers))["name"] == "mlp"
        tensor = triton.InferInput("x", [1, 64], "FP32")
        tensor.set_data_from_numpy(ROW, binary_data=is_binary)
        wanted = [triton.InferRequestedOutput("probabilities", binary_data=is_binary)]
        answer = await client.infer("mlp", [tensor], outputs=wanted, headers=headers)
        np.testing.assert_allclose(answer.as_numpy("probabilities"), EXPECTED, atol=0.02)
        with pytest.raises(InferenceServerException, match="nope"):
            await client.infer("nope", [tensor], headers=headers)


@pytest.mark.skipif(shutil.which("wrk") is None, reason="wrk is not installed")
def test_wrk_sees_no_error(tmp_path: Path) -> None:
    """Two seconds of wrk over plain loopback: every answer is a 200."""
    onnx_models.mlp(tmp_path / "models" / "mlp" / "1" / "model.onnx")
    port = free_port()
    body = json.dumps({"inputs": [{"name": "x", "shape": [1, 64], "datatype": "FP32", "data": ROW.ravel().tolist()}]})
    with Daemon(tmp_path, listen=(f"tcp:127.0.0.1:{port}?tls=off&insecure=on",)) as daemon:
        script = tmp_path / "post.lua"
        script.write_text(
            f"wrk.method = 'POST'\nwrk.body = [[{body}]]\nwrk.headers['Authorization'] = 'Bearer {daemon.token()}'\n"
        )
        done = subprocess.run(
            ["wrk", "-t1", "-c16", "-d2s", "--timeout", "20s", "-s", str(script), f"http://127.0.0.1:{port}/v2/models/mlp/infer"],
            capture_output=True, text=True, timeout=60, check=True,
        )  # fmt: skip
    assert "Non-2xx" not in done.stdout, done.stdout
    assert "Socket errors" not in done.stdout, done.stdout
    assert int(re.search(r"(\d+) requests in", done.stdout)[1]) > 100  # type: ignore[index]
