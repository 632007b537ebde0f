"""model.toml: strict, with messages that lead to the right key and value."""

from __future__ import annotations

import contextlib
import os
from dataclasses import fields
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferd_runtime.errors import InvalidModel
from inferd_runtime.repository.labels import read_labels
from inferd_runtime.repository.settings import (
    MAX_SETTINGS_BYTES,
    EmbeddingSettings,
    ModelSettings,
    parse_settings,
    read_settings,
)

EVERYTHING = """
versions = [1, 3]
variant = "int8"
engine = "openvino"
device = "cpu"
precision = "f32"
streams = 2
threads = 3
max_batch = 8
batch = 4
inline = "on"
objective = "throughput"
isolation = "process"
metric = "cosine"
tolerance = 0.02
[labels]
probabilities = "labels.txt"
[embedding]
tokenizer = "words.json"
pooling = "cls"
normalise = false
max_tokens = 128
truncate = true
output = "hidden"
[shapes]
image = [3, -1, 8]
"""


def test_every_key_is_read() -> None:
    """What the file says is what comes out, and what planning is asked for."""
    settings = parse_settings(EVERYTHING.encode(), "model.toml")
    assert settings == ModelSettings(
        (1, 3), "int8", "openvino", "cpu", "f32", 2, 3, 8, 4, "on", "throughput", "process", "cosine", 0.02,
        {"probabilities": "labels.txt"}, EmbeddingSettings("words.json", "cls", False, 128, True, "hidden"),
        {"image": (3, -1, 8)},
    )  # fmt: skip
    wishes = settings.wishes()
    asked = {*ModelSettings.__struct_fields__} - {"versions", "labels", "embedding", "shapes"}
    assert asked == {field.name for field in fields(wishes)} - {"rows", "shapes"}
    assert wishes.shapes == (("image", (3, -1, 8)),)
    for key in asked:
        assert getattr(wishes, key) == getattr(settings, key)


def test_no_file_means_defaults(tmp_path: Path) -> None:
    """A model needs no settings."""
    assert read_settings(tmp_path / "model.toml", (tmp_path,)) == parse_settings(b"", "model.toml") == ModelSettings()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[embedding]\npoling = 'mean'", r"\[embedding\]: unknown key 'poling'; the nearest known key is 'pooling'"),
        ("[embedding]\npooling = 'max'", r"\[embedding\]: pooling = 'max', but it must be \"mean\", \"cls\" or"),
        ("[embedding]\nmax_tokens = 0", r"\[embedding\]: max_tokens = 0, but it must be a whole number from 1"),
        ("[embedding]\ntokenizer = ''", r"\[embedding\]: tokenizer = ''"),
        ("embedding = 7", r"embedding = 7, but it must be a table"),
    ],
)
def test_a_slip_in_a_table_is_told_with_its_place(text: str, told: str) -> None:
    """Tables are as strict as the rest."""
    with pytest.raises(InvalidModel, match=told):
        parse_settings(text.encode(), "model.toml")


@pytest.mark.parametrize(("typo", "meant"), [("theads", "threads"), ("maxbatch", "max_batch"), ("Engine", "engine")])
def test_unknown_key_names_the_nearest(typo: str, meant: str) -> None:
    """A slip of the pen is told with the key that was meant."""
    with pytest.raises(InvalidModel, match=f"model.toml: unknown key '{typo}'; the nearest known key is '{meant}'"):
        parse_settings(f"{typo} = 1".encode(), "model.toml")


@pytest.mark.parametrize(
    ("text", "allowed"),
    [
        ('versions = "newest"', '"latest", "latest:2" for two, "all" or a list'),
        ('versions = "latest:0"', '"latest:2" for two'),
        ("[shapes]\nx = [-2]", "a table of inputs and outputs"),
        ("versions = [0]", "a list of version numbers"),
        ("versions = []", "a list of version numbers"),
        ('engine = "tvm"', '"auto", "onnxruntime" or "openvino"'),
        ('device = "cuda"', '"cuda:0"'),
        ("streams = -1", "from 0"),
        ("threads = 2.5", "a whole number"),
        ("threads = true", "a whole number"),
        ("max_batch = -1", "a whole number from 0"),
        ("batch = 100000", "65536"),
        ('inline = "maybe"', '"auto", "off" or "on"'),
        ('objective = "speed"', '"latency", "throughput", "balanced"'),
        ('isolation = "container"', '"process"'),
        ('metric = "iou"', '"cosine"'),
        ("tolerance = -0.1", "a number from 0"),
        ("tolerance = nan", "a number from 0"),
        ("tolerance = inf", "to 1000"),
        ('variant = "../x"', "the name of a variant"),
        ("labels = 3", "a table of output names"),
        ("[labels]\ny = 3", "a table of output names"),
    ],
)
def test_bad_values_name_place_value_and_what_is_allowed(text: str, allowed: str) -> None:
    """A bad value says where it stands, what came and what is allowed."""
    key = next((table for table in ("labels", "shapes") if table in text), text.partition(" = ")[0])
    with pytest.raises(InvalidModel) as caught:
        parse_settings(text.encode(), "model.toml")
    assert str(caught.value).startswith(f"model.toml: {key} = ")
    assert allowed in str(caught.value)


def test_no_toml_no_text_and_too_much(tmp_path: Path) -> None:
    """What is not a settings file at all is refused as such."""
    for data in (b"versions = ", b"\xff\xfe", b"[" * 5000):
        with pytest.raises(InvalidModel, match="is not TOML"):
            parse_settings(data, "model.toml")
    path = tmp_path / "model.toml"
    path.write_bytes(b"#" * (MAX_SETTINGS_BYTES + 1))
    with pytest.raises(InvalidModel, match="larger than"):
        read_settings(path, (tmp_path,))


@pytest.mark.timeout(60)
def test_only_regular_files_of_the_repository_are_read(tmp_path: Path) -> None:
    """A pipe keeps nobody waiting, a link out of the repository tells nothing of its target, one inside is fine."""
    root = tmp_path / "models"
    (root / "m").mkdir(parents=True)
    path = root / "m" / "model.toml"
    os.mkfifo(path)
    with pytest.raises(InvalidModel, match="not a regular file"):
        read_settings(path, (root,))
    path.unlink()
    (tmp_path / "secret.toml").write_text("password = 1")
    path.symlink_to(tmp_path / "secret.toml")
    with pytest.raises(InvalidModel, match="leads out of the repository"):
        read_settings(path, (root,))
    path.unlink()
    (root / "common.toml").write_text("streams = 3")
    path.symlink_to(root / "common.toml")
    assert read_settings(path, (root,)).streams == 3
    path.unlink()
    path.symlink_to(path)
    with pytest.raises(InvalidModel, match="cannot be read"):
        read_settings(path, (root,))


@pytest.mark.timeout(60)
def test_keys_of_very_many_parts_are_refused_unparsed() -> None:
    """The parser would take gigabytes for them; dots in a comment harm nobody."""
    for key in ("a" + ".a" * 30_000, '"#"' + ".a" * 30_000, "[a" + ".a" * 30_000 + "]"):
        with pytest.raises(InvalidModel, match="dots"):
            parse_settings(f"{key} = 1".encode(), "model.toml")
    assert parse_settings(b"  # " + b"." * 500 + b"\nstreams = 2", "model.toml").streams == 2


def test_label_files_have_names_that_files_can_have() -> None:
    """A zero byte in a name would make every look at the file fail."""
    with pytest.raises(InvalidModel, match="labels"):
        parse_settings(b'[labels]\ny = "a\\u0000b"', "model.toml")


@given(st.text(max_size=400))
def test_any_text_is_read_or_refused(text: str) -> None:
    """No text whatever raises anything but InvalidModel."""
    with contextlib.suppress(InvalidModel):
        parse_settings(text.encode(), "model.toml")


_NAMES = st.sampled_from([field.name for field in msgspec.structs.fields(ModelSettings)])
_VALUES = st.one_of(
    st.integers(-5, 2**40),
    st.sampled_from(['"latest"', '"auto"', '"on"', '""', "[1, 2]", "[]", "{a = 'b'}", "1.0", "false", "1979-05-27"]),
)


@given(st.dictionaries(_NAMES, _VALUES, max_size=6))
def test_any_values_are_taken_or_refused(table: dict[str, object]) -> None:
    """Known keys with any value give settings whose wishes stand, or InvalidModel."""
    text = "\n".join(f"{key} = {value}" for key, value in table.items())
    try:
        settings = parse_settings(text.encode(), "model.toml")
    except InvalidModel:
        return
    assert isinstance(hash(settings.wishes()), int)


def test_labels_are_read(tmp_path: Path) -> None:
    """One label a line, for each output."""
    (tmp_path / "labels.txt").write_text("zero\none \ntwo\n")
    assert read_labels(tmp_path, {"y": "labels.txt"}) == {"y": ("zero", "one", "two")}


def test_labels_come_from_the_model_folder_only(tmp_path: Path) -> None:
    """Neither a path nor a symlink reads anything outside the folder."""
    folder = tmp_path / "m"
    folder.mkdir()
    (tmp_path / "secret").write_text("x")
    (folder / "link").symlink_to(tmp_path / "secret")
    for name in ("../secret", "link", str(tmp_path / "secret")):
        with pytest.raises(InvalidModel, match="outside the model's folder"):
            read_labels(folder, {"y": name})
    for name, told in (("none", "cannot be read"), (".", "regular file"), ("x\0", "not")):
        with pytest.raises(InvalidModel, match=told):
            read_labels(folder, {"y": name})
    (folder / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InvalidModel, match="UTF-8"):
        read_labels(folder, {"y": "binary"})
