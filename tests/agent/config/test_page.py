"""The generated page."""

from __future__ import annotations

from pathlib import Path

from inferd_agent.config import render_docs
from inferd_agent.config.schema import keys

PAGE = Path(__file__).resolve().parents[3] / "docs/configuration.md"


def test_the_checked_in_page_is_the_schemas() -> None:
    """docs/configuration.md is what `inferd config --docs` prints."""
    assert PAGE.read_text("utf-8") == render_docs()


def test_every_key_has_its_line() -> None:
    """Each key once, with its variable."""
    rows = [line for line in render_docs().splitlines() if line.startswith("| `") and "INFERD_" in line]
    assert len(rows) == len(list(keys()))
    assert all(any(f"`{key.name}`" in row and f"`{key.env}`" in row for row in rows) for key in keys())
