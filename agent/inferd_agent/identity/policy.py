"""What a principal may do, and which principal a process behind a Unix socket is.

Everything is denied unless a rule, a token or the default (the daemon's own user, and root) allows it.
"""

from __future__ import annotations

import grp
import pwd
from collections.abc import Iterable
from dataclasses import dataclass

from inferd_agent.config import SCOPES, PeerRule
from inferd_agent.errors import ConfigError, Forbidden
from inferd_agent.identity.principals import Principal
from inferd_agent.sockets import PeerCredentials

_REMEMBERED_PEERS = 256


def require(principal: Principal, scope: str | tuple[str, ...], model: str | None = None) -> None:
    """Raise Forbidden unless the principal holds the scope (any of several), for this model if one is named."""
    scopes = (scope,) if isinstance(scope, str) else scope
    if not principal.has_scope(*scopes):
        raise Forbidden(f"{principal.name} lacks the scope {' or '.join(map(repr, scopes))}")
    if model is not None and not principal.sees(model):
        raise Forbidden(f"{principal.name} may not use the model {model!r}")


@dataclass(frozen=True, slots=True)
class _Rule:
    """A rule with its names looked up."""

    uids: frozenset[int]
    gids: frozenset[int]
    scopes: frozenset[str]
    models: tuple[str, ...]

    def covers(self, peer: PeerCredentials) -> bool:
        return (not self.uids or self.uids == {peer.uid}) and all(
            gid == peer.gid or gid in peer.groups for gid in self.gids
        )


class PeerPolicy:
    """Maps peer credentials to principals: the configured rules in order, then the default. Used by one thread."""

    def __init__(self, rules: Iterable[PeerRule], *, own_uid: int) -> None:
        self._rules = tuple(_resolve(rule, place) for place, rule in enumerate(rules, 1))
        self._own_uid = own_uid
        self._known: dict[tuple[int, int, tuple[int, ...]], Principal | None] = {}

    def principal(self, peer: PeerCredentials) -> Principal | None:
        """The principal of this process, None if nothing is allowed to it."""
        key = (peer.uid, peer.gid, peer.groups)
        if key not in self._known:
            if len(self._known) >= _REMEMBERED_PEERS:
                self._known.clear()
            self._known[key] = self._decide(peer)
        return self._known[key]

    def _decide(self, peer: PeerCredentials) -> Principal | None:
        name = user_name(peer.uid)
        for rule in self._rules:
            if rule.covers(peer):
                return Principal(name, "peer", rule.scopes, rule.models) if rule.scopes else None
        if peer.uid in (0, self._own_uid):
            return Principal(name, "peer", frozenset(SCOPES))
        return None


def user_name(uid: int) -> str:
    """The user's name, or the number where it has none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"


def _resolve(rule: PeerRule, place: int) -> _Rule:
    where = f"auth.peers, rule {place}"
    uids = {uid for uid in (rule.uid, _uid_of(rule.user, where)) if uid is not None}
    gids = {gid for gid in (rule.gid, _gid_of(rule.group, where)) if gid is not None}
    if not uids and not gids:
        raise ConfigError(f"{where}: names nobody; give user, group, uid or gid")
    return _Rule(frozenset(uids), frozenset(gids), frozenset(rule.scopes), rule.models)


def _uid_of(user: str, where: str) -> int | None:
    try:
        return pwd.getpwnam(user).pw_uid if user else None
    except KeyError:
        raise ConfigError(f"{where}: there is no user {user!r} on this machine") from None


def _gid_of(group: str, where: str) -> int | None:
    try:
        return grp.getgrnam(group).gr_gid if group else None
    except KeyError:
        raise ConfigError(f"{where}: there is no group {group!r} on this machine") from None
