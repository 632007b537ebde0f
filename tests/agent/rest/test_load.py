"""Answers of inferences tell how busy the daemon is, to callers that ask and may know."""

from __future__ import annotations

import json

from tests.agent.rest.serving import ROW, Serving, infer_bytes

ASK = "endpoint-load-metrics-format"
TOLD = "endpoint-load-metrics"


def test_the_load_is_told_when_asked(served: Serving) -> None:
    """In both forms, on the short way and the long one, and never unasked."""
    for more in ({}, {"Accept-Encoding": "gzip"}):
        reply = served.ask(infer_bytes("mlp", ROW, {ASK: "text", **more}))
        assert (reply.status, reply.headers[TOLD].split("=")[0]) == (200, "TEXT application_utilization")
        told = served.ask(infer_bytes("mlp", ROW, {ASK: "json", **more})).headers[TOLD]
        assert set(json.loads(told.removeprefix("JSON "))) == {"application_utilization", "named_metrics"}
        assert TOLD not in served.ask(infer_bytes("mlp", ROW, more)).headers
        assert TOLD not in served.ask(infer_bytes("mlp", ROW, {ASK: "other", **more})).headers


def test_the_load_is_for_readers(served: Serving) -> None:
    """A caller without the scope `read` gets its answer and no more."""
    for scopes, is_told in ((("infer",), False), (("infer", "read"), True)):
        token, _ = served.tokens.create("-".join(scopes), scopes)
        served.identity.reload()
        reply = served.ask(infer_bytes("mlp", ROW, {ASK: "text", "Authorization": f"Bearer {token}"}), tcp=True)
        assert (reply.status, TOLD in reply.headers) == (200, is_told)
