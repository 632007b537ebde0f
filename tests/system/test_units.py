"""The units as systemd itself judges them."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

UNITS = Path(__file__).parents[2] / "systemd"

needs_systemd = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")


@needs_systemd
def test_the_service_is_hardened(capsys: pytest.CaptureFixture[str]) -> None:
    """`systemd-analyze security` gives at most 1.2 of 10."""
    done = subprocess.run(
        ("systemd-analyze", "security", "--offline=yes", "--no-pager", UNITS / "inferd.service"),
        capture_output=True, text=True, timeout=50, check=False,
    )  # fmt: skip
    found = re.search(r"Overall exposure level for inferd\.service: ([0-9.]+)", done.stdout)
    assert found, done.stdout + done.stderr
    with capsys.disabled():
        print(f"\nsystemd-analyze security: {found[1]}")
    assert float(found[1]) <= 1.2


@needs_systemd
@pytest.mark.parametrize("drop_in", sorted(path.name for path in (UNITS / "drop-ins").iterdir()))
def test_a_drop_in_takes_away_no_more_than_it_says(drop_in: str, tmp_path: Path) -> None:
    """With each drop-in the service is still far from the 9.6 of a unit that says nothing."""
    unit = tmp_path / "inferd.service"
    unit.write_text((UNITS / "inferd.service").read_text() + (UNITS / "drop-ins" / drop_in).read_text())
    done = subprocess.run(
        ("systemd-analyze", "security", "--offline=yes", "--no-pager", "--threshold=25", unit),
        capture_output=True, text=True, timeout=50, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout


@needs_systemd
@pytest.mark.parametrize("unit", ["inferd.service", "inferd.socket", "user/inferd.service", "user/inferd.socket"])
def test_systemd_understands_every_line(unit: str, tmp_path: Path) -> None:
    """`systemd-analyze verify` has nothing to say but that the program and its manual are not installed here."""
    folder = (UNITS / unit).parent
    for path in folder.glob("inferd.*"):
        (tmp_path / path.name).write_text(path.read_text().replace("man:inferd(1)", "https://localhost/"))
    scope = "--user" if unit.startswith("user/") else "--system"
    done = subprocess.run(
        ("systemd-analyze", scope, "verify", tmp_path / Path(unit).name),
        capture_output=True, text=True, timeout=50, check=False,
        env={"PATH": "/usr/bin:/bin", "XDG_RUNTIME_DIR": "/run"},
    )  # fmt: skip
    said = [
        line for line in (done.stdout + done.stderr).splitlines() if "inferd" in line and "not executable" not in line
    ]
    assert said == []
