"""inferd for applications: `Client` and `AsyncClient` call a daemon, numpy in and out.

    from inferd import Client

    with Client() as client:
        result = client.infer("digits", {"image": pixels})

Installs and imports without any engine. The clients are imported when first asked for, so that whoever needs only
`inferd.protocol` does not pay for them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from inferd import errors
from inferd.errors import InferdError

if TYPE_CHECKING:
    from inferd.aio import AsyncClient
    from inferd.calls import Result
    from inferd.client import Client

__all__ = ["AsyncClient", "Client", "InferdError", "Result", "errors"]


def __getattr__(name: str) -> Any:
    """Import what is asked for; each name keeps its own room's cost."""
    if name == "Client":
        from inferd.client import Client

        return Client
    if name == "AsyncClient":
        from inferd.aio import AsyncClient

        return AsyncClient
    if name == "Result":
        from inferd.calls import Result

        return Result
    raise AttributeError(f"module 'inferd' has no attribute '{name}'")
