"""The systemd unit: installed, enabled, alive, and as hardened as it was shipped."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from inferd_agent.doctor.finding import Finding, error, ok, warning

NAME = "inferd.service"
# What the shipped unit scores, rounded up; `systemd-analyze security` counts from 0 (closed) to 10 (open).
MOST_EXPOSURE = 1.2
MOST_ON_LAN = 2.0  # with the shipped drop-ins for the LAN and for GPUs
_MOST_RESTARTS = 3
_COMMAND_S = 20.0
_EXPOSURE = re.compile(r"Overall exposure level for \S+: ([0-9.]+)")
_SPAN = re.compile(r"([0-9.]+)(us|ms|s|min)")
_SECONDS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0}
_PROPERTIES = (
    "LoadState,ActiveState,UnitFileState,User,NRestarts,CPUQuotaPerSecUSec,ControlGroup,NeedDaemonReload,PrivateNetwork"
)

Run = Callable[[Sequence[str]], str | None]


@dataclass(frozen=True, slots=True)
class Unit:
    """What systemd says. `exposure` is None where it does not score user units or is too old to."""

    is_systemd: bool
    is_user: bool = False
    load_state: str = ""
    active_state: str = ""
    file_state: str = ""
    user: str = ""
    restarts: int = 0
    quota_cores: float | None = None
    control_group: str = ""
    needs_reload: bool = False
    exposure: float | None = None
    has_network: bool = True

    @property
    def is_installed(self) -> bool:
        return self.load_state not in ("", "not-found")

    @property
    def systemctl(self) -> str:
        """The command for this manager."""
        return "systemctl --user" if self.is_user else "systemctl"


def run(command: Sequence[str]) -> str | None:
    """What a command prints; None where it is missing, fails or takes too long."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_COMMAND_S, check=False)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def read_unit(*, is_user: bool, run: Run = run, root: Path = Path("/")) -> Unit:
    """Ask systemd, if it is what runs this machine."""
    if not (root / "run/systemd/system").is_dir():
        return Unit(is_systemd=False)
    manager = ("--user",) if is_user else ()
    text = run(("systemctl", *manager, "show", NAME, f"--property={_PROPERTIES}"))
    if text is None:
        return Unit(is_systemd=False)
    found = parse_unit(dict(line.partition("=")[::2] for line in text.splitlines()), is_user=is_user)
    if not found.is_installed or is_user:
        return found
    return _with_exposure(found, run(("systemd-analyze", "security", "--no-pager", NAME)))


def parse_unit(values: Mapping[str, str], *, is_user: bool) -> Unit:
    """From the output of `systemctl show`."""
    restarts = values.get("NRestarts", "")
    return Unit(
        True,
        is_user,
        values.get("LoadState", ""),
        values.get("ActiveState", ""),
        values.get("UnitFileState", ""),
        values.get("User", ""),
        int(restarts) if restarts.isdigit() else 0,
        parse_span_s(values.get("CPUQuotaPerSecUSec", "")),
        values.get("ControlGroup", ""),
        values.get("NeedDaemonReload") == "yes",
        has_network=values.get("PrivateNetwork") != "yes",
    )


def parse_span_s(text: str) -> float | None:
    """`1min 30s` -> 90.0; None for infinity."""
    parts = _SPAN.findall(text)
    return sum(float(count) * _SECONDS[unit] for count, unit in parts) if parts else None


def check_unit(unit: Unit, *, is_on_lan: bool = False) -> Iterator[Finding]:
    """Each thing that keeps it from coming back by itself, from being closed, or from the network that it wants."""
    if not unit.is_systemd:
        yield ok("unit", "systemd does not run this machine; whoever starts the daemon must restart it, too")
        return
    if not unit.is_installed:
        yield warning("unit", f"{NAME} is not installed, so nobody starts the daemon", "install the package inferd")
        return
    if unit.active_state == "failed":
        yield error("unit", f"{NAME} has failed", f"journalctl {'--user ' if unit.is_user else ''}-u inferd -n 50")
    if unit.file_state == "disabled":
        yield warning("unit", f"{NAME} does not start at boot", f"{unit.systemctl} enable --now inferd.socket inferd")
    if unit.needs_reload:
        yield warning("unit", "unit files changed, systemd has not read them", f"{unit.systemctl} daemon-reload")
    if unit.restarts > _MOST_RESTARTS:
        yield warning(
            "unit", f"systemd restarted the daemon {unit.restarts} times", "journalctl -u inferd | grep -i fail"
        )
    if is_on_lan and not unit.has_network:
        yield error(
            "unit", "lan.enabled is on, but the unit has no network",
            "install -D -m 644 /usr/share/inferd/drop-ins/lan.conf /etc/systemd/system/inferd.service.d/lan.conf;"
            " systemctl daemon-reload; systemctl restart inferd",
        )  # fmt: skip
    most = MOST_ON_LAN if is_on_lan else MOST_EXPOSURE
    if unit.exposure is not None and unit.exposure > most:
        yield warning(
            "unit", f"its exposure is {unit.exposure:g}, as shipped it is at most {most:g}",
            "systemctl cat inferd shows the drop-in that opens it; systemd-analyze security inferd says how far",
        )  # fmt: skip
    if unit.active_state != "failed":
        score = f", exposure {unit.exposure:g}" if unit.exposure is not None else ""
        yield ok("unit", f"{NAME} is {unit.active_state or 'installed'}{score}")


def _with_exposure(unit: Unit, text: str | None) -> Unit:
    match = _EXPOSURE.search(text or "")
    return replace(unit, exposure=float(match[1])) if match else unit
