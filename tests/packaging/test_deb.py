"""The .deb of made-up wheels: what it holds, whose it is, and that it is the same wherever it is built."""

from __future__ import annotations

import hashlib
import io
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.packaging import wheelhouse

pytestmark = pytest.mark.timeout(240)  # builds, and on a busy machine waits for another worker's build
_SITE_PACKAGES = "./opt/inferd/lib/python{}/site-packages/"


@pytest.fixture
def files(deb: Path) -> Iterator[tarfile.TarFile]:
    """The package's files."""
    yield from _opened(deb, "--fsys-tarfile")


@pytest.fixture
def control(deb: Path) -> Iterator[tarfile.TarFile]:
    """The package's control files and scripts."""
    yield from _opened(deb, "--ctrl-tarfile")


def _opened(deb: Path, part: str) -> Iterator[tarfile.TarFile]:
    data = subprocess.run(["dpkg-deb", part, deb], check=True, capture_output=True).stdout
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        yield tar


def _read(tar: tarfile.TarFile, name: str) -> str:
    member = tar.extractfile(name)
    assert member is not None
    return member.read().decode()


def test_each_python_gets_the_wheels_that_are_meant_for_it(files: tarfile.TarFile) -> None:
    """A marker is judged by the Python that will run, whichever one builds."""
    for python, version in (("3.11", "1.0"), ("3.13", "2.0")):
        site_packages = _SITE_PACKAGES.format(python)
        assert _read(files, f"{site_packages}native/__init__.py") == f"VERSION = '{version}'\n"
        assert f"{site_packages}inferd_agent/daemon.py" in files.getnames()


def test_a_file_that_pythons_share_is_there_once(files: tarfile.TarFile) -> None:
    """The second name of the same file takes no room."""
    second = files.getmember(_SITE_PACKAGES.format("3.13") + "plain/common.py")
    assert second.islnk()
    assert second.linkname == _SITE_PACKAGES.format("3.11") + "plain/common.py"


def test_nothing_is_left_of_the_build(files: tarfile.TarFile) -> None:
    """No build tool, no compiled file, no record of pip's, no script with the builder's path."""
    names = files.getnames()
    assert not [name for name in names if "hatchling" in name or name.endswith((".pyc", "/RECORD", "direct_url.json"))]
    assert not [name for name in names if "native-tool" in name or "/site-packages/bin" in name]


def test_everything_is_roots_and_nobody_else_may_write(files: tarfile.TarFile) -> None:
    """Owner root, modes 0755 and 0644, and one date."""
    assert {(member.uname, member.gname) for member in files} == {("root", "root")}
    assert {oct(member.mode) for member in files if not member.issym()} == {"0o755", "0o644"}
    assert len({member.mtime for member in files}) == 1
    executable = [member.name for member in files if member.isfile() and member.mode & 0o111]
    assert executable == ["./opt/inferd/bin/inferd"]


def test_inferd_is_on_the_path_with_its_pages_and_units(files: tarfile.TarFile) -> None:
    """The command, the distribution's Python below it, manual pages, completions, units, the documentation."""
    assert files.getmember("./usr/bin/inferd").linkname == "/opt/inferd/bin/inferd"
    assert files.getmember("./opt/inferd/bin/python3").linkname == "/usr/bin/python3"
    assert _read(files, "./opt/inferd/bin/inferd").startswith("#!/opt/inferd/bin/python3 -I\n")
    assert {
        "./usr/share/man/man1/inferd.1.gz",
        "./usr/share/man/man5/inferd.toml.5.gz",
        "./usr/share/bash-completion/completions/inferd",
        "./usr/share/zsh/vendor-completions/_inferd",
        "./usr/share/fish/vendor_completions.d/inferd.fish",
        "./usr/share/doc/inferd/copyright",
        "./usr/lib/systemd/system/inferd.service",
        "./usr/lib/systemd/system/inferd.socket",
        "./usr/lib/systemd/user/inferd.service",
    } <= set(files.getnames())
    assert not [name for name in files.getnames() if ".service.d" in name], "a drop-in takes effect without being asked"


def test_the_configuration_is_the_administrators(control: tarfile.TarFile) -> None:
    """dpkg asks before it replaces an edited file."""
    assert _read(control, "./conffiles") == "/etc/inferd/inferd.toml\n"


def test_the_control_file_names_the_pythons_that_serve(control: tarfile.TarFile) -> None:
    """A Python between those that the package serves is refused, as are older and newer ones."""
    text = _read(control, "./control")
    assert "python3 (>= 3.11), python3 (<< 3.12) | python3 (>= 3.13), python3 (<< 3.14)" in text
    assert "Architecture: amd64\n" in text


def test_checksums_are_those_of_the_files(files: tarfile.TarFile, control: tarfile.TarFile) -> None:
    """`dpkg --verify` finds what somebody changed."""
    lines = [line.split("  ", 1) for line in _read(control, "./md5sums").splitlines()]
    assert len(lines) > 100
    for digest, name in lines:
        member = files.extractfile(f"./{name}")
        assert member is not None
        assert hashlib.md5(member.read(), usedforsecurity=False).hexdigest() == digest, name


def test_scripts_are_sound_shell(control: tarfile.TarFile, tmp_path: Path) -> None:
    """Every maintainer script parses, ends at the first error, and may be run."""
    for name in ("postinst", "prerm", "postrm"):
        assert control.getmember(f"./{name}").mode == 0o755
        script = tmp_path / name
        script.write_text(_read(control, f"./{name}"))
        subprocess.run(["sh", "-n", script], check=True)
        assert "\nset -e\n" in script.read_text()


def test_a_wheel_with_another_checksum_is_refused(tmp_path: Path) -> None:
    """A wheel that was exchanged in the wheelhouse stops the build."""
    wheels, _ = wheelhouse.make(tmp_path)
    with (wheels / "plain-1.0-py3-none-any.whl").open("ab") as file:
        file.write(b"more")
    done = wheelhouse.build("deb", tmp_path)
    assert done.returncode == 1
    assert "DO NOT MATCH THE HASHES" in done.stderr
    assert not list(tmp_path.rglob("*.deb"))


def test_without_wheels_the_error_says_how_to_get_them(tmp_path: Path) -> None:
    """An empty wheelhouse is told as one."""
    wheels, _ = wheelhouse.make(tmp_path)
    for path in wheels.iterdir():
        path.unlink()
    done = wheelhouse.build("deb", tmp_path)
    assert done.returncode == 1
    assert "`make wheelhouse` fetches them" in done.stderr
