"""Bad callers and bad requests get a clear refusal, and the daemon serves on."""

from __future__ import annotations

import json
import shutil
import subprocess

import numpy as np
import pytest

from inferd.errors import EngineFault, Forbidden, Unauthenticated
from tests.e2e.conftest import Served
from tests.e2e.daemon import until
from tests.e2e.raw import answer, connected, infer_bytes, request

ROW = np.zeros((1, 64), np.float32)


def ask(served: Served, data: bytes) -> tuple[int, dict[str, str], bytes]:
    """Send raw bytes over TLS on TCP and read one answer."""
    with connected(("127.0.0.1", served.port), served.daemon.ca) as connection:
        connection.sendall(data)
        return answer(connection)


def auth(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


@pytest.mark.parametrize(
    "header", [{}, auth("ifd_nobody_" + "A" * 43), auth("nonsense"), {"Authorization": "Basic eDp5"}]
)
def test_unknown_callers_get_401(served: Served, header: dict[str, str]) -> None:
    """Over TCP nothing but a valid token is somebody, and the answer says which scheme is spoken."""
    status, headers, body = ask(served, infer_bytes("mlp", "x", ROW, header))
    assert status == 401
    assert headers["www-authenticate"].startswith("Bearer")
    assert "error" in json.loads(body)


def test_health_is_open(served: Served) -> None:
    """A stranger learns whether the daemon lives and is ready, and nothing else."""
    assert ask(served, request("GET", "/v2/health/live"))[0] == 200
    assert ask(served, request("GET", "/v2/health/ready"))[0] == 200
    for path in ("/v2", "/v2/models/mlp", "/v2/models/stats", "/metrics", "/inferd/v1/models"):
        assert ask(served, request("GET", path))[0] == 401, path


def test_wrong_scope_is_403(served: Served) -> None:
    """A token that may only read cannot infer, and one that may only infer cannot unload."""
    reader = served.daemon.token("reader", "read")
    status, _, body = ask(served, infer_bytes("mlp", "x", ROW, auth(reader)))
    assert status == 403
    assert "infer" in json.loads(body)["error"]
    caller = served.daemon.token("caller", "infer")
    assert ask(served, request("POST", "/v2/repository/models/mlp/unload", b"{}", auth(caller)))[0] == 403


def test_other_models_are_403(served: Served) -> None:
    """A token for some models does not reach the others, and does not see them in the index."""
    token = served.daemon.token("narrow", "infer,read", "--models", "dig*")
    with served.daemon.client(served.https, token=token) as client:
        assert {m["name"] for m in client.index()} == {"digits"}
        with pytest.raises(Forbidden):
            client.infer("mlp", {"x": ROW})


def test_expired_and_revoked_tokens_are_401(served: Served) -> None:
    """A token is worth nothing after its expiry, or once it is revoked, without a restart."""
    daemon = served.daemon
    brief = daemon.token("brief", "infer", "--expires", "8s")
    with daemon.client(served.https, token=brief) as client:
        client.infer("mlp", {"x": ROW})
        with pytest.raises(Unauthenticated, match="expired"):
            until(lambda: not client.infer("mlp", {"x": ROW}))
    token = daemon.token("gone", "infer")
    with daemon.client(served.https, token=token) as client:
        client.infer("mlp", {"x": ROW})
        token_id = token.split("_")[1]
        assert daemon.cli("token", "revoke", token_id, "--state", str(daemon.state)).returncode == 0
        with pytest.raises(Unauthenticated):
            until(lambda: not client.infer("mlp", {"x": ROW}))


def header_and(tensor: object, body: bytes = b"", model: str = "mlp", **more: object) -> bytes:
    """An infer request whose JSON says whatever we like."""
    header = json.dumps({"inputs": [tensor], **more}).encode()
    return request(
        "POST", f"/v2/models/{model}/infer", header + body, {"Inference-Header-Content-Length": str(len(header))}
    )


def binary(shape: list[int], size: int, name: str = "x", datatype: str = "FP32") -> dict[str, object]:
    return {"name": name, "shape": shape, "datatype": datatype, "parameters": {"binary_data_size": size}}


BAD_BODIES = {
    "malformed JSON": (request("POST", "/v2/models/mlp/infer", b'{"inputs": [}'), 400),
    "empty body": (request("POST", "/v2/models/mlp/infer", b"", {"Content-Length": "0"}), 400),
    "not an object": (request("POST", "/v2/models/mlp/infer", b"[1,2]"), 400),
    "deep JSON": (request("POST", "/v2/models/mlp/infer", b"[" * 100_000), 400),
    "header longer than body": (
        request("POST", "/v2/models/mlp/infer", b"{}", {"Inference-Header-Content-Length": "100"}), 400),
    "header length text": (
        request("POST", "/v2/models/mlp/infer", b"{}", {"Inference-Header-Content-Length": "2x"}), 400),
    "negative header length": (
        request("POST", "/v2/models/mlp/infer", b"{}", {"Inference-Header-Content-Length": "-1"}), 400),
    "missing bytes": (header_and(binary([1, 64], 256), b"\0" * 255), 400),
    "left-over bytes": (header_and(binary([1, 64], 256), b"\0" * 257), 400),
    "size against shape": (header_and(binary([1, 64], 255), b"\0" * 255), 400),
    "wrong name": (header_and(binary([1, 64], 256, name="y"), b"\0" * 256), 400),
    "wrong datatype": (header_and(binary([1, 64], 512, datatype="FP64"), b"\0" * 512), 400),
    "unknown datatype": (header_and(binary([1, 64], 256, datatype="FLOAT"), b"\0" * 256), 400),
    "wrong shape": (header_and(binary([1, 63], 252), b"\0" * 252), 400),
    "wrong rank": (header_and(binary([64], 256), b"\0" * 256), 400),
    "negative dimension": (header_and(binary([-1, 64], 256), b"\0" * 256), 400),
    "overflowing shape": (header_and(binary([2**62, 4], 0)), 400),
    "terabytes": (header_and({"name": "x", "shape": [1, 2**40], "datatype": "FP32", "data": [1, 2, 3, 4]}), 400),
    "huge dimension": (header_and(binary([10**30, 64], 256), b"\0" * 256), 400),
    "too many rows": (header_and(binary([5000, 64], 5000 * 256), b"\0" * (5000 * 256)), 400),
    "unknown output": (header_and(binary([1, 64], 256), b"\0" * 256, outputs=[{"name": "nope"}]), 400),
    "unknown model": (header_and(binary([1, 64], 256), b"\0" * 256, model="nope"), 404),
    "unknown encoding": (request("POST", "/v2/models/mlp/infer", b"{}", {"Content-Encoding": "br"}), 415),
    "gzip garbage": (request("POST", "/v2/models/mlp/infer", b"{}", {"Content-Encoding": "gzip"}), 400),
    "over the limit": (request("POST", "/v2/models/mlp/infer", b"", {"Content-Length": str(1 << 40)}), 413),
    "unknown path": (request("GET", "/v3"), 404),
    "wrong method": (request("GET", "/v2/models/mlp/infer"), 405),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_BODIES)
def test_bad_requests_are_refused(served: Served, case: str) -> None:
    """Each bad request gets its status and a JSON error, and the next good request is answered."""
    data, expected = BAD_BODIES[case]
    head, _, rest = data.partition(b"\r\n")
    status, headers, body = ask(served, head + f"\r\nAuthorization: Bearer {served.token}\r\n".encode() + rest)
    assert status == expected, body
    assert headers["content-type"] == "application/json"
    assert list(json.loads(body)) == ["error"]
    assert ask(served, infer_bytes("mlp", "x", ROW, auth(served.token)))[0] == 200


def test_errors_name_what_is_wrong(served: Served) -> None:
    """The message names the input, what was expected and what came."""
    data = header_and(binary([1, 63], 252), b"\0" * 252).replace(
        b"\r\n", f"\r\nAuthorization: Bearer {served.token}\r\n".encode(), 1
    )
    text = json.loads(ask(served, data)[2])["error"]
    assert "x" in text
    assert "[-1,64]" in text
    assert "[1,63]" in text


def test_a_fault_in_the_engine_is_a_500_for_its_request_only(served: Served) -> None:
    """A value that makes the engine fail is told in the engine's own words and harms nobody else."""
    good, bad = np.zeros((1, 1), np.int64), np.full((1, 1), 10_000, np.int64)
    with served.daemon.client() as client:
        client.infer("faulting", {"index": good})
        with pytest.raises(EngineFault, match=r"(?i)index|bounds|range"):
            client.infer("faulting", {"index": bad})
        client.infer("faulting", {"index": good})


def test_garbage_on_the_port_harms_nobody(served: Served) -> None:
    """Plain text to the TLS port, and TLS noise to it, end in a closed connection."""
    for noise in (b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x02\x00" + b"\xff" * 512, b"\0" * 64):
        with connected(("127.0.0.1", served.port)) as connection:
            connection.sendall(noise)
            while connection.recv(4096):
                pass
    assert ask(served, request("GET", "/v2/health/live"))[0] == 200


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
def test_old_tls_is_refused(served: Served) -> None:
    """Only TLS 1.3 is spoken."""
    done = subprocess.run(
        ["openssl", "s_client", "-connect", f"127.0.0.1:{served.port}", "-tls1_2"],
        input=b"", capture_output=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode != 0
    assert b"New, TLSv1.2" not in done.stdout
