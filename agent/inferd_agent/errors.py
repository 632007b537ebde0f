"""What the agent itself refuses, joined to the runtime's tree, and the one table from errors to protocol numbers.

InferdError (runtime)
├── Unauthenticated     nobody known is calling
├── Forbidden           a known principal without the right
├── NoSuchPath          no such path (404)
├── MethodNotAllowed    the path exists with other methods (405)
├── BodyTooLarge        over the configured limit
├── UnsupportedEncoding Content-Encoding that is not spoken here
├── RequestTimeout      the sender was too slow
├── RateLimited         the principal's rate is used up
├── NoSuchRegion        no such region of shared memory
├── RegionExists        a region of that name is registered already
└── ConfigError         the configuration cannot be used (stops the start)
"""

from __future__ import annotations

from dataclasses import dataclass

from inferd.protocol.errors import ProtocolError
from inferd_runtime import errors as domain


class Unauthenticated(domain.InferdError):
    """Nobody known is calling: no token, or one that is wrong, expired or revoked."""


class Forbidden(domain.InferdError):
    """A known principal without the right; names the scope or model that is missing."""


class NoSuchPath(domain.InferdError):
    """No such path."""


class MethodNotAllowed(domain.InferdError):
    """The path exists, with other methods."""

    def __init__(self, message: str, *, allow: str) -> None:
        super().__init__(message)
        self.allow = allow


class BodyTooLarge(domain.InferdError):
    """The body is over the configured limit, as sent or once inflated."""


class UnsupportedEncoding(domain.InferdError):
    """A Content-Encoding that is not spoken here."""


class RequestTimeout(domain.InferdError):
    """The sender was too slow."""


class RateLimited(domain.InferdError):
    """The principal's rate is used up."""

    retry_after_s = 1.0


class NoSuchRegion(domain.InferdError):
    """The caller has no region of shared memory of that name."""


class RegionExists(domain.InferdError):
    """The caller has a region of that name already."""


class ConfigError(domain.InferdError):
    """The configuration cannot be used: names the place, what came and the nearest right thing."""


@dataclass(frozen=True, slots=True)
class Answer:
    """How an error is told: the HTTP status and the name of the gRPC status code."""

    http: int
    grpc: str


# Looked up along the error's method resolution order, so a subclass needs no row of its own.
ANSWERS: dict[type[BaseException], Answer] = {
    ProtocolError: Answer(400, "INVALID_ARGUMENT"),
    domain.InvalidRequest: Answer(400, "INVALID_ARGUMENT"),
    Unauthenticated: Answer(401, "UNAUTHENTICATED"),
    Forbidden: Answer(403, "PERMISSION_DENIED"),
    NoSuchPath: Answer(404, "UNIMPLEMENTED"),
    domain.ModelNotFound: Answer(404, "NOT_FOUND"),
    MethodNotAllowed: Answer(405, "UNIMPLEMENTED"),
    RequestTimeout: Answer(408, "DEADLINE_EXCEEDED"),
    BodyTooLarge: Answer(413, "RESOURCE_EXHAUSTED"),
    UnsupportedEncoding: Answer(415, "UNIMPLEMENTED"),
    domain.InvalidModel: Answer(400, "INVALID_ARGUMENT"),
    domain.LoadFailed: Answer(400, "INVALID_ARGUMENT"),
    domain.Overloaded: Answer(429, "RESOURCE_EXHAUSTED"),
    RateLimited: Answer(429, "RESOURCE_EXHAUSTED"),
    NoSuchRegion: Answer(404, "NOT_FOUND"),
    RegionExists: Answer(400, "ALREADY_EXISTS"),
    domain.Cancelled: Answer(499, "CANCELLED"),
    domain.EngineFault: Answer(500, "INTERNAL"),
    domain.Unsupported: Answer(501, "UNIMPLEMENTED"),
    domain.ModelNotReady: Answer(503, "UNAVAILABLE"),
    domain.Closed: Answer(503, "UNAVAILABLE"),
    domain.DeadlineExceeded: Answer(504, "DEADLINE_EXCEEDED"),
}
INTERNAL = Answer(500, "INTERNAL")


def answer_for(error: BaseException) -> Answer:
    """The row for an error; unknown errors are bare 500s."""
    for kind in type(error).__mro__:
        if kind in ANSWERS:
            return ANSWERS[kind]
    return INTERNAL
