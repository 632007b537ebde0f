"""A daemon that many tests share, with models of several kinds and a TCP listener beside the Unix socket."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from inferd_agent.demo import MODELS as DEMO_MODELS
from tests import onnx_models
from tests.e2e.daemon import Daemon
from tests.e2e.raw import free_port


@dataclass(frozen=True, slots=True)
class Served:
    """A running daemon, where it listens on TCP, and a token that may infer and read."""

    daemon: Daemon
    port: int
    token: str

    @property
    def https(self) -> str:
        return f"https://127.0.0.1:{self.port}"


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """digits, mlp, slow, no_batch, fixed_batch, strings, wide, faulting, and two versions of versioned."""
    folder = tmp_path_factory.mktemp("d")
    models = folder / "models"
    shutil.copytree(DEMO_MODELS, models)
    onnx_models.mlp(models / "mlp" / "1" / "model.onnx")
    onnx_models.slow(models / "slow" / "1" / "model.onnx")
    onnx_models.no_batch(models / "no_batch" / "1" / "model.onnx")
    onnx_models.fixed_batch(models / "fixed_batch" / "1" / "model.onnx")
    onnx_models.string_identity(models / "strings.onnx")
    onnx_models.dynamic_width(models / "wide.onnx")
    onnx_models.faulting(models / "faulting.onnx")
    (models / "faulting.toml").write_text('engine = "onnxruntime"\n')
    onnx_models.mlp(models / "versioned" / "1" / "model.onnx", features=8)
    onnx_models.mlp(models / "versioned" / "2" / "model.onnx", features=16)
    (models / "versioned" / "model.toml").write_text('versions = "all"\n')
    port = free_port()
    with Daemon(folder, models=models, listen=(f"tcp:127.0.0.1:{port}",)) as daemon:
        yield Served(daemon, port, daemon.token())


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[Daemon]:
    """A daemon of this test's own, not yet started, with one small model `mlp`."""
    onnx_models.mlp(tmp_path / "models" / "mlp" / "1" / "model.onnx")
    daemon = Daemon(tmp_path)
    yield daemon
    daemon.stop()
