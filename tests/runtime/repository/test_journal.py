"""The journal of loads under way."""

from __future__ import annotations

from pathlib import Path

from inferd_runtime.repository.journal import LoadJournal


def journal(folder: Path, boot: str = "one") -> LoadJournal:
    """The journal as a daemon that starts now finds it."""
    boot_id = folder / "boot_id"
    boot_id.write_text(boot)
    return LoadJournal(folder / "loading", boot_id=boot_id)


def test_a_load_that_ended_leaves_nothing(tmp_path: Path) -> None:
    """Begun and ended: the next daemon loads without a word."""
    first = journal(tmp_path)
    first.begin("m", 1, "content")
    first.end("m", 1)
    assert journal(tmp_path).refusal("m", 1, "content") == ""
    assert list((tmp_path / "loading").iterdir()) == []


def test_a_load_that_never_ended_is_refused(tmp_path: Path) -> None:
    """Begun and never ended: only this version, with this content, is refused, and deaths are counted."""
    journal(tmp_path).begin("m", 1, "content")
    second = journal(tmp_path)
    assert "died while loading this version the last time (once)" in second.refusal("m", 1, "content")
    assert second.refusal("m", 2, "content") == second.refusal("m", 1, "other") == ""
    second.begin("m", 1, "content")
    third = journal(tmp_path)
    assert "(2 times)" in third.refusal("m", 1, "content")
    third.begin("m", 1, "content")
    third.end("m", 1)
    assert third.refusal("m", 1, "content") == ""


def test_a_reboot_is_forgiven_a_few_times(tmp_path: Path) -> None:
    """A power cut while loading does not keep a model out; a model that brings the machine down stays out."""
    for boot in ("one", "two", "three"):
        now = journal(tmp_path, boot)
        assert now.refusal("m", 1, "content") == ""
        now.begin("m", 1, "content")
    assert "(3 times)" in journal(tmp_path, "four").refusal("m", 1, "content")


def test_a_broken_journal_keeps_nothing_from_loading(tmp_path: Path) -> None:
    """Garbage in the journal is dropped; a folder that cannot be written only costs the guard."""
    (tmp_path / "loading").mkdir()
    (tmp_path / "loading/x.json").write_bytes(b"{")
    assert journal(tmp_path).refusal("m", 1, "content") == ""
    (tmp_path / "file").write_text("")
    boot_id = tmp_path / "boot_id"
    stuck = LoadJournal(tmp_path / "file" / "loading", boot_id=boot_id)
    stuck.begin("m", 1, "content")
    stuck.end("m", 1)
