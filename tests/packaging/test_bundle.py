"""The bundle: whole on its own, the same wherever it is built, and installed only when every byte is right."""

from __future__ import annotations

import hashlib
import os
import subprocess
import tarfile
from pathlib import Path

import pytest

from tests.packaging import wheelhouse

pytestmark = pytest.mark.timeout(240)  # builds, and on a busy machine waits for another worker's build


@pytest.fixture(scope="module")
def bundle(deb: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle, built elsewhere than the .deb and with another umask, with one further package."""
    folder = tmp_path_factory.mktemp("bundle")
    further = folder / "further_1.0_all.deb"
    further.write_bytes(b"not really a package")
    done = wheelhouse.build("bundle", folder, "--debs", further, umask=0o077)
    assert done.returncode == 0, done.stderr
    return folder / "dist/inferd-0.1.0-amd64-bundle.tar"


@pytest.fixture
def unpacked(bundle: Path, tmp_path: Path) -> Path:
    """The bundle as it lies at the site."""
    with tarfile.open(bundle) as tar:
        tar.extractall(tmp_path, filter="data")
    return tmp_path / "inferd-0.1.0-amd64"


def test_two_builds_give_the_same_bytes(deb: Path, unpacked: Path) -> None:
    """The .deb in the bundle, built in another folder by another umask, is the .deb."""
    again = unpacked / "packages" / deb.name
    assert hashlib.sha256(again.read_bytes()).digest() == hashlib.sha256(deb.read_bytes()).digest()


def test_its_own_checksum_lies_beside_it(bundle: Path) -> None:
    """A site compares the file before it opens it."""
    digest, name = bundle.with_name(f"{bundle.name}.sha256").read_text().split()
    assert name == bundle.name
    assert hashlib.sha256(bundle.read_bytes()).hexdigest() == digest


def test_it_holds_packages_models_and_the_sdk(unpacked: Path) -> None:
    """Everything that the site needs, each file with its checksum."""
    listed = {line.split("  ", 1)[1] for line in (unpacked / "SHA256SUMS").read_text().splitlines()}
    present = {str(path.relative_to(unpacked)) for path in unpacked.rglob("*") if path.is_file()}
    assert present - listed == {"SHA256SUMS"}
    assert {"packages/further_1.0_all.deb", "models/digits/1/model.int8.onnx", "install.sh"} <= listed
    assert [name for name in listed if name.startswith("sdk/inferd-")]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root installs")
def test_models_are_installed_once(unpacked: Path, tmp_path: Path) -> None:
    """A model that is there already stays as it is; nothing is left beside the store."""
    store = tmp_path / "state/models"
    store.mkdir(parents=True)
    assert "installed the model digits" in _install(unpacked, store).stdout
    label = store / "digits/labels.txt"
    label.write_text("edited")
    assert "kept the model digits" in _install(unpacked, store).stdout
    assert label.read_text() == "edited"
    assert [path.name for path in store.parent.iterdir()] == ["models"]


def test_nothing_is_installed_of_a_bundle_that_was_changed(unpacked: Path, tmp_path: Path) -> None:
    """One byte more in one model, and the installer stops before it does anything."""
    store = tmp_path / "state/models"
    store.mkdir(parents=True)
    with (unpacked / "models/digits/labels.txt").open("a") as file:
        file.write("x")
    done = _install(unpacked, store)
    assert done.returncode != 0
    assert "labels.txt: FAILED" in done.stdout
    assert not list(store.iterdir())


def _install(unpacked: Path, store: Path) -> subprocess.CompletedProcess[str]:
    env = os.environ | {"MODELS": str(store), "SKIP_PACKAGES": "yes", "LC_ALL": "C"}
    command = ["sh", unpacked / "install.sh"]
    return subprocess.run(command, check=False, capture_output=True, text=True, env=env)
