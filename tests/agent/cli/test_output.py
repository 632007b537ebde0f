"""What people read: tables, labelled lines, numbers, arrays."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from inferd_agent.cli.infer import plain, ranking, readable
from inferd_agent.cli.models import COLUMNS, row
from inferd_agent.cli.output import describe_tensors, human_bytes, human_us, print_labelled, print_table
from inferd_agent.cli.probe import device

DIGITS = {
    "name": "digits", "version": 1, "state": "READY", "file_bytes": 189_000,
    "quantisation": {"kind": "int8", "layout": "qdq", "granularity": "per-channel"},
    "plan": {"engine": "onnxruntime", "device": "cpu", "run_us": 136.2},
    "inputs": [{"name": "image", "datatype": "FP32", "shape": [-1, 1, 8, 8]}],
}  # fmt: skip


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (5 << 30, "5.0 GiB"), (3 << 50, "3072.0 TiB")]
)
def test_bytes_have_their_unit(count: int, text: str) -> None:
    """Powers of 1024, one digit."""
    assert human_bytes(count) == text


@pytest.mark.parametrize(("us", "text"), [(12.3, "12 us"), (4321, "4.32 ms"), (2_500_000, "2.50 s")])
def test_times_have_their_unit(us: float, text: str) -> None:
    """Three figures are enough for a person."""
    assert human_us(us) == text


def test_names_are_never_markup(capsys: pytest.CaptureFixture[str]) -> None:
    """What others named is printed as they named it."""
    print_table(("name", "n"), [("[red]x[/]", "1"), ("y", "100")], right=("n",))
    print_labelled([("label", "[bold]text"), ("empty", ""), ("long", "word " * 60)])
    lines = capsys.readouterr().out.splitlines()
    assert lines[1:3] == ["[red]x[/]    1", "y          100"]
    assert lines[3] == "label  [bold]text"
    assert lines[4] == "long   " + ("word " * 60).strip()
    assert len(lines) == 5


def test_a_line_of_models_fits_in_100_columns(capsys: pytest.CaptureFixture[str]) -> None:
    """The demo model's line, with the longer engine name, needs no wider terminal."""
    print_table(COLUMNS, [row(DIGITS)])
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 100


def test_a_failed_model_has_a_line_too() -> None:
    """Without plan, file examination or spec nothing is made up."""
    failed = {**DIGITS, "state": "FAILED", "plan": None, "quantisation": None, "inputs": None}
    assert row(failed) == ("digits", "1", "FAILED", "", "", "", "")


def test_many_inputs_are_cut() -> None:
    """A table names the first and counts the others."""
    specs = [{"name": f"x{i}", "datatype": "INT64", "shape": []} for i in range(4)]
    assert describe_tensors(specs, most=1) == "x0 INT64 [] and 3 more"


def test_every_datatype_can_be_shown() -> None:
    """BYTES as text, BF16 as numbers, empty tensors as empty lists."""
    assert plain(np.array([["é".encode(), b"\xff"]], dtype=object)) == [["é", "�"]]
    assert plain(np.array([0.5], ml_dtypes.bfloat16)) == [0.5]
    assert plain(np.empty((0, 2), dtype=object)) == []
    assert plain(np.array([True])) == [True]
    assert readable(np.array([b"a"], dtype=object)) == ["['a']"]


def test_a_ranking_names_labels_rows_and_bare_classes() -> None:
    """`label  score`, `class N` without a label, and rows where there are several."""
    one = np.array([[b"0.900000:3:three: or so", b"0.100000:1"]], dtype=object)
    assert ranking(one) == ["three: or so  0.9000", "class 1  0.1000"]
    assert ranking(np.concatenate([one, one]))[::3] == ["row 0", "row 1"]


def test_a_device_says_whether_it_can_be_used() -> None:
    """And why not."""
    found = {
        "vendor": "NVIDIA", "name": "RTX 3060", "memory_bytes": 12 << 30, "driver": "nvidia", "driver_version": "550",
        "may_open": False, "reason": "no access to /dev/nvidia0",
    }  # fmt: skip
    assert device(found) == "NVIDIA RTX 3060, 12.0 GiB, driver nvidia 550, not usable: no access to /dev/nvidia0"
    usable = {**found, "may_open": True, "driver": "", "memory_bytes": 0}
    assert device(usable) == "NVIDIA RTX 3060, no driver, usable"
