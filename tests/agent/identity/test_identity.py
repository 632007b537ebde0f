"""Authentication and policy."""

from __future__ import annotations

import grp
import logging
import pwd
from collections.abc import Callable
from pathlib import Path

import pytest

from inferd_agent.config import SCOPES, PeerRule
from inferd_agent.errors import ConfigError, Forbidden, RateLimited, Unauthenticated
from inferd_agent.identity import Identity, Principal, Rate, TokenStore, require
from inferd_agent.identity.rate import RateLimiter
from inferd_agent.sockets import PeerCredentials

OWN = 4242
ROOT = PeerCredentials(1, 0, 0)
STRANGER = PeerCredentials(2, 5555, 5556, (5557, 5558))


class Clock:
    """Time that stands until it is moved."""

    def __init__(self) -> None:
        self.now_s = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(tmp_path: Path, clock: Clock) -> TokenStore:
    return TokenStore(tmp_path / "tokens.json", clock=clock)


Open = Callable[..., Identity]


@pytest.fixture
def open_identity(store: TokenStore, clock: Clock) -> Open:
    return lambda *rules: Identity(store.path, rules, own_uid=OWN, clock=clock, monotonic=clock)


def test_the_daemons_user_and_root_may_do_all(open_identity: Open) -> None:
    """Without rules same-uid and root hold every scope on every model, everybody else is nobody."""
    identity = open_identity()
    for peer in (ROOT, PeerCredentials(1, OWN, 7)):
        principal = identity.authenticate(None, peer)
        assert (principal.kind, principal.scopes, principal.models) == ("peer", frozenset(SCOPES), ("*",))
    assert identity.authenticate(None, ROOT).name == "root"
    with pytest.raises(Unauthenticated, match="uid 5555 has no rule"):
        identity.authenticate(None, STRANGER)
    with pytest.raises(Unauthenticated, match="a token is needed"):
        identity.authenticate(None, None)


def test_tokens_that_were_handed_over_count_beside_the_own_ones(store: TokenStore, clock: Clock) -> None:
    """A second file, a credential of systemd's, is read and followed as the first is; each token works."""
    given = TokenStore(store.path.with_name("given.json"), clock=clock)
    (own, _), (theirs, _) = store.create("own", ["infer"]), given.create("theirs", ["read"])
    identity = Identity(store.path, (), own_uid=OWN, given_tokens=given.path, clock=clock, monotonic=clock)
    for token, name in ((own, "own"), (theirs, "theirs")):
        assert identity.authenticate(f"Bearer {token}", STRANGER).name.endswith(name)
    given.revoke("theirs")
    assert identity.follow()
    with pytest.raises(Unauthenticated):
        identity.authenticate(f"Bearer {theirs}", STRANGER)


@pytest.mark.parametrize(
    ("rule", "is_covered"),
    [
        (PeerRule(uid=5555), True),
        (PeerRule(gid=5556), True),
        (PeerRule(gid=5558), True),
        (PeerRule(uid=5555, gid=5557), True),
        (PeerRule(uid=5555, gid=1), False),
        (PeerRule(uid=1, gid=5556), False),
        (PeerRule(user="root"), False),
        (PeerRule(user="root", uid=5555), False),
        (PeerRule(group=grp.getgrgid(0).gr_name), False),
    ],
)
def test_a_rule_covers_who_meets_all_its_conditions(open_identity: Open, rule: PeerRule, is_covered: bool) -> None:
    """User and group, by name or number; groups primary and supplementary."""
    import msgspec

    identity = open_identity(msgspec.structs.replace(rule, scopes=("infer",), models=("a*",)))
    if not is_covered:
        with pytest.raises(Unauthenticated):
            identity.authenticate(None, STRANGER)
        return
    principal = identity.authenticate(None, STRANGER)
    assert (principal.scopes, principal.models) == ({"infer"}, ("a*",))


def test_the_first_rule_that_covers_decides(open_identity: Open) -> None:
    """Rules come before the default, so even root can be limited; no scopes means nothing."""
    me = pwd.getpwuid(0).pw_name
    identity = open_identity(
        PeerRule(user=me, scopes=("read",)), PeerRule(uid=5555), PeerRule(gid=5556, scopes=("infer",))
    )
    assert identity.authenticate(None, ROOT).scopes == {"read"}
    with pytest.raises(Unauthenticated):
        identity.authenticate(None, STRANGER)


@pytest.mark.parametrize(
    ("rule", "says"),
    [
        (PeerRule(scopes=("infer",)), "rule 1: names nobody"),
        (PeerRule(user="no-such-user"), "no user 'no-such-user'"),
        (PeerRule(user="root", group="no-such-group"), "no group 'no-such-group'"),
    ],
)
def test_wrong_rules_stop_the_start_and_a_reload_keeps_the_old(open_identity: Open, rule: PeerRule, says: str) -> None:
    """Names must exist, and a rule must name somebody."""
    with pytest.raises(ConfigError, match=says):
        open_identity(rule)
    identity = open_identity(PeerRule(uid=5555, scopes=("infer",)))
    with pytest.raises(ConfigError, match=says):
        identity.reload([rule])
    assert identity.authenticate(None, STRANGER).scopes == {"infer"}
    identity.reload([])
    with pytest.raises(Unauthenticated):
        identity.authenticate(None, STRANGER)


async def test_a_token_makes_its_principal_without_touching_a_file(open_identity: Open, store: TokenStore) -> None:
    """Scopes, models, rate and priority arrive; on the event loop, where reading a file would fail the test."""
    import asyncio

    token, _ = await asyncio.to_thread(
        lambda: store.create("cam", ["infer"], models=["a*", "b?"], rate_per_s=5, burst=9, priority=3)
    )
    identity = await asyncio.to_thread(open_identity)
    for header in (f"Bearer {token}", f"bearer  {token} "):
        principal = identity.authenticate(header, None)
        assert principal == Principal("cam", "token", frozenset({"infer"}), ("a*", "b?"), 3, Rate(5, 9))
    assert identity.authenticate(f"Bearer {token}", None) is identity.authenticate(f"Bearer {token}", None)


def test_a_wrong_token_fails_even_beside_a_peer_who_may(open_identity: Open, store: TokenStore) -> None:
    """What is presented decides alone; the reason is told, the secret is not."""
    token, _ = store.create("cam", ["infer"])
    wrong = token[:-1] + ("0" if token[-1] != "0" else "1")
    identity = open_identity()
    headers = {
        f"Bearer {wrong}": "unknown token",
        f"Bearer ifd_00000000_{'0' * 64}": "unknown token",
        "Bearer x": "not a token of inferd",
        "Bearer ": "not a token of inferd",
        "Basic Zm9vOmJhcg==": "expected 'Authorization: Bearer",
        "": "expected 'Authorization: Bearer",
        "Bearer " + "x" * 300: "too long",
        "Bearer \udcff": "not a token of inferd",
    }
    for header, says in headers.items():
        with pytest.raises(Unauthenticated, match=says) as caught:
            identity.authenticate(header, ROOT)
        assert wrong not in str(caught.value)


def test_expiry_counts_to_the_second_even_for_a_remembered_token(
    open_identity: Open, store: TokenStore, clock: Clock
) -> None:
    """A verified token stops at its expiry, without any reload."""
    token, _ = store.create("cam", ["infer"], expires_s=clock.now_s + 10)
    identity = open_identity()
    identity.authenticate(f"Bearer {token}", None)
    clock.now_s += 9.9
    identity.authenticate(f"Bearer {token}", None)
    clock.now_s += 0.1
    with pytest.raises(Unauthenticated, match="'cam' has expired"):
        identity.authenticate(f"Bearer {token}", None)


def test_rotation_lets_both_secrets_in_for_a_while(open_identity: Open, store: TokenStore, clock: Clock) -> None:
    """Old and new work during the overlap, then only the new."""
    old, _ = store.create("cam", ["infer"])
    identity = open_identity()
    identity.authenticate(f"Bearer {old}", None)
    new, _ = store.rotate("cam", overlap_s=60)
    assert identity.follow()
    assert not identity.follow()
    for token in (old, new):
        identity.authenticate(f"Bearer {token}", None)
    clock.now_s += 60
    identity.authenticate(f"Bearer {new}", None)
    with pytest.raises(Unauthenticated, match="was rotated"):
        identity.authenticate(f"Bearer {old}", None)


def test_a_revoked_token_is_out_with_the_next_look(open_identity: Open, store: TokenStore) -> None:
    """Also one that was verified a thousand times before."""
    token, _ = store.create("cam", ["infer"])
    identity = open_identity()
    identity.authenticate(f"Bearer {token}", None)
    store.revoke("cam")
    assert identity.follow()
    with pytest.raises(Unauthenticated, match="revoked"):
        identity.authenticate(f"Bearer {token}", None)


def test_a_damaged_file_closes_the_door_until_it_is_mended(
    open_identity: Open, store: TokenStore, caplog: pytest.LogCaptureFixture
) -> None:
    """No token passes, the log says why, and a good file opens again; a start on a damaged file fails."""
    token, _ = store.create("cam", ["infer"])
    identity = open_identity()
    good = store.path.read_bytes()
    store.path.write_bytes(good[:-20])
    assert identity.follow()
    with pytest.raises(Unauthenticated, match="token file is damaged"):
        identity.authenticate(f"Bearer {token}", None)
    assert "damaged" in caplog.text
    with pytest.raises(ConfigError, match="damaged"):
        open_identity()
    with pytest.raises(ConfigError, match="damaged"):
        identity.reload()
    store.path.write_bytes(good)
    identity.follow()
    identity.authenticate(f"Bearer {token}", None)


def test_memory_of_verified_headers_is_bounded(open_identity: Open, store: TokenStore) -> None:
    """Wrong headers are never remembered, and right ones in many spellings only so many."""
    token, _ = store.create("cam", ["infer"])
    identity = open_identity()
    scheme = "bearer"
    for at in range(5000):
        spelled = "".join(c.upper() if at >> bit & 1 else c for bit, c in enumerate(scheme))
        identity.authenticate(f"{spelled} {' ' * (at >> 6)}{token}", None)
    assert len(identity._tokens._known.verified) <= 4096


def test_requests_over_the_rate_are_refused_with_the_time_to_wait(
    open_identity: Open, store: TokenStore, clock: Clock
) -> None:
    """The burst passes, the next waits, time refills; another token is not touched."""
    token, _ = store.create("cam", ["infer"], rate_per_s=2, burst=3)
    other, _ = store.create("door", ["infer"], rate_per_s=2, burst=1)
    identity = open_identity()
    for _ in range(3):
        identity.authenticate(f"Bearer {token}", None)
    with pytest.raises(RateLimited, match="2 requests/s") as caught:
        identity.authenticate(f"Bearer {token}", None)
    assert caught.value.retry_after_s == pytest.approx(0.5)
    identity.authenticate(f"Bearer {other}", None)
    clock.now_s += 0.5
    identity.authenticate(f"Bearer {token}", None)
    with pytest.raises(RateLimited):
        identity.authenticate(f"Bearer {token}", None)


def test_buckets_are_bounded_and_survive_a_clock_that_stands(clock: Clock) -> None:
    """The least recently used bucket goes first."""
    limiter = RateLimiter(clock=clock, max_buckets=2)
    rate = Rate(1, 1)
    assert [limiter.wait_s(key, rate) for key in ("a", "b", "a", "c", "a")] == [0.0, 0.0, 1.0, 0.0, 1.0]
    assert len(limiter) == 2
    assert limiter.wait_s("b", rate) == 0.0


def test_the_policy_names_what_is_missing() -> None:
    """Any of several scopes suffices; patterns are case-sensitive and whole."""
    principal = Principal("cam", "token", frozenset({"infer"}), ("ocr-*", "digits"))
    require(principal, "infer")
    require(principal, ("read", "infer"), "ocr-det")
    require(principal, "infer", "digits")
    for scope, model, says in [
        ("admin", None, "cam lacks the scope 'admin'"),
        (("read", "admin"), None, "'read' or 'admin'"),
        ("infer", "digits2", "may not use the model 'digits2'"),
        ("infer", "OCR-det", "may not use"),
        ("infer", "digits\n", "may not use"),
        ("infer", "", "may not use"),
    ]:
        with pytest.raises(Forbidden, match=says):
            require(principal, scope, model)
    assert not Principal("x", "token", frozenset(), ()).sees("a")


def test_failures_are_told_a_few_times_only(
    open_identity: Open, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """A flood of wrong callers does not flood the log, and what was left out is counted later."""
    identity = open_identity()
    with caplog.at_level(logging.WARNING):
        for _ in range(500):
            with pytest.raises(Unauthenticated):
                identity.authenticate(None, STRANGER)
        assert len(caplog.records) == 20
        clock.now_s += 1
        with pytest.raises(Unauthenticated):
            identity.authenticate(None, STRANGER)
    assert "pid 2 uid 5555" in caplog.text
    assert "(480 such lines left out)" in caplog.records[-1].getMessage()
