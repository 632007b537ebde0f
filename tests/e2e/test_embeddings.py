"""The openai client embeds with MiniLM, over TLS, plain loopback and a Unix socket, and its vectors are those of the
original weights."""

from __future__ import annotations

import base64
import shutil
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import openai
import pytest
from safetensors.numpy import load_file

from tests.e2e.daemon import Daemon
from tests.e2e.raw import free_port
from tests.models import minilm
from tests.models.fixtures import fetched_models as fetched_models

TEXTS = [
    "That is a happy person",
    "That is a very happy person",
    "Today is a sunny day",
    "word " * 200,
    "",
    "Größe, 大小, 🙂",
]


@dataclass(frozen=True, slots=True)
class Site:
    """A running daemon, its two ports, and a token that may infer."""

    daemon: Daemon
    secure: int
    plain: int
    token: str

    def door(self, kind: str) -> tuple[str, dict[str, Any]]:
        """The base address, and what the client under the client needs."""
        context = ssl.create_default_context(cafile=str(self.daemon.ca))
        match kind:
            case "tls":
                return f"https://127.0.0.1:{self.secure}/v1", {"verify": context}
            case "loopback":
                return f"http://127.0.0.1:{self.plain}/v1", {}
        transport = httpx2.HTTPTransport(uds=str(self.daemon.socket), verify=context)
        return "https://localhost/v1", {"transport": transport}


@pytest.fixture(scope="module")
def site(fetched_models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """minilm, and minilm-int8 from its INT8 file alone."""
    folder = tmp_path_factory.mktemp("d")
    models = folder / "models"
    for name, variant in (("minilm", ""), ("minilm-int8", "int8")):
        shutil.copytree(fetched_models / "minilm", models / name, ignore=shutil.ignore_patterns("weights"))
        settings = models / name / "model.toml"
        settings.write_text(f'variant = "{variant}"\n{settings.read_text()}')
    secure, plain = free_port(), free_port()
    listen = (f"tcp:127.0.0.1:{secure}", f"tcp:127.0.0.1:{plain}?tls=off&insecure=on")
    with Daemon(folder, models=models, listen=listen) as made:
        yield Site(made, secure, plain, made.token("embedder", "infer"))


@pytest.fixture(scope="module")
def expected(fetched_models: Path) -> np.ndarray:
    folder = fetched_models / "minilm"
    weights, tokenizer = load_file(folder / "weights" / "model.safetensors"), minilm.open_tokenizer(folder)
    return np.array([minilm.reference(weights, tokenizer.encode(text).ids) for text in TEXTS])


@pytest.fixture(params=["tls", "loopback", "unix"])
def client(request: pytest.FixtureRequest, site: Site) -> Iterator[openai.OpenAI]:
    """With the token, at each kind of door."""
    base_url, options = site.door(request.param)
    http = openai.DefaultHttpxClient(**options)
    with openai.OpenAI(base_url=base_url, api_key=site.token, http_client=http, max_retries=0) as opened:
        yield opened


@pytest.mark.parametrize(("model", "lowest"), [("minilm", 0.9999), ("minilm-int8", 0.95)])
def test_the_openai_client_gets_the_original_vectors(
    client: openai.OpenAI, expected: np.ndarray, model: str, lowest: float
) -> None:
    """Base64, as this client asks by itself, and numbers; several texts of unlike length in one request."""
    for form in ("base64", "float"):
        answer = client.embeddings.create(model=model, input=TEXTS, encoding_format=form)
        found = [
            each.embedding if form == "float" else np.frombuffer(base64.b64decode(str(each.embedding)), "<f4")
            for each in answer.data
        ]
        assert np.min(np.sum(np.array(found) * expected, axis=1)) >= lowest
        assert answer.usage.prompt_tokens == answer.usage.total_tokens > 200
    by_itself = client.embeddings.create(model=model, input=TEXTS[0]).data[0].embedding
    assert np.dot(by_itself, expected[0]) >= lowest


def test_the_openai_client_understands_what_goes_wrong(client: openai.OpenAI) -> None:
    """Each refusal is the client's own exception, with our text in it."""
    with pytest.raises(openai.NotFoundError, match="there is no model 'nope'") as caught:
        client.embeddings.create(model="nope", input="x")
    assert caught.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError, match="the model takes 256"):
        client.embeddings.create(model="minilm", input="word " * 300)
    with pytest.raises(openai.BadRequestError, match="gives 384, which cannot be made 256"):
        client.embeddings.create(model="minilm", input="x", dimensions=256)
    with pytest.raises(openai.AuthenticationError):
        client.with_options(api_key="ifd_wrong_token").embeddings.create(model="minilm", input="x")


def test_the_openai_client_lists_models(client: openai.OpenAI) -> None:
    """The ones that serve, and each by its name."""
    assert [each.id for each in client.models.list()] == ["minilm", "minilm-int8"]
    found = client.models.retrieve("minilm")
    assert (found.id, found.object, found.owned_by) == ("minilm", "model", "inferd")
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("nope")
