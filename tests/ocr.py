"""Read a page with a PP-OCRv4 detector and recogniser, whoever runs them: pre- and post-processing in numpy and Pillow.

`read_page` takes two callables, array to array, so that one test can run the same models through inferd and directly.
Text is taken to be upright and horizontal: every connected region of the detector's map becomes one upright box.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

Array = np.ndarray[Any, Any]
Run = Callable[[Array], Array]

PAGE_LINES = (
    "The daemon runs on the machine in front of you.",
    "It reads a page of text in two steps: the first model",
    "finds where the lines are, the second one reads them.",
    "Eight bits are enough for both, if the scales are right.",
    "Order 66 was shipped on 14 March 2025 for $1,280.50.",
    "Nothing on this page leaves the room it is read in.",
)
THRESHOLD = 0.3
LEAST_SCORE = 0.5
LEAST_SIDE = 3
UNCLIP = 1.6
LINE_HEIGHT = 48
WIDTH_STEP = 32
SPACE = " "


@dataclass(frozen=True, slots=True)
class Box:
    """An upright box in pixels of the page; right and bottom are outside."""

    left: int
    top: int
    right: int
    bottom: int


def draw_page(
    lines: tuple[str, ...] = PAGE_LINES, size: int = 26, ink: str = "#141418", paper: str = "white"
) -> Image.Image:
    """The lines of text on paper, the same pixels every time."""
    font = ImageFont.load_default(size=size)
    width = 2 * size + max(int(font.getlength(line)) for line in lines)
    pitch = 2 * size
    page = Image.new("RGB", (width, pitch * len(lines) + size), paper)
    pen = ImageDraw.Draw(page)
    for row, line in enumerate(lines):
        pen.text((size, size // 2 + row * pitch), line, font=font, fill=ink)
    return page


def read_page(page: Image.Image, run_det: Run, run_rec: Run, characters: list[str]) -> list[str]:
    """The lines of text on the page, from top to bottom."""
    boxes = find_boxes(page, run_det)
    return [decode(run_rec(line_input(crop(page, box)))[0], characters) for box in boxes]


def find_boxes(page: Image.Image, run_det: Run) -> list[Box]:
    """Boxes around the lines of text, from top to bottom."""
    score = run_det(page_input(page))[0, 0]
    scale_y, scale_x = page.height / score.shape[0], page.width / score.shape[1]
    boxes = [unclip(box) for box in regions(score > THRESHOLD) if is_text(score, box)]
    return [
        Box(
            max(0, round(box.left * scale_x)),
            max(0, round(box.top * scale_y)),
            min(page.width, round(box.right * scale_x)),
            min(page.height, round(box.bottom * scale_y)),
        )
        for box in sorted(boxes, key=lambda box: (box.top, box.left))
    ]


def page_input(page: Image.Image) -> Array:
    """The detector's input: both sides rounded to multiples of 32, blue first, -1..1, [1, 3, height, width]."""
    sides = [max(32, round(side / 32) * 32) for side in page.size]
    return planes(page.resize((sides[0], sides[1]), Image.Resampling.BILINEAR))[None]


def planes(image: Image.Image) -> Array:
    """An image as float32 planes, blue first, values -1..1."""
    pixels = np.asarray(image.convert("RGB"), np.float32)[:, :, ::-1]
    return np.ascontiguousarray((pixels / 127.5 - 1.0).transpose(2, 0, 1))


def is_text(score: Array, box: Box) -> bool:
    """Whether a region is large and certain enough."""
    inside = score[box.top : box.bottom, box.left : box.right]
    sure = inside[inside > THRESHOLD]
    return min(inside.shape) >= LEAST_SIDE and float(sure.mean()) >= LEAST_SCORE


def unclip(box: Box) -> Box:
    """The detector marks the core of a line; widen it in proportion to area over perimeter."""
    width, height = box.right - box.left, box.bottom - box.top
    margin = round(UNCLIP * width * height / (2 * (width + height)))
    return Box(box.left - margin, box.top - margin, box.right + margin, box.bottom + margin)


def regions(mask: Array) -> list[Box]:
    """Bounding boxes of the connected regions (four neighbours) of a boolean map, by joining the runs of its rows."""
    boxes: list[Box] = []
    parent: list[int] = []
    above: list[tuple[int, int, int]] = []

    def root(label: int) -> int:
        while parent[label] != label:
            label = parent[label]
        return label

    for y in range(mask.shape[0]):
        current = []
        for start, end in runs(mask[y]):
            label = len(boxes)
            parent.append(label)
            boxes.append(Box(start, y, end, y + 1))
            for other_start, other_end, other in above:
                if other_start < end and start < other_end:
                    join(boxes, parent, root(label), root(other))
            current.append((start, end, label))
        above = current
    return [box for label, box in enumerate(boxes) if parent[label] == label]


def join(boxes: list[Box], parent: list[int], one: int, other: int) -> None:
    """Make two regions one; `other` keeps the box."""
    if one == other:
        return
    a, b = boxes[one], boxes[other]
    parent[one] = other
    boxes[other] = Box(min(a.left, b.left), min(a.top, b.top), max(a.right, b.right), max(a.bottom, b.bottom))


def runs(row: Array) -> Iterator[tuple[int, int]]:
    """Start and end of every run of True in a row."""
    edges = np.flatnonzero(np.diff(np.concatenate(([0], row.astype(np.int8), [0]))))
    yield from zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True)


def crop(page: Image.Image, box: Box) -> Image.Image:
    """What is inside the box."""
    return page.crop((box.left, box.top, box.right, box.bottom))


def line_input(line: Image.Image, width: int = 0) -> Array:
    """The recogniser's input [1, 3, 48, width]; without a width, the line's own rounded up to a multiple of 32."""
    natural = max(1, round(line.width * LINE_HEIGHT / line.height))
    width = width or -(-natural // WIDTH_STEP) * WIDTH_STEP
    taken = min(natural, width)
    padded = np.zeros((1, 3, LINE_HEIGHT, width), np.float32)
    padded[0, :, :, :taken] = planes(line.resize((taken, LINE_HEIGHT), Image.Resampling.BILINEAR))
    return padded


def characters_from(metadata: dict[str, str]) -> list[str]:
    """The recogniser's classes from its ONNX metadata: blank first, then the characters, then the space."""
    return ["", *metadata["character"].splitlines(), SPACE]


def decode(steps: Array, characters: list[str]) -> str:
    """Greedy CTC: the best class of each step, repeats merged, blanks dropped. `steps` is [time, classes]."""
    best = steps.argmax(axis=1)
    changed = np.concatenate(([True], best[1:] != best[:-1]))
    return "".join(characters[index] for index in best[changed] if index)


def character_accuracy(expected: str, got: str) -> float:
    """One minus the edit distance over the expected length."""
    row = list(range(len(got) + 1))
    for i, wanted in enumerate(expected, 1):
        diagonal, row[0] = row[0], i
        for j, had in enumerate(got, 1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (wanted != had))
    return 1.0 - row[-1] / max(1, len(expected))
