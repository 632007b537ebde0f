"""Measured plans on disk: what was kept comes back, and nothing else is believed."""

from __future__ import annotations

import logging
import os
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from inferd_runtime.planning import Ground, Wishes
from inferd_runtime.planning.evidence import Candidate, Evidence, Trial
from inferd_runtime.planning.store import MAX_FILE_BYTES, PlanStore, plan_key
from tests.runtime.planning.told import ToldEngine, told

TRIAL = Trial(Candidate("openvino", "cpu", "", "auto", 2, 1), "measured", run_us=5.0, curve=((1, 5.0), (2, 8.5)))
KEY = "a" * 64


def evidence(key: str = KEY) -> Evidence:
    return Evidence(key, "balanced", "itself", "generated", (TRIAL,), str(TRIAL.candidate), "", "so", 20.0, 12.5, 1e9)


@pytest.fixture
def store(tmp_path: Path) -> PlanStore:
    return PlanStore(tmp_path / "plans")


def test_what_was_kept_comes_back(store: PlanStore) -> None:
    """All of it, under its own key only."""
    store.save(evidence())
    assert store.load(KEY) == evidence()
    assert store.load("b" * 64) is None


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"garbage",
        b"[]",
        msgspec.json.encode(evidence("b" * 64)),
        msgspec.json.encode(evidence())[:-9],
        msgspec.json.encode(evidence()).replace(b'"threads":1', b'"threads":100000'),
        msgspec.json.encode(evidence()).replace(b'"streams":2', b'"streams":-2'),
        b'{"key": "' + b"a" * MAX_FILE_BYTES + b'"}',
    ],
)
def test_what_is_not_ours_is_left_aside(
    store: PlanStore, tmp_path: Path, caplog: pytest.LogCaptureFixture, content: bytes
) -> None:
    """Corrupt, cut off, too large, or measured on another machine: one line in the log, and it is measured anew."""
    path = tmp_path / "plans" / f"{KEY}.json"
    path.parent.mkdir()
    path.write_bytes(content)
    with caplog.at_level(logging.WARNING):
        assert store.load(KEY) is None
    assert len(caplog.records) == 1
    store.save(evidence())
    assert store.load(KEY) == evidence()


def test_nothing_but_regular_files_is_read(store: PlanStore, tmp_path: Path) -> None:
    """A pipe does not hang it, a link is not followed, a folder is no plan."""
    store.save(evidence())
    path = tmp_path / "plans" / f"{KEY}.json"
    path.rename(tmp_path / "elsewhere.json")
    path.symlink_to(tmp_path / "elsewhere.json")
    assert store.load(KEY) is None
    path.unlink()
    os.mkfifo(path)
    assert store.load(KEY) is None
    path.unlink()
    path.mkdir()
    assert store.load(KEY) is None


def test_the_number_of_files_is_bounded(tmp_path: Path) -> None:
    """What was used least recently goes first."""
    store = PlanStore(tmp_path, max_files=2)
    for when_s, letter in enumerate("ab"):
        store.save(evidence(letter * 64))
        os.utime(tmp_path / f"{letter * 64}.json", (when_s, when_s))
    assert store.load("a" * 64) is not None
    leftover = tmp_path / "leads nowhere"
    leftover.symlink_to("gone")
    os.utime(leftover, (0, 0), follow_symlinks=False)
    store.save(evidence("c" * 64))
    assert {path.name[0] for path in tmp_path.iterdir()} == {"a", "c"}


def test_a_disk_that_takes_nothing_is_survived(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A plan that cannot be kept is a line in the log, and known until the daemon ends."""
    (tmp_path / "plans").write_text("no folder")
    store = PlanStore(tmp_path / "plans", max_files=2)
    with caplog.at_level(logging.WARNING):
        store.save(evidence())
    assert "cannot be kept" in caplog.text
    assert store.load(KEY) == evidence()
    for letter in "bc":
        store.save(evidence(letter * 64))
    assert [store.load(letter * 64) is not None for letter in "abc"] == [False, True, True]


def test_a_full_disk_leaves_no_remains(store: PlanStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was written of a plan is taken away, and the plan before it stays."""
    store.save(evidence())

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    store.save(msgspec.structs.replace(evidence(), reason="later"))
    assert [path.name for path in (tmp_path / "plans").iterdir()] == [f"{KEY}.json"]
    assert PlanStore(tmp_path / "plans").load(KEY) == evidence()


def test_the_key_changes_with_whatever_figures_depend_on() -> None:
    """Content, settings, engines and their versions, cores, machine, and the daemon's own settings."""
    ground, wishes = told(2), Wishes()
    newer = ToldEngine("openvino")
    newer.version = "2.0"
    grounds = [
        ground,
        told(4),
        replace(ground, machine_digest="other"),
        replace(ground, objective="latency"),
        replace(ground, inline="off"),
        replace(ground, engine="openvino"),
        replace(ground, cuda_refusal="may not"),
        Ground({"openvino": newer, "onnxruntime": ground.engines["onnxruntime"]}, 2),
        Ground({"openvino": ground.engines["openvino"]}, 2),
    ]
    keys = {plan_key(one, wishes, "digest") for one in grounds}
    keys |= {plan_key(ground, replace(wishes, max_batch=4), "digest"), plan_key(ground, wishes, "other")}
    assert len(keys) == len(grounds) + 2
    assert plan_key(told(2), Wishes(), "digest") in keys
