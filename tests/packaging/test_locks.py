"""The lock files: what is installed from them has everything that a daemon can be asked for."""

from __future__ import annotations

import re
import tomllib

import pytest
from packaging.requirements import Requirement

from tests.packaging.wheelhouse import ROOT

SERVING = ("grpc", "embeddings", "images")


@pytest.mark.parametrize(("lock", "extras"), [("cpu", ("cpu", *SERVING)), ("cuda", ("cuda", *SERVING))])
def test_a_lock_has_all_that_serves(lock: str, extras: tuple[str, ...]) -> None:
    """Each requirement of inferd and of these extras is pinned, within its bounds."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    optional = project["optional-dependencies"]
    wanted = [*project["dependencies"], *(each for extra in extras for each in optional[extra])]
    text = (ROOT / f"packaging/locks/{lock}.txt").read_text()
    pins = re.findall(r"^([a-z0-9-]+)==(\S+)", text, re.MULTILINE)
    for requirement in map(Requirement, wanted):
        versions = [version for name, version in pins if name == requirement.name]
        assert versions, requirement
        assert all(version in requirement.specifier for version in versions), requirement


@pytest.mark.parametrize("lock", ["cpu", "cuda", "dev", "clients"])
def test_a_lock_is_of_versions_and_checksums_alone(lock: str) -> None:
    """No line says where anything is fetched, and nothing goes without a checksum."""
    text = (ROOT / f"packaging/locks/{lock}.txt").read_text()
    for entry in re.sub(r"\\\n", " ", text).splitlines():
        assert re.match(r"[a-z0-9-]+(\[[a-z0-9,-]+\])?==\S+ (; [^\\]+?)? *--hash=sha256:[0-9a-f]{64}", entry), entry
        assert "://" not in entry
