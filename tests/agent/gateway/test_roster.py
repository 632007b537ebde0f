"""Who becomes a member, and who does not: announcements are not believed."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec
import pytest

from inferd.errors import ConnectionFailed, Untrusted
from inferd.fleet.record import Device
from inferd.fleet.trust import Authority, DeviceTrust, Trusted, TrustStore
from inferd_agent.gateway.roster import AGAIN_S, Models, Roster
from inferd_agent.tls import HostNames, TlsMaterial
from tests.agent.gateway.devices import device


class Lan:
    """What is announced, and how devices answer; `hear` waits until all have that were asked."""

    def __init__(self, store: TrustStore) -> None:
        self.devices: list[Device] = [device("a")]
        self.answers: dict[str, Models | Exception] = {}
        self.asked: list[str] = []
        self.changes = 0
        self.now_s = 0.0
        self.roster = Roster(lambda: tuple(self.devices), store, self.ask, self.changed, clock=lambda: self.now_s)

    async def ask(self, device: Device, trust: DeviceTrust) -> Models:
        self.asked.append(device.name)
        answer = self.answers.get(device.name, frozenset({"m"}))
        if isinstance(answer, Exception):
            raise answer
        return answer

    def changed(self) -> None:
        self.changes += 1

    async def members(self) -> dict[str, Models]:
        return {each.device.name: each.models for each in await self.roster.members()}

    async def hear(self) -> dict[str, Models]:
        await self.members()
        if questions := asyncio.all_tasks() - {asyncio.current_task()}:
            await asyncio.wait(questions)
        return await self.members()


@pytest.fixture
def trust(tmp_path: Path) -> Path:
    tls = TlsMaterial(tmp_path / "tls", host=lambda: HostNames.of(["a.local"], []))
    authority = Authority(fingerprint=tls.fingerprints["ca"], certificate=tls.ca_path.read_text())
    (tmp_path / "trust.json").write_bytes(msgspec.json.encode(Trusted(authorities=(authority,))))
    return tmp_path / "trust.json"


@pytest.fixture
def lan(trust: Path) -> Lan:
    return Lan(TrustStore(trust))


async def test_a_device_is_a_member_once_it_has_proven_itself(lan: Lan) -> None:
    """Announced is not enough; afterwards it is asked no more while nothing changes."""
    assert await lan.members() == {}
    assert await lan.hear() == {"a": {"m"}}
    assert await lan.members() == {"a": {"m"}}
    assert (lan.asked, lan.changes) == (["a"], 1)


async def test_an_impostor_is_no_member_and_is_told_once(lan: Lan, caplog: pytest.LogCaptureFixture) -> None:
    """A wrong certificate keeps it out, and so does silence; it is asked again only after a while."""
    lan.devices.append(device("fake"))
    lan.answers["fake"] = Untrusted("fake shows another certificate")
    assert await lan.hear() == {"a": {"m"}}
    assert await lan.hear() == {"a": {"m"}}
    assert lan.asked.count("fake") == 1
    for _ in range(3):
        lan.now_s += AGAIN_S
        assert await lan.hear() == {"a": {"m"}}
    assert lan.asked.count("fake") == 4
    assert len([each for each in caplog.messages if "another certificate" in each]) == 1


async def test_without_trust_nobody_is_asked(lan: Lan, trust: Path, caplog: pytest.LogCaptureFixture) -> None:
    """No connection, no token sent; how to trust it is said. Trust that is taken back counts at once."""
    await lan.hear()
    trust.unlink()
    assert await lan.members() == {}
    assert lan.asked == ["a"]
    assert "inferd trust 'a'" in caplog.text


async def test_new_models_are_asked_for_and_the_old_list_holds_meanwhile(lan: Lan) -> None:
    """A new digest does not take a device out."""
    await lan.hear()
    lan.devices = [device("a", models_digest="ff")]
    lan.answers["a"] = frozenset({"m", "n"})
    assert await lan.members() == {"a": {"m"}}
    assert await lan.hear() == {"a": {"m", "n"}}


async def test_a_member_that_stops_answering_stays(lan: Lan) -> None:
    """Whether it is well is for health checks; only when it is announced no more it goes, and comes back anew."""
    await lan.hear()
    lan.devices = [device("a", models_digest="ff")]
    lan.answers["a"] = ConnectionFailed("gone")
    assert await lan.hear() == {"a": {"m"}}
    lan.devices = []
    assert await lan.members() == {}
    lan.devices, lan.answers = [device("a")], {}
    assert await lan.members() == {}
    assert await lan.hear() == {"a": {"m"}}


async def test_closing_ends_questions(lan: Lan) -> None:
    """Nothing is left running."""
    gate = asyncio.Event()

    async def forever(device: Device, trust: DeviceTrust) -> Models:
        await gate.wait()
        return None

    lan.roster._ask = forever
    await lan.members()
    await lan.roster.close()
    assert [task for task in asyncio.all_tasks() if task is not asyncio.current_task()] == []
