"""Fixtures of the repository's tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.runtime.repository.stage import Stage


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    """A repository on real files that only the test drives."""
    stage = Stage(tmp_path)
    yield stage
    stage.repository.close()
