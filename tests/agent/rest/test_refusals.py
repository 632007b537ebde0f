"""Each row of the error table, in its one form."""

from __future__ import annotations

import gzip
import re

import numpy as np
import pytest

from inferd_runtime import Job
from tests.agent.rest.serving import ROW, Serving, infer_bytes, infer_parts, read_reply, request

INFER = "/v2/models/mlp/infer"
BODY, HEADERS = infer_parts(ROW)
GZIP = {**HEADERS, "Content-Encoding": "gzip"}

CASES: dict[str, tuple[bytes, int]] = {
    "empty body": (request("POST", INFER), 400),
    "malformed JSON": (request("POST", INFER, b'{"inputs": [}'), 400),
    "deep JSON": (request("POST", INFER, b"[" * 100_000), 400),
    "header length beyond the body": (request("POST", INFER, BODY, {"Inference-Header-Content-Length": "9999"}), 400),
    "header length text": (request("POST", INFER, BODY, {"Inference-Header-Content-Length": "57x"}), 400),
    "wrong shape": (infer_bytes("mlp", ROW[:, :63]), 400),
    "unknown output": (infer_bytes("mlp", ROW, outputs=[{"name": "nope"}]), 400),
    "unknown model": (infer_bytes("nope", ROW), 404),
    "unknown path": (request("GET", "/v3/models"), 404),
    "trailing slash": (request("GET", "/v2/models/mlp/"), 404),
    "empty name": (request("GET", "/v2/models//ready"), 404),
    "name that is not UTF-8": (request("GET", "/v2/models/%ff"), 400),
    "name with a line end": (request("GET", "/v2/models/a%0d%0ab"), 400),
    "wrong method": (request("GET", INFER), 405),
    "GET never changes state": (request("GET", "/v2/repository/models/mlp/unload"), 405),
    "too large": (request("POST", INFER, b"", {"Content-Length": str(1 << 40)}), 413),
    "br": (request("POST", INFER, BODY, {**HEADERS, "Content-Encoding": "br"}), 415),
    "gzip garbage": (request("POST", INFER, BODY, GZIP), 400),
    "gzip cut short": (request("POST", INFER, gzip.compress(BODY)[:-9], GZIP), 400),
    "gzip with a tail": (request("POST", INFER, gzip.compress(BODY) + b"x", GZIP), 400),
    "inflate bomb": (request("POST", INFER, gzip.compress(bytes(64 << 20)), {"Content-Encoding": "gzip"}), 413),
    "load with parameters": (request("POST", "/v2/repository/models/mlp/load", b'{"parameters":{"config":"{}"}}'), 501),
    "load of nobody": (request("POST", "/v2/repository/models/nobody/load"), 404),
    "load in a named repository": (request("POST", "/v2/repository/r/models/mlp/load"), 501),
    "unload in a named repository": (request("POST", "/v2/repository/r/models/mlp/unload", b"{}"), 501),
    "statistics of nobody": (request("GET", "/v2/models/nobody/stats"), 404),
    "odd expectation": (request("POST", INFER, b"", {"Content-Length": "9", "Expect": "tea"}), 400),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_refusals(served: Serving, case: str) -> None:
    """Status, exact content type, one field, a request id; and the next request is served."""
    data, status = CASES[case]
    reply = served.ask(data)
    assert reply.status == status, reply.body
    assert reply.error
    assert reply.headers["x-request-id"]
    assert served.ask(infer_bytes("mlp", ROW)).status == 200


@pytest.mark.parametrize("case", [c for c in CASES if CASES[c][1] not in (413,) and "expect" not in c])
def test_the_connection_survives_where_it_can(served: Serving, case: str) -> None:
    """After a refusal whose body's end is known, the same connection serves on."""
    with served.connected() as connection:
        connection.sendall(CASES[case][0])
        assert "connection" not in read_reply(connection).headers
        connection.sendall(infer_bytes("mlp", ROW))
        assert read_reply(connection).status == 200


def test_allow_and_retry(served: Serving) -> None:
    """405 says what is allowed; 415 what is spoken."""
    assert "POST" in served.ask(CASES["wrong method"][0]).headers["allow"]
    assert "gzip" in served.ask(CASES["br"][0]).headers["accept-encoding"]


def test_head_and_options(served: Serving) -> None:
    """HEAD tells the length and sends nothing; OPTIONS tells the methods."""
    length = served.get("/v2/health/live").headers["content-length"]
    with served.connected() as connection:
        connection.sendall(request("HEAD", "/v2/health/live") + request("OPTIONS", INFER))
        data = b""
        while data.count(b"\r\n\r\n") < 2:
            data += connection.recv(65536)
    first, second, rest = data.split(b"\r\n\r\n")
    assert first.startswith(b"HTTP/1.1 200")
    assert f"Content-Length: {length}".encode() in first
    assert second.startswith(b"HTTP/1.1 204")
    assert b"Allow: POST" in second
    assert rest == b""


def test_who_may(served: Serving) -> None:
    """No token 401 with the scheme, wrong scope or model 403, a token for it 200; health is open."""
    assert served.get("/v2/health/live", tcp=True).json() == {"live": True}
    nobody = served.ask(infer_bytes("mlp", ROW), tcp=True)
    assert (nobody.status, nobody.headers["www-authenticate"][:6]) == (401, "Bearer")
    token, _ = served.tokens.create("narrow", ("infer",), models=("ml*",))
    served.identity.reload()
    bearer = {"Authorization": f"Bearer {token}"}
    assert served.ask(infer_bytes("mlp", ROW, bearer), tcp=True).status == 200
    assert served.ask(infer_bytes("wide", ROW, bearer), tcp=True).status == 403
    assert served.post("/v2/repository/models/mlp/unload", b"", bearer, tcp=True).status == 403
    assert served.get("/metrics", bearer, tcp=True).status == 403
    assert served.get("/v2/models/mlp/ready", bearer, tcp=True).status == 200
    reader, _ = served.tokens.create("reader", ("read",), models=("ml*",))
    served.identity.reload()
    bearer = {"Authorization": f"Bearer {reader}"}
    listed = served.post("/v2/repository/index", b"", bearer, tcp=True).json()
    assert {entry["name"] for entry in listed} == {"mlp"}
    assert served.get("/v2/models/stats", bearer, tcp=True).json()["model_stats"][0]["name"] == "mlp"


def test_a_tokens_rate_and_priority_count(served: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its jobs carry its priority; what is over its rate is refused with the time to come back."""
    token, _ = served.tokens.create("urgent", ("infer",), rate_per_s=0.1, burst=1, priority=7)
    served.identity.reload()
    seen: list[int] = []
    submit = served.runtime.submit

    def spy(job: Job) -> None:
        seen.append(job.priority)
        submit(job)

    monkeypatch.setattr(served.runtime, "submit", spy)
    data = infer_bytes("mlp", ROW, {"Authorization": f"Bearer {token}"})
    assert (served.ask(data).status, seen) == (200, [7])
    reply = served.ask(data)
    assert (reply.status, "over the rate of 0.1 requests/s" in reply.error) == (429, True)
    assert 1 <= int(reply.headers["retry-after"]) <= 10


def test_strangers_bodies_are_not_read(served: Serving) -> None:
    """Who may not is refused before the body: the answer comes though no byte of it was sent."""
    with served.connected(tcp=True) as connection:
        connection.sendall(request("POST", INFER, b"", {"Content-Length": "1000000"}))
        reply = read_reply(connection)
        assert (reply.status, reply.headers["connection"]) == (401, "close")


def test_unknown_errors_are_bare(served: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bug answers 500 with the request id and nothing of itself."""

    def fail(*_: object) -> None:
        raise RuntimeError("secret")

    monkeypatch.setattr(served.runtime, "models", fail)
    reply = served.post("/v2/repository/index")
    assert reply.status == 500
    assert "secret" not in reply.error
    assert reply.headers["x-request-id"] in reply.error


def test_large_answers_are_whole(served: Serving) -> None:
    """A megabyte goes in and out unharmed."""
    array = np.random.default_rng(0).normal(size=(1, 1 << 18)).astype(np.float32)
    reply = served.ask(infer_bytes("wide", array, outputs=[{"name": "y", "parameters": {"binary_data": True}}]))
    assert reply.status == 200
    length = int(re.search(r"\d+", reply.headers["inference-header-content-length"])[0])  # type: ignore[index]
    np.testing.assert_array_equal(np.frombuffer(reply.body[length:], np.float32).reshape(1, -1), array + np.float32(1))
