"""The 360 held-out digits: load them, make model inputs of them, draw them in a terminal, count the right answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

FOLDER = Path(__file__).parent
MODELS = FOLDER / "models"
MODEL = "digits"
INPUT = "image"
OUTPUT = "probabilities"
HIGHEST_VALUE = 16
SHADES = " ░▒▓█"


@dataclass(frozen=True, slots=True)
class Digits:
    """Images uint8 [rows, 8, 8] with values 0..16, and their labels uint8 [rows]."""

    images: Array
    labels: Array

    def __len__(self) -> int:
        return len(self.labels)

    def inputs(self) -> Array:
        """What the model takes: FP32 [rows, 1, 8, 8]."""
        return np.ascontiguousarray(self.images[:, None], np.float32)


def held_out() -> Digits:
    """The digits that training never saw."""
    with np.load(FOLDER / "digits_heldout.npz", allow_pickle=False) as stored:
        return Digits(images=stored["images"], labels=stored["labels"])


def draw(image: Array) -> list[str]:
    """One digit as eight lines of sixteen characters, darker for more ink."""
    steps = len(SHADES) - 1
    levels = np.rint(np.asarray(image, np.float64) * steps / HIGHEST_VALUE).astype(int).clip(0, steps)
    return ["".join(SHADES[level] * 2 for level in row) for row in levels.tolist()]


def side_by_side(images: Sequence[Array], captions: Sequence[str], gap: str = "  ") -> str:
    """Digits in a row, each above its caption."""
    pictures = [draw(image) for image in images]
    widths = [max(len(picture[0]), len(caption)) for picture, caption in zip(pictures, captions, strict=True)]
    rows = [*zip(*pictures, strict=True), captions]
    lines = (gap.join(cell.center(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)


def accuracy(probabilities: Array, labels: Array) -> float:
    """Share of rows whose most probable class is the label."""
    return float((probabilities.argmax(axis=1) == labels).mean())
