"""`inferd config`: values with their story, and mistakes with their place."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.agent.cli.conftest import Run


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "inferd.toml"
    path.write_text("[runtime]\ncores = 3\n")
    return path


def test_every_value_has_its_origin(inferd: Run, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """File, environment, flag and default are told apart, for people and for machines."""
    monkeypatch.setenv("INFERD_LOG_LEVEL", "debug")
    args = ("config", "--config", file, "--state", file.parent)
    found = json.loads(inferd(*args, "--json").out)
    assert found["runtime.cores"] == {"value": 3, "from": f"{file}:2"}
    assert found["log.level"] == {"value": "debug", "from": "INFERD_LOG_LEVEL"}
    assert found["state.dir"] == {"value": str(file.parent), "from": "--state"}
    assert found["runtime.core_floor"]["from"] == "default"
    table = inferd(*args).out
    assert f"file: {file}" in table
    assert f"{file}:2" in table


def test_changed_leaves_the_defaults_out(inferd: Run, file: Path) -> None:
    """Only what somebody set."""
    found = json.loads(inferd("config", "--config", file, "--state", file.parent, "--changed", "--json").out)
    assert set(found) == {"runtime.cores", "state.dir"}


def test_a_mistake_is_shown_with_its_line(inferd: Run, file: Path) -> None:
    """Exit code 1, the place, and the key that was meant."""
    file.write_text("[runtime]\ncorse = 3\n")
    done = inferd("config", "--config", file)
    assert (done.exit_code, done.out) == (1, "")
    assert f"{file}:2" in done.err
    assert "cores" in done.err


def test_a_missing_file_is_said(inferd: Run, tmp_path: Path) -> None:
    """A file that was asked for must be there."""
    done = inferd("config", "--config", tmp_path / "none.toml")
    assert done.exit_code == 1
    assert "none.toml" in done.err


def test_docs_are_the_generated_page(inferd: Run) -> None:
    """`inferd config --docs` is what docs/configuration.md holds."""
    from inferd_agent.config import render_docs

    assert inferd("config", "--docs").out == render_docs()
