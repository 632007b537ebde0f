"""What a command says when it could not do its work, and with which exit code: the one table of both.

Every text says what happened and then what to do about it. Errors that are not in the table are bugs.
"""

from __future__ import annotations

from dataclasses import dataclass

from inferd import errors as sdk
from inferd_runtime import errors as domain

EXIT_FAILED, EXIT_USAGE, EXIT_UNREACHABLE, EXIT_DENIED, EXIT_NO_MODEL = 1, 2, 3, 4, 5


@dataclass(frozen=True, slots=True)
class Failure:
    """The lines for standard error, and the exit code."""

    exit_code: int
    lines: tuple[str, ...]


# The first row that fits, so the more special kinds come first.
_KNOWN: tuple[tuple[type[Exception], int, str], ...] = (
    (sdk.BadAddress, EXIT_USAGE, ""),
    (
        sdk.Untrusted,
        EXIT_UNREACHABLE,
        "Compare fingerprints: `inferd tls show` on the device tells the right one.\nTrust it, or trust it anew: inferd"
        " trust NAME [--replace]",
    ),
    (
        sdk.TLSError,
        EXIT_UNREACHABLE,
        "Trust the daemon's CA with --ca FILE or INFERD_CA: it is tls/ca.pem in the daemon's state folder, and"
        " SOCKET.ca.pem beside a Unix socket.",
    ),
    (
        sdk.ConnectionFailed,
        EXIT_UNREACHABLE,
        "Is the daemon running? Start it with: inferd serve --models DIR\nIf it listens elsewhere, say where: --url"
        " unix:/path/to/socket or https://HOST:PORT",
    ),
    (
        sdk.Unauthenticated,
        EXIT_DENIED,
        "Make a token where the daemon runs: inferd token create NAME --scopes infer,read\nThen pass it as INFERD_TOKEN"
        " or --token.",
    ),
    (
        sdk.Forbidden,
        EXIT_DENIED,
        "A token with the right scopes and models: inferd token create NAME --scopes infer,read --models GLOB",
    ),
    (sdk.NotFound, EXIT_NO_MODEL, "What there is: inferd models"),
    (sdk.NotReady, EXIT_NO_MODEL, "Why: inferd models"),
    (sdk.DeadlineExceeded, EXIT_FAILED, ""),
    (sdk.InferdError, EXIT_FAILED, ""),
    (domain.InferdError, EXIT_FAILED, ""),
    (OSError, EXIT_FAILED, ""),
)
_NO_ACCESS = "Your user may not open this socket: join its group, or ask for a listener and a token."


def explain(error: Exception) -> Failure | None:
    """What to say about an expected error; None for one that nobody expected."""
    for kind, exit_code, hint in _KNOWN:
        if isinstance(error, kind):
            if isinstance(error.__cause__, PermissionError) and kind is sdk.ConnectionFailed:
                exit_code, hint = EXIT_DENIED, _NO_ACCESS
            return Failure(exit_code, (f"inferd: {_message(error)}", *hint.splitlines()))
    return None


def _message(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    if isinstance(error, sdk.EngineFault) and error.request_id:
        return f"{error} (request {error.request_id} in the daemon's log)"
    return str(error) or type(error).__name__
