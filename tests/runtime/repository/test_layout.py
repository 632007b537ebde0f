"""What lies under the roots: layouts that are taken, and reasons for what is not."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferd_runtime.errors import InvalidModel
from inferd_runtime.repository.layout import MAX_VERSION_FILES, Layout, check_name, printable, scan


def put(path: Path, data: bytes = b"x") -> Path:
    """A file with its folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def reason(layout: Layout, name: str) -> str:
    """Why there is no such model."""
    return next(refusal.reason for refusal in layout.refusals if refusal.name == name)


def test_folder_with_versions_and_variants(tmp_path: Path) -> None:
    """Versions are numbered folders, variants are named in the file name."""
    put(tmp_path / "resnet/1/model.onnx")
    put(tmp_path / "resnet/3/model.onnx")
    put(tmp_path / "resnet/3/model.int8.onnx")
    put(tmp_path / "resnet/3/weights/part.bin")
    model = scan([tmp_path]).models["resnet"]
    assert sorted(model.versions) == [1, 3]
    assert {name: path.name for name, path in model.versions[3].variants.items()} == {
        "": "model.onnx", "int8": "model.int8.onnx",
    }  # fmt: skip
    assert [path.name for path in model.versions[3].files] == ["model.int8.onnx", "model.onnx", "part.bin"]
    assert model.settings == tmp_path / "resnet/model.toml"


def test_bare_file_is_version_one(tmp_path: Path) -> None:
    """A model file in the root is version 1 of the model of its name, with weights and settings beside it."""
    put(tmp_path / "mobilenet.onnx")
    put(tmp_path / "mobilenet.onnx.data")
    put(tmp_path / "mobilenet.toml")
    put(tmp_path / "seg.xml")
    put(tmp_path / "seg.bin")
    layout = scan([tmp_path])
    assert [path.name for path in layout.models["mobilenet"].versions[1].files] == [
        "mobilenet.onnx",
        "mobilenet.onnx.data",
    ]
    assert layout.models["mobilenet"].settings.name == "mobilenet.toml"
    assert layout.models["seg"].versions[1].format_of("") == "openvino"
    assert not layout.refusals


def test_openvino_needs_its_weights(tmp_path: Path) -> None:
    """An .xml whose .bin is not there yet is unfinished, not wrong."""
    put(tmp_path / "seg/1/model.xml")
    unfit = scan([tmp_path]).models["seg"].unfit[1]
    assert unfit.is_unfinished
    assert "model.bin" in unfit.reason
    put(tmp_path / "seg/1/model.bin", b"")
    assert 1 in scan([tmp_path]).models["seg"].versions


def test_foreign_configuration_and_hidden_files_are_ignored(tmp_path: Path) -> None:
    """Files of other servers, hidden files, unfinished copies and empty folders are simply not there."""
    put(tmp_path / "resnet/config.pbtxt")
    put(tmp_path / "resnet/1/model.onnx")
    put(tmp_path / "resnet/1/.model.onnx.x7")
    put(tmp_path / "resnet/1/model.onnx.part")
    put(tmp_path / "resnet/.2.tmp/model.onnx")
    put(tmp_path / "resnet/2.partial/model.onnx")
    put(tmp_path / ".git/1/model.onnx")
    put(tmp_path / "notes.txt")
    (tmp_path / "fresh").mkdir()
    (tmp_path / "resnet/4").mkdir()
    layout = scan([tmp_path])
    assert list(layout.models) == ["resnet"]
    assert sorted(layout.models["resnet"].versions) == [1]
    assert [path.name for path in layout.models["resnet"].versions[1].files] == ["model.onnx"]
    assert not layout.refusals


def test_loose_model_file_is_told_where_it_belongs(tmp_path: Path) -> None:
    """A model file without a version folder is refused with the right place."""
    put(tmp_path / "resnet/resnet50.onnx")
    assert "resnet/1/model.onnx" in reason(scan([tmp_path]), "resnet")


def test_first_root_wins(tmp_path: Path) -> None:
    """A name in two roots is served from the first, and the second is told."""
    put(tmp_path / "a/resnet/1/model.onnx")
    put(tmp_path / "b/resnet/2/model.onnx")
    put(tmp_path / "b/other.onnx")
    layout = scan([tmp_path / "a", tmp_path / "b", tmp_path / "missing"])
    assert sorted(layout.models) == ["other", "resnet"]
    assert list(layout.models["resnet"].versions) == [1]
    assert layout.refusals[0].is_shadowed
    assert "comes first" in layout.refusals[0].reason


def test_folder_shadows_bare_file(tmp_path: Path) -> None:
    """In one root a folder comes before a bare file of the same name."""
    put(tmp_path / "resnet/2/model.onnx")
    put(tmp_path / "resnet.onnx")
    layout = scan([tmp_path])
    assert list(layout.models["resnet"].versions) == [2]
    assert layout.refusals[0].is_shadowed


def test_two_plain_files_are_refused(tmp_path: Path) -> None:
    """Two formats of the same variant leave open which one is meant."""
    put(tmp_path / "m/1/model.onnx")
    put(tmp_path / "m/1/model.xml")
    put(tmp_path / "m/1/model.bin")
    unfit = scan([tmp_path]).models["m"].unfit[1]
    assert "model.<variant>.xml" in unfit.reason
    assert not unfit.is_unfinished


@pytest.mark.parametrize(
    "what", ["root/m", "root/m/1", "root/m/1/model.onnx", "root/m/1/weights.bin", "root/bare.onnx"]
)
def test_symlinks_out_of_the_repository_are_refused(tmp_path: Path, what: str) -> None:
    """No symlink leads out: not a model, not a version, not a file."""
    for outside in ("m/1/model.onnx", "m/1/weights.bin", "bare.onnx"):
        put(tmp_path / "outside" / outside)
    link = tmp_path / what
    link.parent.mkdir(parents=True)
    if not what.endswith("model.onnx") and link.parent.name == "1":
        put(link.parent / "model.onnx")
    link.symlink_to(tmp_path / "outside" / what.removeprefix("root/"))
    layout = scan([tmp_path / "root"])
    told = [r.reason for r in layout.refusals] + [u.reason for m in layout.models.values() for u in m.unfit.values()]
    assert not any(model.versions for model in layout.models.values())
    assert "out of the repository" in told[0]


def test_symlinks_inside_the_repository_are_followed(tmp_path: Path) -> None:
    """A symlink to another place of the same repository is as good as the file."""
    put(tmp_path / ".blobs/abc")
    (tmp_path / "m/1").mkdir(parents=True)
    (tmp_path / "m/1/model.onnx").symlink_to("../../.blobs/abc")
    assert list(scan([tmp_path]).models["m"].versions) == [1]


def test_dangling_symlink_and_fifo_are_refused(tmp_path: Path) -> None:
    """What is not a file that can be read is told, and opening it is never tried."""
    (tmp_path / "a/1").mkdir(parents=True)
    (tmp_path / "a/1/model.onnx").symlink_to("nowhere")
    (tmp_path / "b/1").mkdir(parents=True)
    os.mkfifo(tmp_path / "b/1/model.onnx")
    os.mkfifo(tmp_path / "c.onnx")
    for circle in ("d", "d.onnx", "a/2"):
        (tmp_path / circle).symlink_to(tmp_path / circle)
    layout = scan([tmp_path])
    assert "leads nowhere" in layout.models["a"].unfit[1].reason
    assert "regular file" in layout.models["b"].unfit[1].reason
    assert "regular file" in layout.models["c"].unfit[1].reason


def test_bounds(tmp_path: Path) -> None:
    """The number of models and the files of a version are bounded, with a reason."""
    for name in "abc":
        put(tmp_path / f"{name}.onnx")
    assert "the most" in reason(scan([tmp_path], max_models=2), "c")
    for number in range(MAX_VERSION_FILES + 1):
        put(tmp_path / "big/1" / f"{number}.bin")
    put(tmp_path / "big/1/model.onnx")
    assert str(MAX_VERSION_FILES) in scan([tmp_path]).models["big"].unfit[1].reason


@pytest.mark.timeout(60)
def test_a_maze_of_links_is_not_walked(tmp_path: Path) -> None:
    """Links to the folder that they lie in multiply with every level; the version is refused, and soon."""
    put(tmp_path / "good.onnx")
    (tmp_path / "maze" / "1").mkdir(parents=True)
    for number in range(200):
        (tmp_path / "maze" / "1" / f"l{number}").symlink_to(".")
    layout = scan([tmp_path])
    assert str(MAX_VERSION_FILES) in layout.models["maze"].unfit[1].reason
    assert layout.models["good"].versions


def test_unreadable_root_is_not_an_empty_root(tmp_path: Path) -> None:
    """A root that cannot be listed is told apart from one that holds nothing."""
    put(tmp_path / "root")
    assert scan([tmp_path / "root"]).unreadable == (tmp_path / "root",)
    assert scan([tmp_path / "none"]).unreadable == ()


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "-x", ".x", "stats", "a b", "ä", "x" * 129, "a\n", "a\x00"])
def test_names_that_are_refused(name: str) -> None:
    """A name is one sane path segment."""
    with pytest.raises(InvalidModel):
        check_name(name)


@given(st.text(st.characters(), max_size=300))
def test_any_name_can_be_told(name: str) -> None:
    """Whatever a folder is called, its refusal is short, printable ASCII."""
    assert printable(name).isascii()
    assert printable(name).isprintable()
    with contextlib.suppress(InvalidModel):
        check_name(name)
