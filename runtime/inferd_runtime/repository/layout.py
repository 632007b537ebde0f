"""Which models lie under the repository roots: folders, versions, variants, bare files; pure looking, nothing opened.

    <root>/<name>/<version>/model.onnx | model.<variant>.onnx | model.xml + model.bin | model.tflite
    <root>/<name>/model.toml, config.pbtxt
    <root>/<name>.onnx, with <root>/<name>.toml beside it: version 1

Whatever cannot be served is told with a reason. Nothing outside the roots is ever followed, and every listing is
bounded. What configuration files say is not known here.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from inferd_runtime.errors import InvalidModel

FORMATS = {".onnx": "onnx", ".xml": "openvino", ".tflite": "tflite"}
MAX_MODELS = 1000
MAX_ENTRIES = 10_000  # of one folder
MAX_VERSION_FILES = 512
MAX_VERSIONS = 100  # of one model; the highest are kept
MAX_DEPTH = 3  # of folders below a version's

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,127}")
_VERSION = re.compile(r"[1-9][0-9]{0,8}")
_MODEL_FILE = re.compile(r"model(?:\.(?P<variant>[A-Za-z0-9_-]{1,64}))?(?P<suffix>\.onnx|\.xml|\.tflite)")
_RESERVED = frozenset({"stats"})  # /v2/models/stats is a path of the protocol
_TRITON = "config.pbtxt"
_UNFINISHED = (".tmp", ".temp", ".part", ".partial", ".crdownload", ".download", ".incomplete", ".lock", ".swp", "~")
# What an exporter writes beside a bare model file.
_BARE_COMPANIONS = ("{stem}.bin", "{file}.data", "{file}_data", "{stem}.data")


@dataclass(frozen=True, slots=True)
class VersionFiles:
    """The files of one version. `variants` maps "" (the plain file), "int8", ... to model files; all lie in `base`."""

    name: str
    version: int
    base: Path
    variants: Mapping[str, Path]
    files: tuple[Path, ...]

    def format_of(self, variant: str) -> str:
        """ "onnx", "openvino" or "tflite"."""
        return FORMATS[self.variants[variant].suffix]


@dataclass(frozen=True, slots=True)
class Unfit:
    """Why a version cannot be taken. `is_unfinished`: it may become fit once copying goes on."""

    reason: str
    is_unfinished: bool = False


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """One model: where labels may lie, its settings file and Triton's (there or not), and its versions."""

    name: str
    folder: Path
    settings: Path
    versions: Mapping[int, VersionFiles]
    unfit: Mapping[int, Unfit] = field(default_factory=dict)
    triton: Path | None = None

    @property
    def configuration(self) -> tuple[Path, ...]:
        """The files that say how to serve it."""
        return (self.settings,) if self.triton is None else (self.settings, self.triton)


@dataclass(frozen=True, slots=True)
class Refusal:
    """A folder or file that is no model, or not the one that counts. `name` is safe to print."""

    name: str
    reason: str
    is_shadowed: bool = False


@dataclass(frozen=True, slots=True)
class Layout:
    """All that lies under the roots. `unreadable` roots could not be listed just now: nothing follows from that."""

    models: Mapping[str, ModelFiles]
    refusals: tuple[Refusal, ...] = ()
    unreadable: tuple[Path, ...] = ()


class _Unfinished(InvalidModel):
    """Not fit yet."""


def printable(name: str) -> str:
    """A file name as it may appear in messages and answers: ASCII, no control characters, bounded."""
    return ascii(name)[1:-1][:128]


def check_name(name: str) -> None:
    """Raise InvalidModel unless `name` can be a model's."""
    if not _NAME.fullmatch(name):
        raise InvalidModel(
            f"{printable(name)!r} cannot be a model's name: up to 128 letters, digits and . _ + - are, beginning with "
            "a letter or a digit"
        )
    if name in _RESERVED:
        raise InvalidModel(f"{name!r} cannot be a model's name: the protocol uses it")


def scan(roots: Sequence[Path], *, max_models: int = MAX_MODELS) -> Layout:
    """Look at every root; the first that has a name wins. A root that does not exist is empty."""
    models: dict[str, ModelFiles] = {}
    refusals: list[Refusal] = []
    unreadable: list[Path] = []
    inside = tuple(root.resolve() for root in roots)
    for root in roots:
        try:
            entries = list(_entries(root))
        except FileNotFoundError:
            continue
        except OSError:
            unreadable.append(root)
            continue
        for name, entry in _named(entries):
            try:
                found = _model(root, name, Path(entry.path), inside)
            except InvalidModel as error:
                refusals.append(Refusal(printable(name), str(error)))
                continue
            except OSError as error:
                refusals.append(Refusal(printable(name), f"cannot be read: {error.strerror}"))
                continue
            if found is None:
                continue
            if name in models:
                reason = f"{entry.path} is not used: {models[name].folder} comes first and has this name"
                refusals.append(Refusal(name, reason, is_shadowed=True))
            elif len(models) >= max_models:
                refusals.append(Refusal(name, f"not served: {max_models} models are the most that one daemon takes"))
            else:
                models[name] = found
    return Layout(models, tuple(refusals), tuple(unreadable))


def _entries(folder: Path) -> Iterator[os.DirEntry[str]]:
    """What lies in a folder, by name; hidden and unfinished things are not there."""
    with os.scandir(folder) as listing:
        seen = [entry for entry, _ in zip(listing, range(MAX_ENTRIES), strict=False)]
    for entry in sorted(seen, key=lambda entry: entry.name):
        if not entry.name.startswith(".") and not entry.name.lower().endswith(_UNFINISHED):
            yield entry


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether it is a folder; a symlink that turns in circles is none."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def _named(entries: Sequence[os.DirEntry[str]]) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """Folders first, then bare model files, each with the model name it stands for."""
    for entry in entries:
        if _is_folder(entry):
            yield entry.name, entry
    for entry in entries:
        file = Path(entry.name)
        if file.suffix in FORMATS and not _is_folder(entry):
            yield file.stem, entry


def _model(root: Path, name: str, path: Path, inside: Sequence[Path]) -> ModelFiles | None:
    """The model at `path`, None for an empty folder. Raises InvalidModel."""
    check_name(name)
    _check_inside(path, inside)
    if path.is_dir():
        return _folder_model(name, path, inside)
    return _bare_model(root, name, path, inside)


def _folder_model(name: str, folder: Path, inside: Sequence[Path]) -> ModelFiles | None:
    versions: dict[int, VersionFiles] = {}
    unfit: dict[int, Unfit] = {}
    entries = list(_entries(folder))
    numbered = [entry for entry in entries if _VERSION.fullmatch(entry.name) and _is_folder(entry)]
    for entry in sorted(numbered, key=lambda entry: -int(entry.name))[:MAX_VERSIONS]:
        version = int(entry.name)
        try:
            files = _version(name, version, Path(entry.path), inside)
        except InvalidModel as error:
            unfit[version] = Unfit(str(error), isinstance(error, _Unfinished))
        except OSError as error:
            unfit[version] = Unfit(f"{entry.path} cannot be read: {error.strerror}")
        else:
            if files is not None:
                versions[version] = files
    if not versions and not unfit:
        if not entries:
            return None
        if not any(entry.name == _TRITON for entry in entries):
            raise InvalidModel(_advice(name, entries))
        unfit[1] = Unfit(_advice(name, entries), is_unfinished=True)  # an ensemble: its configuration tells the rest
    return ModelFiles(name, folder, folder / "model.toml", versions, unfit, folder / _TRITON)


def _advice(name: str, entries: Sequence[os.DirEntry[str]]) -> str:
    loose = [entry.name for entry in entries if Path(entry.name).suffix in FORMATS]
    if loose:
        return f"{printable(loose[0])} lies in the model's folder itself; put it in a version: {name}/1/model.onnx"
    return f"no version in it: a model file belongs at {name}/1/model.onnx (or .xml with .bin, or .tflite)"


def _version(name: str, version: int, folder: Path, inside: Sequence[Path]) -> VersionFiles | None:
    """The version in `folder`, None when it is empty. Raises InvalidModel."""
    _check_inside(folder, inside)
    files = tuple(_walk(folder, inside))
    if not files:
        return None
    variants: dict[str, Path] = {}
    for path in files:
        match = _MODEL_FILE.fullmatch(path.name)
        if match is None or path.parent != folder:
            continue
        variant = match["variant"] or ""
        if variant in variants:
            raise InvalidModel(
                f"{name}/{version} holds both {variants[variant].name} and {path.name}; keep one, or name one as a "
                f"variant: model.<variant>{path.suffix}"
            )
        variants[variant] = path
    if not variants:
        raise _Unfinished(f"{name}/{version} holds no model.onnx, model.xml or model.tflite, only {files[0].name}")
    for path in variants.values():
        _check_complete(path)
    return VersionFiles(name, version, folder, variants, files)


def _bare_model(root: Path, name: str, path: Path, inside: Sequence[Path]) -> ModelFiles:
    settings = root / f"{name}.toml"
    try:
        if not path.is_file():
            raise InvalidModel(f"{path.name} is not a regular file")
        _check_complete(path)
    except InvalidModel as error:
        return ModelFiles(name, root, settings, {}, {1: Unfit(str(error), isinstance(error, _Unfinished))})
    beside = [root / pattern.format(stem=name, file=path.name) for pattern in _BARE_COMPANIONS]
    companions = [companion for companion in beside if companion.is_file()]
    for companion in companions:
        _check_inside(companion, inside)
    files = VersionFiles(name, 1, root, {"": path}, (path, *companions))
    return ModelFiles(name, root, settings, {1: files})


def _walk(folder: Path, inside: Sequence[Path]) -> Iterator[Path]:
    """Every regular file below `folder`. Raises InvalidModel, also where there is too much to look at: symlinks to
    folders can make more of a few entries than anybody could list."""
    count = 0
    waiting = [(folder, MAX_DEPTH)]
    while waiting:
        here, depth = waiting.pop()
        for entry in _entries(here):
            count += 1
            if count > MAX_VERSION_FILES:
                raise InvalidModel(
                    f"{folder.parent.name}/{folder.name} holds more than {MAX_VERSION_FILES} files and folders"
                )
            path = Path(entry.path)
            _check_inside(path, inside)
            if _is_folder(entry):
                if depth > 0:
                    waiting.append((path, depth - 1))
            elif entry.is_file():
                yield path
            elif _MODEL_FILE.fullmatch(entry.name):
                raise InvalidModel(f"{entry.name} is not a regular file")


def _check_inside(path: Path, inside: Sequence[Path]) -> None:
    """Refuse a symlink that leads out of every root, or nowhere."""
    if not path.is_symlink():
        return
    try:
        target = path.resolve(strict=True)
    except (OSError, RuntimeError):
        raise InvalidModel(f"{printable(path.name)} is a symlink that leads nowhere") from None
    if not any(target.is_relative_to(root) for root in inside):
        raise InvalidModel(
            f"{printable(path.name)} is a symlink that leads out of the repository; put the file itself there"
        )


def _check_complete(path: Path) -> None:
    """Refuse a model file that can only be half there. Raises _Unfinished."""
    if path.stat().st_size == 0:
        raise _Unfinished(f"{path.name} is empty; is it still being copied?")
    if path.suffix == ".xml" and not path.with_suffix(".bin").is_file():
        raise _Unfinished(f"{path.name} needs its weights, {path.stem}.bin, beside it")
