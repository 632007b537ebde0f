"""Certificates as clients see them: every claim is checked by a TLS handshake."""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import ssl
import stat
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from inferd_agent.config import Listener
from inferd_agent.errors import ConfigError
from inferd_agent.tls import HostNames, TlsMaterial
from tests.limits import files_cannot_grow

HOST = HostNames.of(("localhost", "edge.lan"), ("127.0.0.1", "192.0.2.9"))
UNIX = Listener("unix", path="/x")
TCP = Listener("tcp", host="0.0.0.0", port=1)


class World:
    """A clock and a host that tests move."""

    def __init__(self) -> None:
        self.now = datetime.now(UTC).replace(microsecond=0)
        self.host = HOST

    def open(self, folder: Path, **more: str | tuple[str, ...]) -> TlsMaterial:
        return TlsMaterial(folder, host=lambda: self.host, clock=lambda: self.now, **more)  # type: ignore[arg-type]


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "state" / "tls"


def shake(server: ssl.SSLContext | None, ca: Path, name: str, **limits: ssl.TLSVersion) -> ssl.SSLObject:
    """A whole handshake in memory; the client's end of it."""
    assert server is not None
    client = ssl.create_default_context(cafile=str(ca))
    client.set_alpn_protocols(["h2", "http/1.1"])
    for key, value in limits.items():
        setattr(client, key, value)
    a, b = ssl.MemoryBIO(), ssl.MemoryBIO()
    near, far = client.wrap_bio(a, b, server_hostname=name), server.wrap_bio(b, a, server_side=True)
    left = [near, far]
    for end in (near, far) * 6:
        try:
            if end in left:
                end.do_handshake()
                left.remove(end)
        except ssl.SSLWantReadError:
            pass
    assert left == []
    return near


def leaf_of(pem: str) -> bytes:
    """The first certificate of a chain."""
    return ssl.PEM_cert_to_DER_cert(pem.partition(ssl.PEM_FOOTER)[0] + ssl.PEM_FOOTER)


def test_callers_get_the_ca_along_and_its_fingerprint_is_not_the_hosts(world: World, folder: Path) -> None:
    """Whoever pins this host can believe its next certificate too; what is announced is the host's own."""
    material = world.open(folder)
    chain = (folder / "cert.pem").read_text()
    assert chain.endswith(material.ca_path.read_text())
    assert material.fingerprint_for(TCP) == hashlib.sha256(leaf_of(chain)).hexdigest()
    assert material.fingerprint_for(TCP) == material.fingerprints["local"] != material.fingerprints["ca"]


def test_the_first_start_makes_a_ca_that_clients_can_trust(world: World, folder: Path) -> None:
    """TLS 1.3 by every name and address of the host, keys for the owner only, and no older protocol."""
    material = world.open(folder)
    for name in (*HOST.names, *HOST.addresses):
        assert shake(material.context_for(UNIX), material.ca_path, name).version() == "TLSv1.3"
    assert shake(material.context_for(TCP), material.ca_path, "localhost").selected_alpn_protocol() == "http/1.1"
    with pytest.raises(ssl.SSLCertVerificationError):
        shake(material.context_for(UNIX), material.ca_path, "elsewhere.lan")
    with pytest.raises(ssl.SSLError):
        shake(material.context_for(UNIX), material.ca_path, "localhost", maximum_version=ssl.TLSVersion.TLSv1_2)
    modes = {each.name: stat.S_IMODE(each.stat().st_mode) for each in folder.iterdir()}
    assert modes == {"ca.key": 0o600, "key.pem": 0o600, "ca.pem": 0o644, "cert.pem": 0o644}
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert material.context_for(Listener("unix", path="/x", tls=False)) is None


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
def test_openssl_agrees(world: World, folder: Path) -> None:
    """The openssl program verifies the chain strictly for a server."""
    world.open(folder)
    done = subprocess.run(
        ["openssl", "verify", "-x509_strict", "-purpose", "sslserver", "-CAfile", "ca.pem", "cert.pem"],
        cwd=folder, capture_output=True, text=True,
    )  # fmt: skip
    assert done.stdout.strip() == "cert.pem: OK", done.stderr


def test_a_restart_keeps_what_is_good(world: World, folder: Path) -> None:
    """Same CA, same certificate."""
    first = world.open(folder).fingerprints
    assert world.open(folder).fingerprints == first
    assert set(first) == {"ca", "local"}


def test_it_renews_with_a_third_of_its_life_left(world: World, folder: Path) -> None:
    """Not before day 60 of 90, under the same CA; new handshakes get the new certificate in the same context."""
    world.now -= timedelta(days=60, hours=1)  # the handshake's own clock is the real one
    material = world.open(folder)
    context = material.context_for(UNIX)
    old = material.fingerprints
    world.now += timedelta(days=59)
    assert not material.renew()
    world.now += timedelta(days=1, hours=1)
    assert material.renew()
    assert not material.renew()
    assert material.fingerprints["ca"] == old["ca"]
    assert material.context_for(UNIX) is context
    served = shake(context, material.ca_path, "localhost").getpeercert(binary_form=True)
    assert served == leaf_of((folder / "cert.pem").read_text())
    assert material.expires == world.now + timedelta(days=90)


@pytest.mark.parametrize(
    ("names", "addresses", "is_new"),
    [
        (("localhost", "edge.lan"), ("127.0.0.1", "192.0.2.9", "192.0.2.10"), True),
        (("localhost", "edge.lan"), ("127.0.0.1",), False),
        (("localhost", "new.lan"), ("127.0.0.1",), True),
        (("localhost",), ("127.0.0.1",), True),
    ],
)
def test_it_follows_the_hosts_names(
    world: World, folder: Path, names: tuple[str, ...], addresses: tuple[str, ...], is_new: bool
) -> None:
    """A new address or name, or a name that is gone, makes a new certificate; a lost address alone does not."""
    material = world.open(folder)
    world.host = HostNames.of(names, addresses)
    assert material.renew() is is_new
    for name in (*names, *addresses):
        shake(material.context_for(TCP), material.ca_path, name)


def test_a_ca_near_its_end_is_renewed_with_its_key(world: World, folder: Path) -> None:
    """Clients that trust the old CA certificate go on, and so do those that take the new one."""
    material = world.open(folder)
    old_ca = folder.parent / "old.pem"
    old_ca.write_bytes(material.ca_path.read_bytes())
    before = material.fingerprints["ca"]
    world.now = datetime.now(UTC) - timedelta(days=3650 - 100)  # back then the CA is made anew ...
    (folder / "ca.pem").unlink()
    world.open(folder)
    world.now = datetime.now(UTC)  # ... and today it has 100 days left
    material = world.open(folder)
    assert material.fingerprints["ca"] != before
    for ca in (old_ca, material.ca_path):
        shake(material.context_for(UNIX), ca, "localhost")


def test_a_clock_that_was_wrong_heals(world: World, folder: Path) -> None:
    """A device that starts in 1970 and learns the time later gets certificates that are valid now."""
    world.now = datetime(1971, 1, 1, tzinfo=UTC)
    world.open(folder)
    world.now = datetime.now(UTC)
    material = world.open(folder)
    shake(material.context_for(UNIX), material.ca_path, "localhost")


@pytest.mark.parametrize("name", ["cert.pem", "key.pem"])
@pytest.mark.parametrize("harm", ["gone", "garbage", "empty"])
def test_a_lost_server_pair_is_made_again(world: World, folder: Path, name: str, harm: str) -> None:
    """As after a crash between two renames; the CA and so the clients' trust stay."""
    ca = world.open(folder).fingerprints["ca"]
    if harm == "gone":
        (folder / name).unlink()
    else:
        (folder / name).write_text("garbage" if harm == "garbage" else "")
    material = world.open(folder)
    assert material.fingerprints["ca"] == ca
    shake(material.context_for(UNIX), material.ca_path, "localhost")


def test_a_damaged_ca_stops_the_start(world: World, folder: Path) -> None:
    """The clients' trust is never thrown away silently: a damaged, foreign or readable CA key is named."""
    world.open(folder)
    other = world.open(folder.parent / "other")
    good = (folder / "ca.key").read_bytes()
    for data, says in (
        (b"x", "not a PEM private key"),
        ((other.ca_path.with_name("ca.key")).read_bytes(), "not the key of"),
    ):
        (folder / "ca.key").write_bytes(data)
        with pytest.raises(ConfigError, match=f"ca.key: .*{says}"):
            world.open(folder)
    (folder / "ca.key").write_bytes(good)
    (folder / "ca.key").chmod(0o644)
    with pytest.raises(ConfigError, match="every user can read"):
        world.open(folder)


def test_a_ca_key_kept_elsewhere_serves_until_renewal(world: World, folder: Path) -> None:
    """Without its key the CA's certificate goes on until it ends, and then the error says what to do."""
    world.open(folder)
    (folder / "ca.key").unlink()
    world.now += timedelta(days=89)
    material = world.open(folder)
    shake(material.context_for(UNIX), material.ca_path, "localhost")
    world.now += timedelta(days=2)
    with pytest.raises(ConfigError, match=r"ca\.key: is missing"):
        material.renew()
    with pytest.raises(ConfigError, match=r"ca\.key: is missing"):
        world.open(folder)


def test_a_full_disk_keeps_the_old_certificate(world: World, folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A renewal that cannot be written is told, changes no file, and the valid certificate goes on, also at a start."""
    material = world.open(folder)
    before = {each.name: each.read_bytes() for each in folder.iterdir()}
    world.now += timedelta(days=80)
    with files_cannot_grow(10):
        assert not material.renew()
        world.open(folder)
    assert "cannot renew the certificate: File too large" in caplog.text
    assert {each.name: each.read_bytes() for each in folder.iterdir()} == before
    world.now += timedelta(days=20)
    with files_cannot_grow(10):
        with pytest.raises(ConfigError, match="cannot write certificates: File too large"):
            material.renew()
        with pytest.raises(ConfigError, match="cannot write certificates"):
            world.open(folder.parent / "fresh")
    assert list((folder.parent / "fresh").iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a tiny file system needs root")
def test_a_really_full_disk_keeps_the_old_certificate(world: World, tmp_path: Path) -> None:
    """The same on a file system with no byte left."""
    disk = tmp_path / "disk"
    disk.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)], capture_output=True, text=True
    )
    if done.returncode:
        pytest.skip(f"cannot mount a tmpfs here: {done.stderr.strip()}")
    try:
        material = world.open(disk / "tls")
        before = (disk / "tls/cert.pem").read_bytes()
        with pytest.raises(OSError, match="No space left"):
            (disk / "filler").write_bytes(b"x" * (1 << 20))
        world.now += timedelta(days=80)
        assert not material.renew()
        assert (disk / "tls/cert.pem").read_bytes() == before
        shake(material.context_for(UNIX), material.ca_path, "localhost")
        (disk / "filler").unlink()
        assert material.renew()
    finally:
        subprocess.run(["umount", str(disk)], check=True)


async def test_open_connections_survive_a_renewal(world: World, folder: Path) -> None:
    """One connection lives on with the old certificate while the next one gets the new, on the daemon's own loop."""
    world.now -= timedelta(days=61)
    material = await asyncio.to_thread(world.open, folder)

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            writer.write(line)
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0, ssl=material.context_for(TCP))
    port = server.sockets[0].getsockname()[1]
    client = ssl.create_default_context(cafile=str(material.ca_path))

    async def connect() -> tuple[asyncio.StreamReader, asyncio.StreamWriter, bytes]:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=client)
        return reader, writer, writer.get_extra_info("ssl_object").getpeercert(binary_form=True)

    reader, writer, old = await connect()
    world.now += timedelta(days=61)
    assert await asyncio.to_thread(material.renew)
    _, other, new = await connect()
    writer.write(b"still here\n")
    assert await reader.readline() == b"still here\n"
    assert old != new
    assert new == leaf_of(await asyncio.to_thread((folder / "cert.pem").read_text))
    for each in (writer, other):
        each.close()
        await each.wait_closed()
    server.close()
    await server.wait_closed()


def test_the_ca_is_published_beside_the_socket(world: World, folder: Path, tmp_path: Path) -> None:
    """Readable by all, and only for Unix sockets with TLS."""
    material = world.open(folder)
    path = material.publish(Listener("unix", path=str(tmp_path / "a.sock")))
    assert path == tmp_path / "a.sock.ca.pem"
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    shake(material.context_for(UNIX), path, "localhost")
    assert material.publish(Listener("unix", path=str(tmp_path / "b.sock"), tls=False)) is None
    assert material.publish(TCP) is None
    with pytest.raises(ConfigError, match="cannot be written: No such file"):
        material.publish(Listener("unix", path=str(tmp_path / "none/a.sock")))
