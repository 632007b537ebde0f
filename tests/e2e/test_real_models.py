"""Real models, served as a user would serve them: a page is read, a file type is named, speech is listened for."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import openvino
import pytest

from tests import ocr
from tests.e2e.daemon import Daemon
from tests.models import int8
from tests.models.fixtures import fetched_models as fetched_models

pytestmark = pytest.mark.timeout(120)
MODELS = (int8.DETECTOR, int8.RECOGNISER, int8.CLASSIFIER, "magika", "silero-vad")


@pytest.fixture(scope="module")
def daemon(fetched_models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon that serves the five real models, the OCR ones in INT8."""
    folder = tmp_path_factory.mktemp("real")
    for name in MODELS:
        shutil.copytree(fetched_models / name, folder / "models" / name)
    with Daemon(folder) as daemon:
        yield daemon


def test_all_are_ready_and_explained(daemon: Daemon) -> None:
    """Every model is READY, says which engine runs it and why, and the OCR models are known to be INT8."""
    with daemon.client() as client:
        found = {d["name"]: d for d in client.descriptions()}
    assert set(found) == set(MODELS)
    for description in found.values():
        assert description["state"] == "READY", description["reason"]
        assert description["plan"]["engine"] in description["plan"]["reason"].lower().replace(" ", "")
    for name in MODELS[:3]:
        assert found[name]["plan"]["variant"] == "int8"
        assert found[name]["quantisation"]["kind"] in ("int8", "mixed")
        assert found[name]["quantisation"]["granularity"] in ("per-channel", "mixed")


def directly(engine: str, path: Path) -> ocr.Run:
    """The model run by its engine's own Python interface, with nothing of ours between."""
    if engine == "onnxruntime":
        return int8.runner(path)
    compiled = openvino.Core().compile_model(path, "CPU")
    return lambda array: np.array(compiled(array)[0])


def test_a_page_reads_the_same_as_run_directly(daemon: Daemon, fetched_models: Path) -> None:
    """Detector and recogniser, served, read what the same files give when their engine is called directly."""
    detector, recogniser = (fetched_models / name / "1" / "model.int8.onnx" for name in MODELS[:2])
    page, characters = ocr.draw_page(), int8.characters(recogniser)
    with daemon.client() as client:
        engines = [client.descriptions(name)[0]["plan"]["engine"] for name in MODELS[:2]]

        def served(model: str) -> ocr.Run:
            [spec] = client.metadata(model)["inputs"]
            return lambda array: next(iter(client.infer(model, {spec["name"]: array}).values()))

        lines = ocr.read_page(page, served(MODELS[0]), served(MODELS[1]), characters)
    runs = [directly(engine, path) for engine, path in zip(engines, (detector, recogniser), strict=True)]
    assert lines == ocr.read_page(page, runs[0], runs[1], characters)
    assert ocr.character_accuracy("\n".join(ocr.PAGE_LINES), "\n".join(lines)) >= 0.98


def test_a_batch_of_lines_reads_as_each_line_alone(daemon: Daemon, fetched_models: Path) -> None:
    """Rows of one request do not disturb each other."""
    page = ocr.draw_page()
    pitch = page.height // len(ocr.PAGE_LINES)
    rows = [page.crop((0, i * pitch, page.width, (i + 1) * pitch)) for i in range(4)]
    batch = np.concatenate([ocr.line_input(row, 640) for row in rows])
    with daemon.client() as client:
        [spec] = client.metadata(int8.RECOGNISER)["inputs"]
        together = next(iter(client.infer(int8.RECOGNISER, {spec["name"]: batch}).values()))
        alone = [next(iter(client.infer(int8.RECOGNISER, {spec["name"]: batch[i : i + 1]}).values())) for i in range(4)]
    characters = int8.characters(fetched_models / int8.RECOGNISER / "1" / "model.int8.onnx")
    assert [ocr.decode(row, characters) for row in together] == [ocr.decode(row[0], characters) for row in alone]


def test_a_model_with_state_and_scalars_runs(daemon: Daemon) -> None:
    """silero-vad has no batch dimension, keeps a state tensor and takes a scalar; silence is not speech."""
    with daemon.client() as client:
        specs = {s["name"]: s for s in client.metadata("silero-vad")["inputs"]}
        inputs = {
            "input": np.zeros((1, 576), np.float32),
            "state": np.zeros((2, 1, 128), np.float32),
            "sr": np.array(16000, np.int64),
        }
        assert set(specs) == set(inputs)
        assert client.config("silero-vad")["max_batch_size"] == 0
        result = client.infer("silero-vad", inputs)
    assert float(result["output"].ravel()[0]) < 0.5


def test_integer_inputs_run(daemon: Daemon) -> None:
    """magika takes bytes as INT32 and gives a distribution over file types."""
    with daemon.client() as client:
        [spec] = client.metadata("magika")["inputs"]
        shape = [1 if dim < 0 else dim for dim in spec["shape"]]
        [scores] = client.infer("magika", {spec["name"]: np.full(shape, 256, np.int32)}).values()
    assert abs(float(scores.sum()) - 1) < 0.05
