"""The one exception of the codec: a message that does not follow the protocol."""

from __future__ import annotations


class ProtocolError(ValueError):
    """A malformed message. The text names the tensor or field, what came and what was expected."""
