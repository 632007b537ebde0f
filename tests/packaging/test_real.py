"""The real packages, from the real wheelhouse: `make test-packages`, which takes minutes; as root it tries most."""

from __future__ import annotations

import filecmp
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.daemon import until
from tests.packaging.wheelhouse import ROOT
from tests.system.container import base_tree, booted, unmet

pytestmark = [
    pytest.mark.timeout(900),
    pytest.mark.skipif("TEST_PACKAGES" not in os.environ, reason="takes minutes: make test-packages"),
]
_MODELS = ROOT / "agent/inferd_agent/demo/models"
_IS_READY = "from inferd import Client; raise SystemExit(not Client().is_ready('digits', timeout_s=30))"


def _build(what: str, folder: Path) -> Path:
    """Build in a folder of its own and return the package."""
    places = ("--work", folder / "work", "--dest", folder / "dist")
    done = subprocess.run(
        (sys.executable, ROOT / "packaging/build", what, *places), check=True, capture_output=True, text=True, cwd=ROOT
    )
    return Path(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def deb(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real .deb; the tree that it was packed from lies in `work` beside it."""
    return _build("deb", tmp_path_factory.mktemp("deb"))


def test_two_builds_of_the_deb_are_identical(deb: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another folder, another time zone and another umask give the same bytes."""
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    before = os.umask(0o077)
    try:
        again = _build("deb", tmp_path)
    finally:
        os.umask(before)
    assert filecmp.cmp(deb, again, shallow=False)


@pytest.mark.skipif(shutil.which("rpmbuild") is None, reason="rpmbuild is not installed")
def test_two_builds_of_the_rpm_are_identical(tmp_path: Path) -> None:
    """The same for the RPM."""
    assert filecmp.cmp(_build("rpm", tmp_path / "1"), _build("rpm", tmp_path / "2"), shallow=False)


def test_nothing_that_is_needed_is_missing(deb: Path) -> None:
    """The packages in the environment want no package that is not there, nor another version of one."""
    python = deb.parents[1] / "work/deb-amd64/root/opt/inferd/bin/python3"
    done = subprocess.run(
        (sys.executable, "-m", "pip", "--python", python, "check"), check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.skipif(bool(unmet()), reason=unmet() or "-")
def test_the_bundle_serves_on_a_machine_without_a_network(tmp_path: Path) -> None:
    """Unpacked and installed in a Debian that has nothing but loopback; the first caller gets its answer."""
    with tarfile.open(_build("bundle", tmp_path)) as tar:
        tar.extractall(tmp_path, filter="data")
    (folder,) = tmp_path.glob("inferd-*/")
    with booted(tmp_path / "console", {"bundle": folder}) as box:
        said = box.run("sh", "/mnt/bundle/install.sh", timeout_s=300).stdout
        assert "installed the model digits" in said
        box.until(lambda: box.run("/opt/inferd/bin/python3", "-I", "-c", _IS_READY, check=False).returncode == 0)


@pytest.fixture
def podman() -> Iterator[Callable[..., subprocess.CompletedProcess[str]]]:
    """Runs podman on a store of its own, which is gone afterwards."""
    missing = [tool for tool in ("buildah", "podman", "runc") if shutil.which(tool) is None]
    if missing or os.geteuid() != 0:
        pytest.skip(f"needs root, and not installed: {', '.join(missing) or 'nothing'}")
    short = tempfile.mkdtemp(prefix="p-")  # podman takes no run folder of more than 50 characters
    store = ("--root", f"{short}/store", "--runroot", f"{short}/run", "--storage-driver", "vfs")

    def call(tool: str, *args: str | Path, check: bool = True) -> subprocess.CompletedProcess[str]:
        own = ("--cgroup-manager", "cgroupfs", "--runtime", "runc") if tool == "podman" else ()
        done = subprocess.run((tool, *store, *own, *args), check=False, capture_output=True, text=True)
        assert done.returncode == 0 or not check, f"{tool} {args}: {done.stdout}\n{done.stderr}"
        return done

    yield call
    call("podman", "rm", "--all", "--force", "--volumes", check=False)
    call("buildah", "rmi", "--all", "--force", check=False)
    shutil.rmtree(short, ignore_errors=True)


def test_a_container_serves_without_rights(
    deb: Path, podman: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    """Not root, no capability, a read-only root, no network: it answers, keeps to its quota, and stops at once."""
    image = _image(deb, podman, tmp_path / "context")
    models = shutil.copytree(_MODELS, tmp_path / "models")
    limits = ("--ulimit", "nofile=4096:4096", "--ulimit", "nproc=4096:4096", "--cpus", "1", "--memory", "1g")
    shut = ("--read-only", "--cap-drop", "all", "--security-opt", "no-new-privileges", "--network", "none")
    volume = ("--volume", f"{models}:/var/lib/inferd/models:ro", "--no-healthcheck")
    podman("podman", "run", "--detach", "--name", "inferd", *limits, *shut, *volume, image)
    inside = ("podman", "exec", "inferd")
    check = podman("podman", "image", "inspect", image, "--format", "{{json .Config.Healthcheck.Test}}").stdout
    assert "is_live" in check
    assert podman(*inside, "id", "-u").stdout.strip() != "0"
    assert podman(*inside, "touch", "/etc/x", check=False).returncode != 0
    until(lambda: podman(*inside, "/opt/inferd/bin/python3", "-I", "-c", _IS_READY, check=False).returncode == 0)
    assert "1 to use" in podman(*inside, "inferd", "probe").stdout
    podman("podman", "stop", "--time", "40", "inferd")
    assert podman("podman", "inspect", "inferd", "--format", "{{.State.ExitCode}}").stdout.strip() == "0"


def _image(deb: Path, podman: Callable[..., subprocess.CompletedProcess[str]], context: Path) -> str:
    """Build the image on a Debian made by debootstrap, for want of a registry, and return its name."""
    shutil.copytree(ROOT / "packaging/container", context / "packaging/container")
    (context / "dist").mkdir()
    shutil.copy2(deb, context / "dist")
    base = podman("buildah", "from", "scratch").stdout.strip()
    subprocess.run(("tar", "-C", base_tree(), "-cf", context / "base.tar", "."), check=True)
    podman("buildah", "add", base, context / "base.tar", "/")
    (context / "base.tar").unlink()
    podman("buildah", "commit", "--quiet", base, "localhost/base")
    podman("buildah", "rm", base)
    file = context / "packaging/container/Containerfile"
    how = ("--isolation", "chroot", "--network", "host", "--format", "docker", "--build-arg", "BASE=localhost/base")
    podman("buildah", "bud", *how, "--file", file, "--tag", "localhost/inferd", context)
    return "localhost/inferd"
