"""The document that the daemon gives of itself, and what happens when a stranger takes it at its word."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests import onnx_models
from tests.agent.embedding.models import embedder
from tests.e2e.daemon import Daemon
from tests.e2e.raw import free_port

EXAMPLES = 12
CONFORMANCE = [status_code_conformance, content_type_conformance, response_schema_conformance]
# Made-up names only: what these do to a real model keeps it from answering, or the machine busy.
UNNAMED = ("unload", "plan")


class Asked:
    """A daemon on plain loopback, with a token for all that a caller may ask."""

    def __init__(self, port: int, token: str) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.headers = {"Authorization": f"Bearer {token}"}

    def document(self) -> dict[str, Any]:
        request = urllib.request.Request(f"{self.url}/openapi.json", headers=self.headers)
        with urllib.request.urlopen(request, timeout=60) as answer:
            found: dict[str, Any] = json.load(answer)
        return found


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Asked]:
    """mlp and words, an embedder."""
    folder = tmp_path_factory.mktemp("d")
    onnx_models.mlp(folder / "models" / "mlp" / "1" / "model.onnx")
    embedder(folder / "models" / "words")
    port = free_port()
    listen = (f"tcp:127.0.0.1:{port}?tls=off&insecure=on", f"memory+unix:{folder}/m")
    with Daemon(folder, listen=listen, env={"INFERD_SHARED_MEMORY_SYSTEM": "true"}) as daemon:
        yield Asked(port, daemon.token("asker", "infer,read,admin"))


def test_every_reference_leads_somewhere(asked: Asked) -> None:
    """All schemas that are named are there, and the paths of the protocol are, too."""
    document = asked.document()
    text = json.dumps(document)
    for name in set(text.split('"#/components/schemas/')[1:]):
        assert name.partition('"')[0] in document["components"]["schemas"]
    assert {
        "/v2/models/{model}/infer", "/v1/embeddings", "/v2/repository/index", "/v1/models/{model}:predict",
        "/v2/systemsharedmemory/region/{region}/register", "/v2/models/{model}/trace/setting", "/v2/logging",
        "/inferd/v1/memory",
    } <= set(document["paths"])  # fmt: skip
    for path, kind in (("/v2/models/{model}/infer", "RequestBody"), ("/v1/models/{model}:predict", "PredictBody")):
        body = document["paths"][path]["post"]["requestBody"]
        assert body["content"]["application/json"]["schema"] == {"$ref": f"#/components/schemas/{kind}"}


def test_nothing_that_the_document_allows_is_a_server_error(asked: Asked) -> None:
    """Bodies and names made up from the document, a bounded number for each operation: no 5xx, answers as the document
    has them, and all serve on."""
    schema = schemathesis.openapi.from_dict(with_real_names(asked.document()))
    schema.config.update(base_url=asked.url)
    operations = [found.ok() for found in schema.get_all_operations()]
    assert len(operations) > 25
    for operation in operations:
        ask(operation, asked)
    with urllib.request.urlopen(f"{asked.url}/v2/health/ready", timeout=60) as answer:
        assert answer.status == 200


def with_real_names(document: dict[str, Any]) -> dict[str, Any]:
    """The document with names of models that are there."""
    real = {"type": "string", "enum": ["mlp", "words", "gone"]}
    document["components"]["schemas"]["EmbeddingsRequest"]["properties"]["model"] = real
    for path, operations in document["paths"].items():
        for parameter in operations["parameters"]:
            if parameter["name"] == "model" and not path.endswith(UNNAMED):
                parameter["schema"] = real
    return document


def ask(operation: Any, asked: Asked) -> None:
    """Some calls of one operation."""

    @settings(
        max_examples=EXAMPLES, deadline=None, database=None, derandomize=True, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(case=operation.as_strategy())
    def calls(case: Any) -> None:
        answer = case.call(headers=asked.headers, timeout=60)
        known = str(answer.status_code) in operation.definition.raw["responses"]
        assert answer.status_code < 500 or known, (
            operation.method,
            operation.path,
            answer.status_code,
            answer.text[:500],
        )
        case.validate_response(answer, checks=CONFORMANCE)

    calls()
