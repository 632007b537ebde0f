"""What a call can end with, as one tree that mirrors the server's.

    InferdError
    ├── InvalidRequest      400  names, datatypes, shapes or sizes that cannot be
    ├── Unauthenticated     401  no token, or one that is wrong, expired or revoked
    ├── Forbidden           403  a known caller without the right
    ├── NotFound            404  no such model, version or path
    ├── TooLarge            413  a body over the server's limit
    ├── Unsupported         415, 501  an encoding or a feature that is not spoken there
    ├── Overloaded          429  a queue or a rate is full; `retry_after_s` says when to come back
    ├── EngineFault         500  the engine, or the server itself, failed
    ├── NotReady            503  loading, draining, unloaded or failed just now
    ├── DeadlineExceeded    504  the server gave up, or the call's `timeout_s` ran out here (`status` is None)
    ├── BadResponse              the answer does not follow the protocol
    ├── BadAddress               the URL cannot be used
    └── ConnectionFailed         no answer: refused, reset, closed
        ├── TLSError             no trust, or no common ground
        │   └── Untrusted        a device that is not, or no longer, the one that was trusted
        └── NoDevice             nobody in a fleet can take the call

`status` is None where no answer came. `request_id` is the server's, to be found in its log.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec


class InferdError(Exception):
    """Root of the tree."""

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        request_id: str | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.request_id = request_id
        self.retry_after_s = retry_after_s


class InvalidRequest(InferdError):
    """Names, datatypes, shapes or sizes that cannot be."""


class Unauthenticated(InferdError):
    """No token, or one that is wrong, expired or revoked."""


class Forbidden(InferdError):
    """A known caller without the right."""


class NotFound(InferdError):
    """No such model, version or path."""


class TooLarge(InferdError):
    """A body over the server's limit."""


class Unsupported(InferdError):
    """An encoding or a feature that is not spoken there."""


class Overloaded(InferdError):
    """A queue or a rate is full."""


class EngineFault(InferdError):
    """The engine, or the server itself, failed."""


class NotReady(InferdError):
    """Loading, draining, unloaded or failed just now."""


class DeadlineExceeded(InferdError):
    """Too late: there, or here."""


class BadResponse(InferdError):
    """The answer does not follow the protocol."""


class BadAddress(InferdError):
    """The URL cannot be used."""


class ConnectionFailed(InferdError):
    """No answer.

    `is_unsent`: nothing of the request left this machine, and the cause may pass, as while a daemon boots.
    `is_stale`: a connection kept from an earlier call had been closed, and not a byte of an answer came.
    """

    def __init__(self, message: str, *, is_unsent: bool = False, is_stale: bool = False) -> None:
        super().__init__(message)
        self.is_unsent = is_unsent
        self.is_stale = is_stale


class TLSError(ConnectionFailed):
    """No trust, or no common ground."""


class Untrusted(TLSError):
    """A device that nobody trusted yet, or that shows another certificate than the trusted one."""


class NoDevice(ConnectionFailed):
    """Nobody in a fleet can take the call: the message says why, device by device."""


_BY_STATUS: dict[int, type[InferdError]] = {
    400: InvalidRequest,
    401: Unauthenticated,
    403: Forbidden,
    404: NotFound,
    413: TooLarge,
    415: Unsupported,
    429: Overloaded,
    500: EngineFault,
    501: Unsupported,
    503: NotReady,
    504: DeadlineExceeded,
}


class _Body(msgspec.Struct):
    error: str


_DECODER = msgspec.json.Decoder(_Body)
_SHOWN_BYTES = 200


def error_from(status: int, headers: Mapping[str, str], body: bytes | bytearray | memoryview) -> InferdError:
    """The error that an answer stands for; `headers` have lower-case names."""
    kind = _BY_STATUS.get(status) or (EngineFault if status >= 500 else InferdError)
    try:
        message = _DECODER.decode(body).error
    except (msgspec.MsgspecError, UnicodeError):
        text = bytes(memoryview(body)[:_SHOWN_BYTES]).decode("utf-8", "replace").strip()
        message = f"HTTP {status}: {text}" if text else f"HTTP {status}"
    return kind(
        message,
        status=status,
        request_id=headers.get("x-request-id"),
        retry_after_s=_seconds(headers.get("retry-after", "")),
    )


def _seconds(text: str) -> float | None:
    """A Retry-After in seconds; the form with a date is not understood."""
    try:
        seconds = float(text)
    except ValueError:
        return None
    return seconds if 0 <= seconds < float("inf") else None
