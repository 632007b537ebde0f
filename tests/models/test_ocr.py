"""A page of text is read right by the OCR models run directly, float and INT8; the pieces of the reader hold alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests import ocr
from tests.models import int8
from tests.models.fixtures import fetched_models as fetched_models


@pytest.mark.parametrize("file", ["model.onnx", "model.int8.onnx"])
def test_a_page_reads_right(fetched_models: Path, file: str) -> None:
    """Both variants find every line and get at least 98 % of the characters."""
    detector = int8.runner(fetched_models / int8.DETECTOR / "1" / file)
    recogniser = int8.runner(fetched_models / int8.RECOGNISER / "1" / file)
    characters = int8.characters(fetched_models / int8.RECOGNISER / "1" / file)
    lines = ocr.read_page(ocr.draw_page(), detector, recogniser, characters)
    assert len(lines) == len(ocr.PAGE_LINES)
    assert ocr.character_accuracy("\n".join(ocr.PAGE_LINES), "\n".join(lines)) >= 0.98


def test_regions_join_what_touches() -> None:
    """Runs that meet further down are one region; diagonal neighbours are two."""
    mask = np.array([[1, 0, 1, 0, 0], [1, 1, 1, 0, 0], [0, 0, 0, 1, 0]], bool)
    assert ocr.regions(mask) == [ocr.Box(0, 0, 3, 2), ocr.Box(3, 2, 4, 3)]


def test_decoding_merges_repeats_and_drops_blanks() -> None:
    """A blank between equal classes keeps both."""
    best = [1, 1, 0, 1, 2, 2, 0]
    assert ocr.decode(np.eye(3, dtype=np.float32)[best], ["", "a", "b"]) == "aab"


def test_character_accuracy_counts_edits() -> None:
    """One wrong, one missing and one more character are three edits."""
    assert ocr.character_accuracy("abcdefghij", "abcdefghij") == 1.0
    assert ocr.character_accuracy("abcdefghij", "Xbcdefghi") == pytest.approx(0.8)
    assert ocr.character_accuracy("abcdefghij", "abcde-fghij") == pytest.approx(0.9)
