"""Fixtures over the fetched models; a conftest takes them with `from tests.models.fixtures import fetched_models`.

Without a network and without a filled cache the tests that need them skip, or fail where CI=true.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.models.fetch import FetchFailed, cache_root, fetch

# Read when tests are collected: each test gets an environment of its own later.
CACHE = cache_root()


@pytest.fixture(scope="session")
def fetched_models() -> Path:
    """The folder that `tests.models.fetch` makes; shared, so never write there."""
    try:
        return fetch(CACHE)
    except FetchFailed as error:
        if os.environ.get("CI") == "true":
            pytest.fail(str(error))
        pytest.skip(f"the test models are not there and cannot be fetched now: {error}")
