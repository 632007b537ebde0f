"""Where compiled models are kept between starts: one folder per engine and model content.

OpenVINO and TensorRT recognise a model by its path, size and time in seconds or by its graph, and would answer with a
replaced model's old weights. So the folder's name is a digest of the content, and they never see two models in one.
Old folders are removed; a cache that cannot be used is no error, only slower.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import time
from pathlib import Path

MAX_FOLDERS = 64


def content_key(path: Path) -> str:
    """A digest of the model file and of its .bin, and of name, size and time of every other file beside them."""
    digest = hashlib.blake2b(digest_size=16)
    for part in (path, path.with_suffix(".bin")):
        if part.is_file():
            with part.open("rb") as file:
                digest.update(hashlib.file_digest(file, "blake2b").digest())
    for entry in sorted(os.scandir(path.parent), key=lambda entry: entry.name):
        if entry.is_file() and entry.name != path.name:
            stat = entry.stat()
            digest.update(f"{entry.name}\0{stat.st_size}\0{stat.st_mtime_ns}\0".encode(errors="surrogateescape"))
    return digest.hexdigest()


def compiled_folder(cache_dir: Path | None, engine: str, path: Path) -> Path | None:
    """The folder for what `engine` compiles from `path`, made where it is missing; None where that cannot be."""
    if cache_dir is None:
        return None
    home = cache_dir / engine
    try:
        folder = home / content_key(path)
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        now_ns = time.time_ns()  # finer than the kernel's own stamp
        os.utime(folder, ns=(now_ns, now_ns))
        _prune(home)
    except OSError:
        return None
    return folder


def _prune(home: Path) -> None:
    """Keep the folders used last."""
    folders = sorted((entry.stat().st_mtime_ns, entry.path) for entry in os.scandir(home) if entry.is_dir())
    for _, old in folders[:-MAX_FOLDERS]:
        with contextlib.suppress(OSError):
            shutil.rmtree(old)
