"""Loading, swapping, failing, draining: real files and real steps, served by a note of it."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from inferd_runtime.errors import Closed, EngineFault, InvalidModel, LoadFailed, ModelNotFound, ModelNotReady
from inferd_runtime.job import Job
from inferd_runtime.repository import keeper
from inferd_runtime.repository.layout import VersionFiles
from inferd_runtime.spec import State
from tests import onnx_models
from tests.runtime.repository.stage import RESCAN_S, FakeServed, Stage


def width(stage: Stage, name: str, version: int | None = None) -> int:
    """Which content serves."""
    served = stage.repository.get(name, version)
    assert isinstance(served, FakeServed)
    return served.width


def test_a_model_is_served_and_described(stage: Stage) -> None:
    """A folder becomes a ready version that tells what it is."""
    stage.install("m", 1)
    stage.settings("m", "[labels]\ny = 'labels.txt'")
    (stage.root / "m/labels.txt").write_text("a\nb\n")
    stage.settle()
    told = stage.repository.describe("m")
    assert (told.version, told.state, told.format, told.reason) == (1, State.READY, "onnx", "")
    assert told.spec == stage.repository.get("m").spec
    assert told.labels == {"y": ("a", "b")}
    assert told.quantisation is not None
    assert told.quantisation.kind == "float"
    assert len(told.digest) == 64
    assert told.file_bytes == (stage.root / "m/1/model.onnx").stat().st_size
    assert stage.repository.versions("m") == (1,)
    assert stage.repository.wait_loaded(0)
    assert stage.repository.is_ready()


def test_a_surprise_in_one_model_stops_no_other(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where looking after a model fails in a way nobody foresaw, it is FAILED with the reason and the rest serve."""

    def surprised(*_: object) -> None:
        raise RuntimeError("nobody foresaw this")

    stage.install("a", 1)
    stage.install("b", 1)
    stage.settings("a", "max_batch = 8")
    broken = stage.root / "a" / "model.toml"
    real = keeper.read_settings
    monkeypatch.setattr(
        keeper, "read_settings", lambda path, *more: (surprised if path == broken else real)(path, *more)
    )
    stage.settle()
    assert stage.states("a") == {1: "FAILED"}
    assert "nobody foresaw this" in stage.repository.describe("a").reason
    assert stage.states("b") == {1: "READY"}


def test_nothing_is_known_of_an_unknown_model(stage: Stage) -> None:
    """What is not there raises ModelNotFound everywhere, and a version that is not there names those that are."""
    stage.install("m", 2)
    stage.settle()
    for call in (stage.repository.get, stage.repository.describe, stage.repository.versions):
        with pytest.raises(ModelNotFound, match="no model 'x'"):
            call("x")  # type: ignore[operator]
    with pytest.raises(ModelNotFound, match="no version 1, only 2"):
        stage.repository.get("m", 1)
    with pytest.raises(ModelNotFound, match="no version 1, only 2"):
        stage.repository.describe("m", 1)


def test_a_growing_file_is_invisible_until_it_lies_still(stage: Stage) -> None:
    """A version that is being copied is never opened half-way."""
    data = stage.install("m").read_bytes()
    path = stage.root / "m/1/model.onnx"
    for end in range(0, len(data), 20):
        path.write_bytes(data[:end])
        stage.look()
        stage.clock.now += 0.3
    assert stage.opener.opened == []
    assert stage.states("m") == {1: "UNLOADED"}
    with pytest.raises(ModelNotReady, match="still changing"):
        stage.repository.get("m")
    path.write_bytes(data)
    stage.settle()
    assert stage.opener.opened == [("m", 1)]
    assert stage.states("m") == {1: "READY"}


def test_files_that_change_while_loading_do_not_count(stage: Stage) -> None:
    """What was opened from files that changed meanwhile is thrown away, and loaded again once they lie still."""
    stage.install("m", width=4)

    def change(files: VersionFiles) -> None:
        stage.opener.before = lambda files: None
        stage.install("m", width=5)

    stage.opener.before = change
    stage.settle()
    assert width(stage, "m") == 5
    assert len(stage.opener.opened) == 2


@pytest.mark.parametrize("garbage", [b"garbage", b"\x00" * 1000, b"\x08" + b"\xff" * 50])
def test_garbage_fails_with_its_reason_and_harms_nobody(stage: Stage, garbage: bytes) -> None:
    """A file that is no model is FAILED, tried once, and the others serve."""
    path = stage.install("bad")
    path.write_bytes(garbage)
    stage.install("good")
    stage.opener.before = lambda files: files.name == "good" or pytest.fail("garbage reached the engine")
    stage.settle()
    assert stage.states("bad") == {1: "FAILED"}
    assert stage.repository.describe("bad").reason
    assert stage.states("good") == {1: "READY"}
    assert not stage.repository.is_ready()
    stage.settle()
    assert len(stage.opener.opened) <= 2
    with pytest.raises(ModelNotReady, match="FAILED"):
        stage.repository.get("bad")


def test_any_fault_of_opening_is_kept_as_a_reason(stage: Stage) -> None:
    """Even an error that nobody expected fails only its version."""
    stage.install("m")
    for fault in (EngineFault("no memory"), RuntimeError("surprise"), MemoryError()):
        stage.opener.fault = fault
        with pytest.raises(LoadFailed):
            stage.order(lambda: stage.repository.load("m"))
        assert stage.states("m") == {1: "FAILED"}
        assert str(fault) in stage.repository.describe("m").reason
    stage.opener.fault = None
    stage.order(lambda: stage.repository.load("m"))
    assert stage.states("m") == {1: "READY"}


def test_new_content_swaps_after_it_is_open(stage: Stage) -> None:
    """The old content serves until the new one is open, then drains and closes."""
    stage.install("m", width=4)
    stage.settle()
    old = stage.opener.all[0]
    seen: list[int] = []
    stage.opener.before = lambda files: seen.append(width(stage, "m"))
    stage.install("m", width=5)
    stage.settle()
    assert seen == [4]
    assert width(stage, "m") == 5
    stage.repository.close()
    assert old.is_drained
    assert old.is_closed


def test_bad_new_content_keeps_the_old(stage: Stage) -> None:
    """An update that cannot be loaded changes nothing but the reason, and is not tried again and again."""
    path = stage.install("m", width=4)
    stage.settle()
    path.write_bytes(b"garbage")
    stage.settle()
    stage.settle()
    told = stage.repository.describe("m")
    assert told.state is State.READY
    assert "the old one serves on" in told.reason
    assert width(stage, "m") == 4
    assert stage.repository.is_ready()
    path.write_bytes(b"")
    stage.settle()
    assert "is empty" in stage.repository.describe("m").reason
    assert width(stage, "m") == 4
    stage.install("m", width=6)
    stage.settle()
    assert (width(stage, "m"), stage.repository.describe("m").reason) == (6, "")


def test_a_touched_file_is_not_loaded_again(stage: Stage) -> None:
    """The same bytes written again are the same content."""
    path = stage.install("m")
    stage.settle()
    path.write_bytes(path.read_bytes())
    stage.settings("m", "")
    stage.settle()
    assert len(stage.opener.opened) == 1
    assert stage.look() == RESCAN_S


def test_settings_and_labels_reload(stage: Stage) -> None:
    """Other settings or labels are another way of serving, so the version is loaded anew."""
    stage.install("m")
    stage.settings("m", "[labels]\ny = 'l'")
    (stage.root / "m/l").write_text("a")
    stage.settle()
    (stage.root / "m/l").write_text("b\nc")
    stage.settle()
    assert stage.repository.describe("m").labels == {"y": ("b", "c")}
    stage.settings("m", "threads = 1")
    stage.settle()
    assert stage.repository.describe("m").labels == {}
    assert len(stage.opener.opened) == 3


def test_bad_settings_are_told(stage: Stage) -> None:
    """Wrong settings fail a model that is not loaded, and leave one that serves alone, until they are right."""
    stage.install("m")
    stage.settings("m", "theads = 1")
    stage.settle()
    assert stage.states("m") == {1: "FAILED"}
    assert "nearest known key is 'threads'" in stage.repository.describe("m").reason
    with pytest.raises(InvalidModel, match="theads"):
        stage.order(lambda: stage.repository.load("m"))
    stage.settings("m", "threads = 1")
    stage.settle()
    assert stage.states("m") == {1: "READY"}
    stage.settings("m", "threads = -1")
    stage.settle()
    told = stage.repository.describe("m")
    assert told.state is State.READY
    assert "threads = -1" in told.reason


def test_a_bare_file_has_settings_and_labels_beside_it(stage: Stage) -> None:
    """`<name>.toml` and the labels that it names lie beside a bare model file, and are followed like any other."""
    onnx_models.identity(stage.root / "m.onnx")
    (stage.root / "m.toml").write_text("[labels]\ny = 'm.labels'")
    (stage.root / "m.labels").write_text("a\nb")
    stage.settle()
    assert stage.repository.describe("m").labels == {"y": ("a", "b")}
    (stage.root / "m.toml").unlink()
    stage.settle()
    assert stage.repository.describe("m").labels == {}


def test_labels_must_name_outputs(stage: Stage) -> None:
    """Labels for an output that the model does not have are a mistake, told with the outputs it has."""
    stage.install("m")
    stage.settings("m", "[labels]\nz = 'l'")
    (stage.root / "m/l").write_text("a")
    stage.settle()
    assert "outputs are 'y'" in stage.repository.describe("m").reason
    assert stage.opener.all[0].is_closed


def test_latest_is_the_default_policy(stage: Stage) -> None:
    """The highest version serves; a higher one takes over and the old one drains."""
    stage.install("m", 1)
    stage.install("m", 2)
    stage.settle()
    assert stage.states("m") == {1: "UNLOADED", 2: "READY"}
    assert "version 2 is served" in stage.repository.describe("m", 1).reason
    stage.install("m", 10)
    stage.settle()
    assert stage.states("m") == {1: "UNLOADED", 2: "UNLOADED", 10: "READY"}
    assert stage.repository.get("m") is stage.repository.get("m", 10)
    with pytest.raises(ModelNotReady, match="version 2 is UNLOADED"):
        stage.repository.get("m", 2)


def test_a_failed_latest_leaves_the_one_before(stage: Stage) -> None:
    """A bad new version rolls back by itself: while serving, and at the next start."""
    stage.install("m", 1)
    stage.settle()
    stage.install("m", 2, width=7)
    stage.opener.faulty_widths = {7}
    stage.settle()
    assert stage.states("m") == {1: "READY", 2: "FAILED"}
    assert stage.repository.is_ready()
    assert len(stage.opener.opened) == 2
    stage.repository.close()
    stage.repository = stage.build()
    stage.settle()
    assert stage.states("m") == {1: "READY", 2: "FAILED"}
    with pytest.raises(LoadFailed, match="not liked"):
        stage.order(lambda: stage.repository.load("m"))
    assert stage.states("m") == {1: "READY", 2: "FAILED"}


def test_deleted_latest_gives_way_to_the_one_before(stage: Stage, tmp_path: Path) -> None:
    """When the served version is deleted, the next lower one is loaded again."""
    stage.install("m", 1)
    stage.install("m", 2)
    stage.settle()
    (stage.root / "m/2").rename(tmp_path / "away")
    stage.settle()
    assert stage.states("m") == {1: "READY"}


def test_all_versions(stage: Stage) -> None:
    """`versions = "all"` serves every version; None means the highest."""
    stage.install("m", 1, width=1)
    stage.install("m", 2, width=2)
    stage.settings("m", 'versions = "all"')
    stage.settle()
    assert stage.repository.versions("m") == (1, 2)
    assert (width(stage, "m", 1), width(stage, "m", 2), width(stage, "m")) == (1, 2, 2)
    assert len(stage.repository.serving()) == 2


def test_listed_versions(stage: Stage) -> None:
    """A list serves those versions, tells the missing one, and follows changes of the list."""
    for version in (1, 2, 3):
        stage.install("m", version)
    stage.settings("m", "versions = [1, 2, 9]")
    stage.settle()
    assert stage.states("m") == {1: "READY", 2: "READY", 3: "UNLOADED", 9: "FAILED"}
    assert "not there" in stage.repository.describe("m", 9).reason
    stage.settings("m", "versions = [3]")
    stage.settle()
    assert stage.states("m") == {1: "UNLOADED", 2: "UNLOADED", 3: "READY"}


def test_a_policy_that_loads_nothing_keeps_what_serves(stage: Stage) -> None:
    """Changing the list to a version that fails leaves the old ones serving."""
    stage.install("m", 1)
    stage.install("m", 2, width=7)
    stage.opener.faulty_widths = {7}
    stage.settings("m", "versions = [1]")
    stage.settle()
    stage.settings("m", "versions = [2]")
    stage.settle()
    assert stage.states("m") == {1: "READY", 2: "FAILED"}


def test_first_root_wins_and_the_other_is_told(tmp_path: Path) -> None:
    """A shadowed model is shown as version 0, not served, and makes nothing unready; it takes over once it may."""
    stage = Stage(tmp_path, roots=("a", "b"))
    stage.install("m", 1, width=1, root=0)
    stage.install("m", 1, width=2, root=1)
    stage.settle()
    assert width(stage, "m") == 1
    assert stage.states("m") == {0: "UNLOADED", 1: "READY"}
    assert stage.repository.is_ready()
    (stage.roots[0] / "m").rename(tmp_path / "away")
    stage.settle()
    assert width(stage, "m") == 2
    assert stage.states("m") == {1: "READY"}
    stage.repository.close()


def test_refused_folders_are_shown(stage: Stage) -> None:
    """A folder that is no model is shown with its reason; asking to load it gives the reason."""
    (stage.root / "not good").mkdir()
    (stage.root / "not good/x").write_text("")
    onnx_models.identity(stage.root / "loose/model.onnx")
    stage.settle()
    assert stage.states("not good") == {0: "FAILED"}
    assert stage.repository.is_ready()
    with pytest.raises(InvalidModel, match="put it in a version"):
        stage.order(lambda: stage.repository.load("loose"))


def test_deletion_drains_and_forgets(stage: Stage, tmp_path: Path) -> None:
    """A model whose folder goes away is drained before it is closed, then unknown."""
    stage.install("m")
    stage.settle()
    served = stage.opener.all[0]
    served.may_drain.clear()
    (stage.root / "m").rename(tmp_path / "away")
    stage.look()
    assert stage.states("m") == {1: "READY"}
    stage.clock.now += 1
    stage.look()
    assert stage.states("m") == {1: "DRAINING"}
    with pytest.raises(ModelNotReady, match="files are gone"):
        stage.repository.get("m")
    assert not served.is_closed
    served.may_drain.set()
    stage.settle()
    assert stage.states("m") == {}
    assert served.is_closed


def test_a_folder_replaced_by_rename_is_one_update(stage: Stage, tmp_path: Path) -> None:
    """Moving the old folder away and a new one in, with a look between, drops nothing."""
    stage.install("m", width=4)
    stage.settle()
    stage.install("new", width=5)
    (stage.root / "m").rename(tmp_path / "away")
    stage.look()
    assert width(stage, "m") == 4
    (stage.root / "new").rename(stage.root / "m")
    stage.settle()
    assert width(stage, "m") == 5
    assert stage.states("m") == {1: "READY"}


def test_unload_lasts_until_load(stage: Stage) -> None:
    """An unloaded model stays so whatever happens to its files, until somebody loads it."""
    stage.install("m")
    stage.settle()
    stage.order(lambda: stage.repository.unload("m"))
    assert stage.states("m") == {1: "UNLOADED"}
    assert stage.opener.all[0].is_closed
    stage.install("m", width=5)
    stage.install("m", 2)
    stage.settle()
    assert stage.states("m") == {1: "UNLOADED", 2: "UNLOADED"}
    assert stage.repository.is_ready()
    with pytest.raises(ModelNotReady, match="unloaded on request"):
        stage.repository.get("m")
    stage.order(lambda: stage.repository.unload("m"))
    stage.order(lambda: stage.repository.load("m"))
    assert stage.states("m") == {1: "UNLOADED", 2: "READY"}
    with pytest.raises(ModelNotFound):
        stage.order(lambda: stage.repository.unload("x"))


def test_load_reloads_what_serves(stage: Stage) -> None:
    """An explicit load opens even the same content again, without a gap."""
    stage.install("m")
    stage.settle()
    first = stage.repository.get("m")
    stage.order(lambda: stage.repository.load("m"))
    assert stage.repository.get("m") is not first
    with pytest.raises(ModelNotFound):
        stage.order(lambda: stage.repository.load("x"))


def test_load_finds_what_was_just_installed(stage: Stage) -> None:
    """A load right after copying waits until the files lie still."""
    stage.settle()
    stage.install("m")
    stage.order(lambda: stage.repository.load("m"))
    assert stage.states("m") == {1: "READY"}


def test_load_on_request_only(tmp_path: Path) -> None:
    """With load="none" everything is known, nothing is loaded, and the daemon is ready."""
    stage = Stage(tmp_path, load="none")
    stage.install("m")
    stage.install("n")
    stage.settle()
    assert stage.opener.opened == []
    assert stage.repository.is_ready()
    stage.order(lambda: stage.repository.load("m"))
    assert (stage.states("m"), stage.states("n")) == ({1: "READY"}, {1: "UNLOADED"})
    stage.repository.close()


@pytest.mark.parametrize("location", ["../../secret.bin", "/etc/passwd", "weights/../../x", "missing.bin", "..\\x"])
def test_external_data_outside_the_version_is_refused(stage: Stage, location: str) -> None:
    """Weights from anywhere else are refused before an engine sees the model."""
    (stage.root / "secret.bin").write_bytes(bytes(64))
    onnx_models.external_data(stage.root / "m/1/model.onnx", location)
    stage.settle()
    assert stage.states("m") == {1: "FAILED"}
    assert "wants weights from" in stage.repository.describe("m").reason
    assert stage.opener.opened == []


def test_external_data_of_its_own_is_fine(stage: Stage) -> None:
    """Weights among the version's own files are part of it: a change of theirs is a change of the version."""
    onnx_models.external_data(stage.root / "m/1/model.onnx", "weights/w.bin")
    weights = stage.root / "m/1/weights/w.bin"
    weights.parent.mkdir()
    weights.write_bytes(bytes(64))
    stage.settle()
    assert stage.states("m") == {1: "READY"}
    digest = stage.repository.describe("m").digest
    weights.write_bytes(bytes(63) + b"\x01")
    stage.settle()
    assert stage.repository.describe("m").digest != digest


def test_a_root_that_cannot_be_read_changes_nothing(stage: Stage, tmp_path: Path) -> None:
    """While a root cannot be listed (a lost mount, say), what serves goes on."""
    stage.install("m")
    stage.settle()
    stage.root.rename(tmp_path / "away")
    stage.root.write_text("not a folder")
    stage.settle()
    assert stage.states("m") == {1: "READY"}
    stage.root.unlink()
    stage.settle()
    assert stage.states("m") == {}


def test_swap_under_traffic_loses_no_job(tmp_path: Path) -> None:
    """Threads that submit all the while never meet a closed version, whatever is swapped."""
    stage = Stage(tmp_path)
    stage.install("m")
    stage.settle()
    stop = threading.Event()
    faults: list[BaseException] = []
    counts = [0] * 4

    def submit(index: int) -> None:
        while not stop.wait(0.0005):
            for chance in (1, 2, 3):
                try:
                    stage.repository.get("m").submit(Job("m", {}))
                    counts[index] += 1
                    break
                except Closed as error:
                    if chance == 3:
                        faults.append(error)
                except BaseException as error:
                    faults.append(error)
                    return

    threads = [threading.Thread(target=submit, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for swap in range(6):
        stage.install("m", 1 + swap // 2, width=5 + swap)
        stage.settle()
    stop.set()
    for thread in threads:
        thread.join()
    assert not faults
    assert sum(counts) == sum(served.served for served in stage.opener.all)
    stage.repository.close()
    assert len(stage.opener.all) == 7
    assert all(served.is_closed for served in stage.opener.all)


def test_close_answers_everybody(stage: Stage) -> None:
    """Closing closes what serves and refuses what comes after."""
    stage.install("m")
    stage.settle()
    stage.repository.close()
    stage.repository.close()
    assert stage.opener.all[0].is_closed
    assert stage.repository.models() == ()
    with pytest.raises(Closed):
        stage.repository.load("m")


def test_close_ends_the_wait_for_the_first_round(stage: Stage) -> None:
    """Whoever waits for the first models when the daemon stops is let go at once."""
    found: list[bool] = []
    waiting = threading.Thread(target=lambda: found.append(stage.repository.wait_loaded(60)))
    waiting.start()
    stage.repository.close()
    waiting.join(30)
    assert found == [False]


def test_a_slow_load_does_not_end_the_first_round(stage: Stage) -> None:
    """However long one model takes to load, the others that are to settle still belong to the first round."""
    stage.install("a")
    stage.install("b")
    stage.opener.before = lambda files: setattr(stage.clock, "now", stage.clock.now + 100)
    for size in (4, 6, 5):
        stage.install("b", width=size)
        stage.look()
        stage.clock.now += 1
    assert stage.opener.opened == [("a", 1)]
    assert not stage.repository.wait_loaded(0)
    stage.settle()
    assert stage.repository.wait_loaded(0)
    assert width(stage, "b") == 5


def test_a_refresh_swaps_without_a_gap(stage: Stage) -> None:
    """What serves is opened once more and replaced; a failure keeps the old one, and what does not serve is refused."""
    stage.install("m")
    stage.settle()
    old = stage.repository.get("m")
    stage.order(lambda: stage.repository.refresh("m", 1))
    new = stage.repository.get("m")
    assert new is not old
    assert stage.states("m") == {1: "READY"}
    stage.opener.fault = LoadFailed("no luck")
    stage.order(lambda: stage.repository.refresh("m", 1))
    assert stage.repository.get("m") is new
    assert "no luck" in stage.repository.describe("m").reason
    with pytest.raises(LoadFailed):
        stage.order(lambda: stage.repository.load("m"))
    stage.opener.fault = None
    stage.order(lambda: stage.repository.refresh("m", 1))  # no word of the failure before
    assert stage.repository.get("m") is not new
    with pytest.raises(ModelNotReady, match="version 7 does not serve"):
        stage.order(lambda: stage.repository.refresh("m", 7))
