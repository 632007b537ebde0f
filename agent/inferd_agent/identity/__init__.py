"""Who is calling, and may they: peer credentials and bearer tokens become principals, and policy answers for them.

Knows nothing of HTTP beyond the text of one header. `authenticate` and `require` run on the event loop and touch no
file; `follow` and `reload` do, and belong on another thread.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from inferd_agent.config import PeerRule
from inferd_agent.errors import Unauthenticated
from inferd_agent.identity.bearer import BearerTokens
from inferd_agent.identity.policy import PeerPolicy, require, user_name
from inferd_agent.identity.principals import ANONYMOUS, Principal, Rate
from inferd_agent.identity.rate import RateLimiter
from inferd_agent.identity.store import TokenStore
from inferd_agent.identity.tokens import TokenRecord, parse_duration_s, parse_expiry_s
from inferd_agent.sockets import PeerCredentials

__all__ = [
    "ANONYMOUS", "Identity", "Principal", "Rate", "TokenRecord", "TokenStore", "parse_duration_s", "parse_expiry_s",
    "require",
]  # fmt: skip

audit = logging.getLogger(__name__)
_AUDIT_RATE = Rate(per_s=1.0, burst=20)


class Identity:
    """Authenticates every request that is not open to all. `given_tokens`: a second token file, which others write."""

    def __init__(
        self,
        token_file: Path,
        peers: Iterable[PeerRule],
        *,
        own_uid: int,
        given_tokens: Path | None = None,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._own_uid = own_uid
        files = [token_file, *([given_tokens] if given_tokens else [])]
        self._tokens = BearerTokens(*(TokenStore(path, clock=clock) for path in files), clock=clock)
        self._peers = PeerPolicy(peers, own_uid=own_uid)
        self._rates = RateLimiter(clock=monotonic)
        self._audit_rate = RateLimiter(clock=monotonic)
        self._untold = 0

    def authenticate(self, authorization: str | None, peer: PeerCredentials | None) -> Principal:
        """Who calls, charged against the principal's rate. A token that is given decides alone, even beside a peer.

        Raises Unauthenticated or RateLimited.
        """
        try:
            principal = self._identify(authorization, peer)
        except Unauthenticated as error:
            self._tell(error, peer)
            raise
        if principal.rate is not None:
            self._rates.charge(principal.owner, principal.rate)
        return principal

    def reload(self, peers: Iterable[PeerRule] | None = None) -> None:
        """Read the tokens again, and take new peer rules if given. ConfigError keeps the old rules."""
        if peers is not None:
            self._peers = PeerPolicy(peers, own_uid=self._own_uid)
        self._tokens.reload()

    def follow(self) -> bool:
        """Read the tokens again if their file has changed; to be called every second or so. True if it had."""
        return self._tokens.follow()

    def _identify(self, authorization: str | None, peer: PeerCredentials | None) -> Principal:
        if authorization is not None:
            return self._tokens.verify(authorization)
        if peer is None:
            raise Unauthenticated("a token is needed: 'Authorization: Bearer ifd_...' (inferd token create)")
        principal = self._peers.principal(peer)
        if principal is None:
            raise Unauthenticated(
                f"{user_name(peer.uid)} has no rule in [[auth.peers]]; send a token: 'Authorization: Bearer ifd_...'"
            )
        return principal

    def _tell(self, error: Unauthenticated, peer: PeerCredentials | None) -> None:
        """One audit line per failure, as long as there are few."""
        if self._audit_rate.wait_s("", _AUDIT_RATE) > 0:
            self._untold += 1
            return
        who = f"pid {peer.pid} uid {peer.uid}" if peer else "somebody unknown"
        more = f" ({self._untold} such lines left out)" if self._untold else ""
        self._untold = 0
        audit.warning("refused %s: %s%s", who, error, more)
