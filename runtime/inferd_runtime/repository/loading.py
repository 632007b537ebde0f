"""Turning the files of one version into something served: read, check, open, examine; one version at a time.

Everything that can be refused without an engine is refused before any native code sees the file. The journal holds a
marker while native code runs. Runs on the loader thread only.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Protocol

from inferd_runtime.errors import InvalidModel, LoadFailed
from inferd_runtime.job import Job
from inferd_runtime.repository.digest import digest
from inferd_runtime.repository.embedding import embedding_of, read_tokenizer
from inferd_runtime.repository.examine import examine, external_locations
from inferd_runtime.repository.journal import LoadJournal
from inferd_runtime.repository.labels import read_labels
from inferd_runtime.repository.layout import ModelFiles, VersionFiles
from inferd_runtime.repository.settings import ModelSettings
from inferd_runtime.spec import Embedding, ModelSpec, Plan, Quantisation


class Served(Protocol):
    """A loaded version as the façade serves it."""

    @property
    def spec(self) -> ModelSpec: ...

    @property
    def plan(self) -> Plan: ...

    def submit(self, job: Job) -> None: ...

    def drain(self, timeout_s: float) -> bool:
        """Take no more, finish what was accepted; False when time ran out."""

    def close(self) -> None:
        """Free the session; jobs still waiting are settled with an error. Idempotent."""


OpenVersion = Callable[[VersionFiles, ModelSettings, str], Served]


@dataclass(frozen=True, slots=True)
class Loaded:
    """One content of one version, being served."""

    served: Served
    files: VersionFiles
    settings: ModelSettings
    labels: Mapping[str, tuple[str, ...]]
    digest: str
    quantisation: Quantisation | None
    embedding: Embedding | None = None


class Loader:
    """Loads versions through `open_version`, keeping the journal."""

    def __init__(self, open_version: OpenVersion, journal: LoadJournal) -> None:
        self._open_version = open_version
        self._journal = journal

    def load(
        self,
        model: ModelFiles,
        files: VersionFiles,
        settings: ModelSettings,
        *,
        serving: Loaded | None,
        is_forced: bool,
    ) -> Loaded:
        """Load `files`. Returns `serving` itself where that is the same content and nobody insists.

        Raises InvalidModel and LoadFailed with the reason; whatever else comes out is a fault of ours or an engine's.
        """
        try:
            content = digest(files.files, files.base)
        except OSError as error:
            raise LoadFailed(f"its files cannot be read: {error.strerror}") from None
        labels = read_labels(model.folder, settings.labels)
        tokenizer = read_tokenizer(model.folder, settings.embedding)
        if serving is not None and not is_forced:
            used = serving.embedding.tokenizer if serving.embedding else b""
            now = (serving.files.files, serving.digest, serving.settings, serving.labels, used)
            if now == (files.files, content, settings, labels, tokenizer):
                return serving
        self._check(files)
        key = hashlib.sha256(f"{content} {settings}".encode()).hexdigest()
        refusal = self._journal.refusal(files.name, files.version, key)
        if refusal and not is_forced:
            raise LoadFailed(refusal)
        self._journal.begin(files.name, files.version, key)
        try:
            served = self._open_version(files, settings, content)
        finally:
            self._journal.end(files.name, files.version)
        try:
            _check_labels(served.spec, settings)
            embedding = embedding_of(served.spec, settings.embedding, tokenizer)
            return Loaded(served, files, settings, labels, content, _examined(files, served.plan), embedding)
        except BaseException:
            served.close()
            raise

    def leave(self, name: str, version: int) -> None:
        """The daemon stops on purpose while this version may still be opening."""
        self._journal.end(name, version)

    def _check(self, files: VersionFiles) -> None:
        for path in files.variants.values():
            check_external_data(path, files)


def check_external_data(path: Path, files: VersionFiles) -> None:
    """Refuse a model whose weights lie anywhere but among the version's own files. Raises InvalidModel."""
    if path.suffix != ".onnx":
        return
    own = {file.relative_to(files.base).as_posix() for file in files.files}
    for location in external_locations(path):
        place = PurePosixPath(location)
        if place.is_absolute() or ".." in place.parts or "\\" in location:
            raise InvalidModel(
                f"{path.name} wants weights from {location[:200]!r}, outside its version's folder: refused"
            )
        if place.as_posix() not in own:
            raise InvalidModel(
                f"{path.name} wants weights from {location[:200]!r}, which is not among the version's files"
            )


def _check_labels(spec: ModelSpec, settings: ModelSettings) -> None:
    names = [output.name for output in spec.outputs]
    for name in settings.labels:
        if name not in names:
            raise InvalidModel(f"[labels] names output {name!r}, but the outputs are {', '.join(map(repr, names))}")


def _examined(files: VersionFiles, plan: Plan) -> Quantisation | None:
    """What the served file is made of; None where it cannot be told, which is no reason not to serve it."""
    path = files.variants.get(plan.variant)
    if path is None:
        return None
    try:
        return examine(path)
    except InvalidModel:
        return None
