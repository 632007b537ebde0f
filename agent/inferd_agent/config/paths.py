"""Where things are: system paths for root, XDG paths for everybody else, systemd's folders where it gives them.

Knows nothing of the configuration's content; every function takes the environment and the uid it decides by.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

SYSTEM_SOCKET = Path("/run/inferd/inferd.sock")


@dataclass(frozen=True, slots=True)
class Paths:
    """The defaults of one user on one machine; `runtime_dir` is None where the session has none."""

    is_system: bool
    config_file: Path
    state_dir: Path
    cache_dir: Path
    runtime_dir: Path | None
    credentials_dir: Path | None

    @classmethod
    def of(cls, env: Mapping[str, str], uid: int, home: Path | None = None) -> Paths:
        """Decide by the environment and the uid. A service user under system paths counts as the system."""
        is_system = uid == 0 or env.get("STATE_DIRECTORY", "").startswith("/var/lib/")
        found = _system() if is_system else _user(env, home or Path.home())
        config_dir, state_dir, cache_dir, runtime_dir = found
        credentials = env.get("CREDENTIALS_DIRECTORY")
        return cls(
            is_system=is_system,
            config_file=_given(env, "CONFIGURATION_DIRECTORY", config_dir) / "inferd.toml",
            state_dir=_given(env, "STATE_DIRECTORY", state_dir),
            cache_dir=_given(env, "CACHE_DIRECTORY", cache_dir),
            runtime_dir=_given(env, "RUNTIME_DIRECTORY", runtime_dir) if runtime_dir else None,
            credentials_dir=Path(credentials) if credentials else None,
        )

    def socket(self, state_dir: Path) -> Path:
        """The default socket; beside the state where there is no runtime folder."""
        return (self.runtime_dir or state_dir) / "inferd.sock"

    def credential(self, name: str) -> str:
        """The path of a systemd credential that is there, else empty.

        Only the daemon itself is shown them, not the other commands of its unit.
        """
        if self.credentials_dir is None:
            return ""
        path = self.credentials_dir / name
        try:
            return str(path) if path.is_file() else ""
        except PermissionError:
            return ""


def _system() -> tuple[Path, Path, Path, Path | None]:
    return Path("/etc/inferd"), Path("/var/lib/inferd"), Path("/var/cache/inferd"), SYSTEM_SOCKET.parent


def _user(env: Mapping[str, str], home: Path) -> tuple[Path, Path, Path, Path | None]:
    def xdg(name: str, fallback: str) -> Path:
        value = env.get(name, "")  # the XDG specification says to ignore relative paths
        return (Path(value) if value.startswith("/") else home / fallback) / "inferd"

    runtime = env.get("XDG_RUNTIME_DIR", "")
    return (
        xdg("XDG_CONFIG_HOME", ".config"),
        xdg("XDG_STATE_HOME", ".local/state"),
        xdg("XDG_CACHE_HOME", ".cache"),
        Path(runtime) / "inferd" if runtime.startswith("/") and Path(runtime).is_dir() else None,
    )


def _given(env: Mapping[str, str], name: str, default: Path) -> Path:
    """systemd's folder of this kind, the first where several are set."""
    first = env.get(name, "").split(":")[0]
    return Path(first) if first else default
