"""`/v1/embeddings` and `/v1/models` over the real front end, with embedders whose vectors are worked out by hand."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests import onnx_models
from tests.agent.embedding.models import SIZE, embedder, vector
from tests.agent.rest.serving import Reply, Serving

SENTENCE = "the cat sat on the mat"
SENTENCE_IDS = [1, 2, 3, 4, 5, 2, 6]


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """words (mean), first (cls, no mask, truncating) and mlp, which is no embedder."""
    root = tmp_path_factory.mktemp("embedders")
    embedder(root / "words")
    embedder(root / "first", 'pooling = "cls"\ntruncate = true\n', has_mask=False)
    onnx_models.mlp(root / "mlp" / "1" / "model.onnx")
    made = Serving(tmp_path_factory.mktemp("r"), root)
    made.start()
    yield made
    made.stop()


def embed(serving: Serving, text: Any, model: str = "words", **more: Any) -> Reply:
    return serving.post("/v1/embeddings", {"model": model, "input": text, **more})


def vectors(reply: Reply) -> list[Any]:
    assert reply.status == 200, reply.body
    body = reply.json()
    assert [entry["index"] for entry in body["data"]] == list(range(len(body["data"])))
    return [entry["embedding"] for entry in body["data"]]


def test_a_text_becomes_a_vector(serving: Serving) -> None:
    """In OpenAI's shape, to the letter."""
    body = embed(serving, SENTENCE).json()
    np.testing.assert_allclose(body["data"][0].pop("embedding"), vector(SENTENCE_IDS), rtol=1e-5)
    assert body == {
        "object": "list",
        "data": [{"object": "embedding", "index": 0}],
        "model": "words",
        "usage": {"prompt_tokens": 7, "total_tokens": 7},
    }


def test_many_texts_keep_their_order(serving: Serving) -> None:
    """Of all lengths, packed as they fit together: each vector is its own text's."""
    texts = [" ".join(["cat", "dog", "mat"][(number + at) % 3] for at in range(number % 39)) for number in range(300)]
    found = vectors(embed(serving, texts))
    ids = [[1, *({"cat": 3, "dog": 7, "mat": 6}[word] for word in text.split())] for text in texts]
    np.testing.assert_allclose(found, [vector(each) for each in ids], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("given", [SENTENCE_IDS, [SENTENCE_IDS]])
def test_token_ids_are_taken(serving: Serving, given: Any) -> None:
    """One list of ids is one text, as they are."""
    [found] = vectors(embed(serving, given))
    np.testing.assert_allclose(found, vector(SENTENCE_IDS), rtol=1e-5)


def test_base64_is_the_same_vector(serving: Serving) -> None:
    """Little-endian float32."""
    plain, packed = (vectors(embed(serving, ["cat"], encoding_format=form)) for form in ("float", "base64"))
    assert np.frombuffer(base64.b64decode(packed[0]), "<f4").tolist() == plain[0]


def test_cls_without_a_mask_and_truncated(serving: Serving) -> None:
    """Texts of unlike length in one request; what is too long is cut where the model says so."""
    found = vectors(embed(serving, ["the cat", "dog", "cat " * 100], "first"))
    np.testing.assert_allclose(found, [vector([1], "cls")] * 3, rtol=1e-5)
    assert embed(serving, ["cat " * 100], "first").json()["usage"]["prompt_tokens"] == 40


def test_dimensions_only_as_they_are(serving: Serving) -> None:
    """The model's own size is honoured, any other refused with both."""
    assert embed(serving, "cat", dimensions=SIZE).status == 200
    reply = embed(serving, "cat", dimensions=3)
    assert reply.status == 400
    assert reply.json()["error"]["message"] == "dimensions: model 'words' gives 4, which cannot be made 3"


@pytest.mark.parametrize(
    ("body", "status", "told"),
    [
        (b"{", 400, "embeddings: "),
        (b"", 400, "embeddings: "),
        (b'{"model": "words"}', 400, "required field `input`"),
        (b'{"model": "words", "input": []}', 400, "a mix or nothing"),
        (b'{"model": "words", "input": ["cat", 3]}', 400, "a mix or nothing"),
        (b'{"model": "words", "input": [[]]}', 400, "input 0: there is nothing in it"),
        (b'{"model": "words", "input": [-1]}', 400, ">= 0"),
        (b'{"model": "words", "input": [[99]]}', 400, "token 99, the model knows 0 to 7"),
        (b'{"model": "words", "input": "cat", "encoding_format": "hex"}', 400, "hex"),
        (b'{"model": "words", "input": "cat", "dimensions": 0}', 400, ">= 1"),
        (b'{"model": "words", "input": "' + b"cat " * 40 + b'"}', 400, "it has 41 tokens, the model takes 40"),
        (b'{"model": "words", "input": [' + b'"a",' * 2048 + b'"a"]}', 400, "2049 texts, at most 2048"),
        (b'{"model": "mlp", "input": "cat"}', 400, "has no [embedding]"),
        (b'{"model": "nope", "input": "cat"}', 404, "there is no model 'nope'"),
        (b" " * (9 << 20), 413, "at most 8388608 are taken for embeddings"),
    ],
)
def test_refusals_are_told_as_openai_does(serving: Serving, body: bytes, status: int, told: str) -> None:
    """An object with message, type, param and code under `error`; nothing else has this form."""
    reply = serving.post("/v1/embeddings", body)
    assert reply.status == status
    assert reply.headers["content-type"] == "application/json"
    [(key, error)] = reply.json().items()
    assert key == "error"
    assert list(error) == ["message", "type", "param", "code"]
    assert told in error["message"]
    assert error["type"] == "invalid_request_error"
    assert error["code"] == {404: "model_not_found", 413: "request_too_large"}.get(status)


def test_who_may_embed(serving: Serving) -> None:
    """A token is needed, with the scope, for this model."""
    body = {"model": "words", "input": "cat"}
    reply = serving.post("/v1/embeddings", body, tcp=True)
    assert reply.status == 401
    assert reply.json()["error"]["code"] == "invalid_api_key"
    for name, scopes, models, status in (
        ("reader", ("read",), ("*",), 403),
        ("other", ("infer",), ("mlp",), 403),
        ("right", ("infer",), ("w*",), 200),
    ):
        token = serving.tokens.create(name, scopes, models=models)[0]
        serving.identity.reload()
        reply = serving.post("/v1/embeddings", body, {"Authorization": f"Bearer {token}"}, tcp=True)
        assert reply.status == status, reply.body
        if status == 403:
            assert reply.json()["error"]["type"] == "permission_error"
        else:
            listed = serving.get("/v1/models", {"Authorization": f"Bearer {token}"}, tcp=True).json()
            assert listed["models"] == ["words"]


def test_the_list_of_models(serving: Serving) -> None:
    """One object for OpenAI's clients and KServe's."""
    body = serving.get("/v1/models").json()
    assert body["object"] == "list"
    assert body["models"] == [entry["id"] for entry in body["data"]] == ["first", "mlp", "words"]
    assert body["data"][0] == {"id": "first", "object": "model", "created": 0, "owned_by": "inferd"}
    assert serving.post("/v1/models").status == 405


def test_rows_and_requests_are_counted(serving: Serving) -> None:
    """Embeddings are inferences like any other."""

    def rows() -> int:
        return int(serving.get("/v2/models/words/stats").json()["model_stats"][0]["inference_count"])

    before = rows()
    vectors(embed(serving, ["cat"] * 21))
    assert rows() - before == 21


def test_a_deadline_ends_it(serving: Serving) -> None:
    """With everything that it had in flight; the next request is served."""
    reply = serving.post(
        "/v1/embeddings", {"model": "words", "input": ["cat " * 30] * 2000}, {"X-Request-Timeout-Ms": "1"}
    )
    assert reply.status == 504
    assert reply.json()["error"]["type"] == "server_error"
    assert embed(serving, "cat").status == 200


def test_another_tokenizer_is_taken_with_the_model(serving: Serving, tmp_path: Path) -> None:
    """The tokenizer belongs to the content of a model: a load takes both."""
    folder = serving._models / "words"
    file = folder / "tokenizer.json"
    old = file.read_text()
    assert len(embed(serving, [[1]]).json()["data"]) == 1
    file.write_text(old.replace('"cat":3', '"cow":3'))
    try:
        assert serving.post("/v2/repository/models/words/load").status == 200
        np.testing.assert_allclose(vectors(embed(serving, "cow")), [vector([1, 3])], rtol=1e-5)
        np.testing.assert_allclose(vectors(embed(serving, "cat")), [vector([1, 0])], rtol=1e-5)
    finally:
        file.write_text(old)
        assert serving.post("/v2/repository/models/words/load").status == 200
