"""The models that planning is judged by, each with inputs of the sizes that it is used with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench import models
from inferd_agent import demo
from inferd_runtime.planning.plan import Ground, Wishes
from inferd_runtime.planning.static import plan_version
from inferd_runtime.spec import ModelSpec

Array = np.ndarray[Any, Any]

MODELS = (
    "ppocr-detector", "ppocr-recogniser", "ppocr-classifier", "magika", "silero-vad", demo.MODEL, *models.RECIPES,
)  # fmt: skip
# As their model.toml would say: INT8 answers a little more differently on drawn lines than planning allows unasked.
TOLERANCES = {"ppocr-recogniser": 0.1, "ppocr-detector": 0.3}


@dataclass(frozen=True, slots=True)
class Subject:
    """One model, and what a daemon knows of it. In `folder` lie its inputs."""

    name: str
    variants: Mapping[str, Path]
    folder: Path
    ground: Ground
    spec: ModelSpec
    wishes: Wishes


def subject(name: str, folder: Path, ground: Ground) -> Subject:
    """The model, with inputs in `folder` where it has none of its own."""
    from tests.models.fetch import cache_root, fetch

    if name in models.RECIPES:
        folder = models.made(cache_root(), [name])[name]
        files = folder / "1"
    else:
        files = (demo.MODELS if name == demo.MODEL else fetch(cache_root())) / name / "1"
        (folder / "golden").mkdir(parents=True)
        np.savez(folder / "golden" / "inputs.npz", **golden(name))
    variants = {
        path.name.removeprefix("model").removesuffix("onnx").strip("."): path for path in sorted(files.glob("*.onnx"))
    }
    wishes = Wishes(tolerance=TOLERANCES.get(name, 0.0))
    planned = plan_version(ground, variants, wishes)
    planned.session.close()
    return Subject(name, variants, folder, ground, planned.spec, wishes)


def golden(name: str) -> dict[str, Array]:
    """Inputs of the sizes that the model is used with."""
    if name == demo.MODEL:
        return {demo.INPUT: demo.held_out().inputs()[:64]}
    if name == "magika":  # the first and the last bytes of a file, 256 where it is shorter
        code = [
            np.frombuffer(path.read_bytes(), np.uint8)[:1024] for path in sorted(Path(__file__).parent.glob("*.py"))
        ]
        padded = [np.pad(data.astype(np.int32), (0, 2048 - len(data)), constant_values=256) for data in code]
        return {"bytes": np.stack(padded)}
    if name == "silero-vad":  # 32 ms at 16 kHz, behind the 4 ms before
        tone = np.sin(np.arange(576, dtype=np.float32) / 9) / 4
        return {"input": tone[None], "state": np.zeros((2, 1, 128), np.float32), "sr": np.array(16000, np.int64)}
    return {"x": page_parts(name)}


def page_parts(name: str) -> Array:
    """For the detector a page of 480 x 480, for the others lines of three words, 48 high and 320 or 192 wide."""
    from PIL import Image

    from tests import ocr

    words, size = " ".join(ocr.PAGE_LINES).split(), 26
    lines = [" ".join(words[begin : begin + 3]) for begin in range(0, len(words), 3)]
    if name == "ppocr-detector":
        page = Image.new("RGB", (480, 480), "white")
        page.paste(ocr.draw_page(tuple(lines[:9]), size))
        return ocr.page_input(page)
    drawn = [ocr.draw_page((line,), size) for line in lines]
    cut = [page.crop((size // 2, size // 4, page.width - size // 2, 2 * size)) for page in drawn]
    return np.concatenate([ocr.line_input(line, 320 if name == "ppocr-recogniser" else 192) for line in cut])
