"""Regions: who may register what, whose they are, their bounds, and what is left when they are gone."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from inferd.protocol import OutputRequest, Reference, RegionRef, Request
from inferd.protocol.datatypes import BYTES
from inferd_agent.config import SharedMemory
from inferd_agent.errors import Forbidden, NoSuchRegion, RegionExists, answer_for
from inferd_agent.memory import Origin, Regions
from inferd_runtime import InferdError, InvalidRequest, Overloaded, Unsupported

HERE = Origin(True, os.geteuid())
FLOAT = np.dtype(np.float32)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What stands for /dev/shm: one object `x` of 1000 bytes, which count up."""
    (tmp_path / "x").write_bytes(bytes(range(250)) * 4)
    return tmp_path


@pytest.fixture
def regions(folder: Path) -> Iterator[Regions]:
    """A table that takes three regions of 4 MB together from each caller; no descriptor is left behind."""
    before = descriptors()
    made = Regions(SharedMemory(system=True, max_bytes=8 << 20, max_regions=6), folder=folder)
    yield made
    made.close()
    assert descriptors() == before


def descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def memfd(nbytes: int, *, seals: int = fcntl.F_SEAL_SHRINK, flags: int = os.MFD_ALLOW_SEALING) -> int:
    fd = os.memfd_create("test", os.MFD_CLOEXEC | flags)
    os.truncate(fd, nbytes)
    if seals:
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
    return fd


def floats(place: RegionRef, name: str = "x") -> Reference:
    return Reference(name, FLOAT, (place.nbytes // 4,), place.nbytes // 4, place)


def reads(*references: Reference) -> Request:
    return Request(references=references)


def writes(place: RegionRef) -> Request:
    return Request(outputs=(OutputRequest("y", True, 0, place),))


def test_inputs_are_read_and_outputs_written(regions: Regions, folder: Path) -> None:
    """From the region's offset and the tensor's, to the byte, beside what was sent."""
    regions.register_key("a", HERE, "r", "/x", 100, 200)
    request = reads(
        floats(RegionRef("r", 0, 8)),
        Reference("t", BYTES, (1,), 1, RegionRef("r", 192, 8)),
    )
    request.inputs["sent"] = np.zeros(1)
    request.outputs = (OutputRequest("y", True, 0, RegionRef("r", 16, 12)), OutputRequest("z"))
    with (folder / "x").open("r+b") as file:
        file.seek(292)
        file.write(b"\x04\0\0\0text")
    with regions.use("a", request) as use:
        use.read()
        use.write({"y": np.array([1, 2], np.float32), "z": np.zeros(5)})
    assert request.inputs["x"].tobytes() == bytes(range(100, 108))
    assert request.inputs["t"].tolist() == [b"text"]
    assert sorted(request.inputs) == ["sent", "t", "x"]
    found = (folder / "x").read_bytes()
    assert found[116:124] == np.array([1, 2], np.float32).tobytes()
    assert found[:116] == (bytes(range(250)) * 4)[:116]
    assert found[124:128] == bytes(range(124, 128))


def test_what_is_copied_is_told_beforehand(regions: Regions) -> None:
    """So that it can be counted as held before it is."""
    regions.register_key("a", HERE, "r", "x", 0, 1000)
    request = reads(floats(RegionRef("r", 0, 400)), floats(RegionRef("r", 0, 1000), "w"))
    request.outputs = writes(RegionRef("r", 0, 300)).outputs
    with regions.use("a", request) as use:
        assert (use.copied_bytes, use.room_bytes) == (1400, 300)


KEYS = {
    "empty": ("", InvalidRequest, "one name under"),
    "only a slash": ("/", InvalidRequest, "one name under"),
    "path": ("/a/x", InvalidRequest, "one name under"),
    "two slashes": ("//x", InvalidRequest, "one name under"),
    "parent": ("..", InvalidRequest, "one name under"),
    "parent's": ("../x", InvalidRequest, "one name under"),
    "itself": (".", InvalidRequest, "one name under"),
    "NUL": ("x\0y", InvalidRequest, "one name under"),
    "long": ("ä" * 200, InvalidRequest, "400 bytes"),
    "lone surrogate": ("\udcff", InvalidRequest, "UTF-8"),
    "missing": ("/none", InvalidRequest, "'/none': cannot be opened under .*: No such file"),
    "link": ("link", InvalidRequest, "it is a link"),
    "pipe": ("pipe", InvalidRequest, "no shared memory object"),
    "folder": ("folder", InvalidRequest, "cannot be opened"),
    "socket": ("socket", InvalidRequest, "cannot be opened"),
    "stranger's": ("strange", Forbidden, "'strange': the object belongs to another user"),
}


@pytest.mark.parametrize("case", KEYS)
@pytest.mark.timeout(20)
def test_keys_that_are_no_objects_of_the_callers(case: str, regions: Regions, folder: Path) -> None:
    """Each is refused with the key named, at once, and nothing is registered."""
    (folder / "link").symlink_to(folder / "x")
    os.mkfifo(folder / "pipe")
    (folder / "folder").mkdir()
    (folder / "strange").write_bytes(bytes(100))
    key, kind, reason = KEYS[case]
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(folder / "socket"))
        with pytest.raises(kind, match=reason) as refusal:
            regions.register_key("a", Origin(True, 4711 if case == "stranger's" else HERE.uid), "r", key, 0, 8)
    assert answer_for(refusal.value).http in (400, 403)
    assert len(regions) == 0


def test_whose_objects_may_be_named(regions: Regions, folder: Path) -> None:
    """Root may all; a caller who is not known by his process what everybody may, or the daemon's own user's."""
    (folder / "open").write_bytes(bytes(8))
    (folder / "open").chmod(0o666)
    regions.register_key("a", Origin(True, 0), "1", "x", 0, 8)
    regions.register_key("a", Origin(True), "2", "x", 0, 8)
    if os.geteuid() == 0:
        os.chown(folder / "open", 4711, 4711)
    regions.register_key("a", Origin(True), "3", "open", 0, 8)
    regions.unregister("a")
    (folder / "open").chmod(0o664)
    if os.geteuid() == 0:
        with pytest.raises(Forbidden, match="another user"):
            regions.register_key("a", Origin(True), "3", "open", 0, 8)
        regions.register_key("a", Origin(True, 4711), "3", "open", 0, 8)
    with pytest.raises(Forbidden, match="region '4': only callers on this machine"):
        regions.register_key("a", Origin(False), "4", "x", 0, 8)


@pytest.mark.parametrize(
    ("host", "is_local"),
    [("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("::ffff:127.0.0.1", True), ("10.0.0.1", False),
     ("::ffff:10.0.0.1", False), ("fe80::1%eth0", False), ("", False), ("localhost", False)],
)  # fmt: skip
def test_who_calls_from_this_machine(host: str, is_local: bool) -> None:
    """Loopback addresses in every spelling, and nothing that would have to be looked up."""
    assert Origin.of_address(host) == Origin(is_local)


BOUNDS = {
    "nothing": (0, 0, "byte_size must be 1 or more"),
    "less": (0, -1, "byte_size must be 1 or more"),
    "before it": (-1, 8, "1000 bytes; 8 from -1 on are not in it"),
    "too long": (0, 1001, "1000 bytes; 1001 from 0 on are not in it"),
    "past its end": (1001, 1, "not in it"),
    "2^63 on": ((1 << 63) - 4, 8, "not in it"),
    "2^64 on": ((1 << 64) - 4, 8, "not in it"),
}


@pytest.mark.parametrize("case", BOUNDS)
def test_regions_are_within_their_object(case: str, regions: Regions) -> None:
    """Offset and size are compared with no overflow, and the region is named."""
    offset, nbytes, reason = BOUNDS[case]
    with pytest.raises(InvalidRequest, match=f"region 'r': .*{reason}"):
        regions.register_key("a", HERE, "r", "x", offset, nbytes)
    assert len(regions) == 0


@pytest.mark.parametrize(
    ("offset", "nbytes"), [(0, 204), (200, 4), (201, 0), ((1 << 63) - 4, 8), ((1 << 64) - 4, 4), (4, 1 << 64)]
)
def test_tensors_are_within_their_region(offset: int, nbytes: int, regions: Regions) -> None:
    """Although the object goes on behind it; a tensor of nothing may be at the end."""
    regions.register_key("a", HERE, "r", "x", 100, 200)
    place = RegionRef("r", offset, nbytes)
    for request in (reads(floats(place)), writes(place)):
        with pytest.raises(InvalidRequest, match=f"region 'r' has 200 bytes; {nbytes} from {offset} on"):
            regions.use("a", request)
    with regions.use("a", reads(floats(RegionRef("r", 200, 0)))) as use:
        use.read()


def test_regions_belong_to_who_registered_them(regions: Regions) -> None:
    """Others neither use, see nor remove them, and may have one of the same name."""
    regions.register_key("a", HERE, "r", "x", 0, 100)
    for act in (lambda: regions.use("b", reads(floats(RegionRef("r", 0, 8)))), lambda: regions.status("b", "r")):
        with pytest.raises(NoSuchRegion, match="no region 'r'"):
            act()
    assert regions.status("b") == []
    regions.unregister("b")
    regions.unregister("b", "r")
    regions.register_key("b", HERE, "r", "x", 0, 200)
    assert [(each.name, each.nbytes, each.key) for each in regions.status("a")] == [("r", 100, "x")]
    with pytest.raises(RegionExists, match="'r' is registered already"):
        regions.register_key("a", HERE, "r", "x", 0, 100)


def test_one_caller_leaves_room_for_others(regions: Regions, folder: Path) -> None:
    """Nobody has more than half of the bytes, or of the regions; what is given back may be taken again."""
    (folder / "big").write_bytes(b"")
    os.truncate(folder / "big", 8 << 20)
    regions.register_key("a", HERE, "1", "big", 0, (4 << 20) - 8)
    with pytest.raises(Overloaded, match=r"region '2': 4194296 bytes of your regions .*, 9 more would pass 4194304"):
        regions.register_key("a", HERE, "2", "x", 0, 9)
    with pytest.raises(InvalidRequest, match=r"region '2' has 4194305 bytes, one caller's regions .* at most 4194304"):
        regions.register_key("b", HERE, "2", "big", 0, (4 << 20) + 1)
    regions.register_key("a", HERE, "2", "x", 0, 4)
    regions.register_key("a", HERE, "3", "x", 0, 4)
    with pytest.raises(Overloaded, match="region '4': your 3 regions are registered"):
        regions.register_key("a", HERE, "4", "x", 0, 1)
    regions.register_key("b", HERE, "4", "big", 0, 4 << 20)
    regions.unregister("a")
    regions.register_key("a", HERE, "4", "big", 0, 4 << 20)


def test_limits(folder: Path) -> None:
    """Bytes and regions are counted over all callers."""
    (folder / "big").write_bytes(b"")
    os.truncate(folder / "big", 4 << 20)
    with contextlib.closing(
        Regions(SharedMemory(system=True, max_bytes=4 << 20, max_regions=5), folder=folder)
    ) as regions:
        for caller in ("a", "b"):
            regions.register_key(caller, HERE, "1", "big", 0, (2 << 20) - 8)
        with pytest.raises(Overloaded, match=r"region '1': 4194288 bytes of all regions .*, 17 more"):
            regions.register_key("c", HERE, "1", "x", 0, 17)
        for caller in ("a", "b", "c"):
            regions.register_key(caller, HERE, "2", "x", 0, 1)
        with pytest.raises(Overloaded, match="region '1': all 5 regions are registered"):
            regions.register_key("c", HERE, "1", "x", 0, 1)
    with contextlib.closing(Regions(SharedMemory(system=True, max_bytes=1, max_regions=1), folder=folder)) as regions:
        regions.register_key("a", HERE, "1", "x", 0, 1)  # of so little the half is all


def test_off_by_default(folder: Path) -> None:
    """The refusal says what to set; asking and unregistering are no errors."""
    regions = Regions(SharedMemory(), folder=folder)
    with pytest.raises(Unsupported, match=r"shared_memory\.system = true"):
        regions.register_key("a", HERE, "r", "x", 0, 8)
    assert regions.status("a") == []
    regions.unregister("a")


@pytest.mark.parametrize("name", ["", "a" * 256, "a\nb"])
def test_names_that_are_none(name: str, regions: Regions) -> None:
    """They would be written into answers and logs."""
    with pytest.raises(InvalidRequest, match="printable characters"):
        regions.register_key("a", HERE, name, "x", 0, 8)


def test_object_that_is_cut_after_it_was_registered(regions: Regions, folder: Path) -> None:
    """Reading and writing are refused, naming the region, and the object is not made larger; what is left works."""
    regions.register_key("a", HERE, "r", "x", 0, 1000)
    os.truncate(folder / "x", 500)
    use = regions.use("a", reads(floats(RegionRef("r", 0, 1000))))
    with use, pytest.raises(InvalidRequest, match="region 'r': its object was cut"):
        use.read()
    with regions.use("a", writes(RegionRef("r", 400, 400))) as use:
        with pytest.raises(InvalidRequest, match="region 'r': its object was cut"):
            use.write({"y": np.zeros(100, np.float32)})
        use.write({"y": np.zeros(25, np.float32)})
    assert (folder / "x").stat().st_size == 500


def test_output_that_is_larger_than_its_room(regions: Regions, folder: Path) -> None:
    """It is refused and nothing is written; a smaller one is fine."""
    regions.register_key("a", HERE, "r", "x", 0, 1000)
    with regions.use("a", writes(RegionRef("r", 0, 8))) as use:
        with pytest.raises(InvalidRequest, match="output 'y' takes 12 bytes, region 'r' was offered with 8"):
            use.write({"y": np.ones(3, np.float32)})
        assert (folder / "x").read_bytes() == bytes(range(250)) * 4
        use.write({"y": np.array([b"ab"], object)})
    assert (folder / "x").read_bytes()[:6] == b"\x02\0\0\0ab"


def test_region_that_is_unregistered_under_a_request(regions: Regions, folder: Path) -> None:
    """The request finishes; then the descriptor is closed, and late threads find nothing."""
    before = descriptors()
    regions.register_key("a", HERE, "r", "x", 0, 1000)
    place = RegionRef("r", 0, 8)
    with regions.use("a", writes(place)) as use:
        regions.unregister("a")
        assert descriptors() == before + 1
        use.write({"y": np.ones(2, np.float32)})
    assert descriptors() == before
    assert (folder / "x").read_bytes()[:8] == np.ones(2, np.float32).tobytes()
    with pytest.raises(NoSuchRegion, match="region 'r' was unregistered meanwhile"):
        use.write({"y": np.ones(2, np.float32)})
    with pytest.raises(NoSuchRegion):
        regions.use("a", writes(place))


def test_region_that_cannot_be_used_leaves_the_others_free(regions: Regions) -> None:
    """A request over two regions, one of which is unknown or too small, holds neither."""
    before = descriptors()
    regions.register_key("a", HERE, "r", "x", 0, 8)
    for bad in (RegionRef("none", 0, 8), RegionRef("r", 0, 12)):
        with pytest.raises(InferdError):
            regions.use("a", reads(floats(RegionRef("r", 0, 8)), floats(bad, "w")))
    regions.unregister("a")
    assert descriptors() == before


# Memory that is handed over


def test_memfd_is_seen_where_it_lies(regions: Regions) -> None:
    """Large floats are not copied and cannot be written through; all else is copied."""
    fd = memfd(3 << 20)
    os.pwrite(fd, np.arange(1 << 18, dtype=np.float32).tobytes(), 1 << 20)
    ours = os.dup(fd)
    name = regions.register_fd("a", fd, 3 << 20, uid=os.geteuid())
    count = 1 << 18
    request = reads(
        floats(RegionRef(name, 1 << 20, 4 * count)),
        floats(RegionRef(name, 1 << 20, 4), "small"),
        Reference("i", np.dtype(np.int32), (count,), count, RegionRef(name, 1 << 20, 4 * count)),
        floats(RegionRef(name, (1 << 20) + 1, 4 * count), "unaligned"),
    )
    with regions.use("a", request) as use:
        assert use.copied_bytes == 4 + 4 * count
        use.read()
    regions.unregister("a", name)
    os.pwrite(ours, b"\0\0\0\0\0\0\0@", 1 << 20)
    os.close(ours)
    seen = request.inputs
    assert seen["x"][:3].tolist() == [0, 2, 2]  # the memory outlives its region as long as an array looks at it
    assert seen["i"][:2].view(np.float32).tolist() == [0, 1]
    assert seen["small"].tolist() == [0]
    assert not any(array.flags.writeable for array in seen.values())
    assert all(array.flags.aligned for array in seen.values())
    request.inputs.clear()


@pytest.mark.parametrize("uid", [None, 4711])
def test_memfd_of_others_is_copied(regions: Regions, uid: int | None) -> None:
    """Engines look at values twice: only who has power over the daemon anyway could change them in between."""
    fd = memfd(2 << 20)
    ours = os.dup(fd)
    name = regions.register_fd("a", fd, 2 << 20, uid=uid)
    request = reads(floats(RegionRef(name, 0, 2 << 20)))
    with regions.use("a", request) as use:
        assert use.copied_bytes == 2 << 20
        use.read()
    os.pwrite(ours, b"\1" * 8, 0)
    os.close(ours)
    assert not request.inputs["x"].any()


def test_memfd_takes_outputs(regions: Regions) -> None:
    """Written once, where they were wanted."""
    fd = memfd(4096)
    ours = os.dup(fd)
    name = regions.register_fd("a", fd, 4096)
    with regions.use("a", writes(RegionRef(name, 64, 8))) as use:
        use.write({"y": np.array([1, 2], np.float32)})
    assert os.pread(ours, 8, 64) == np.array([1, 2], np.float32).tobytes()
    os.close(ours)


def test_memfd_sealed_against_writing(regions: Regions) -> None:
    """It is an input; written into it is a refusal."""
    name = regions.register_fd("a", memfd(4096, seals=fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_WRITE), 4096)
    request = writes(RegionRef(name, 0, 8))
    request.references = (floats(RegionRef(name, 0, 8)),)
    with regions.use("a", request) as use:
        use.read()
        with pytest.raises(InvalidRequest, match=f"region '{name}' cannot be written"):
            use.write({"y": np.zeros(2, np.float32)})


REFUSED: dict[str, tuple[Callable[[Path], int], str]] = {
    "no seals": (lambda _: memfd(4096, seals=0), "could shrink: seal it"),
    "other seals": (lambda _: memfd(4096, seals=fcntl.F_SEAL_GROW), "could shrink: seal it"),
    "no sealing": (lambda _: memfd(4096, seals=0, flags=0), "could shrink"),
    "too small": (lambda _: memfd(4095), "4095 bytes; 4096 from 0 on"),
    "a socket": (lambda _: socket.socket().detach(), "no memfd"),
    "/dev/null": (lambda _: os.open("/dev/null", os.O_RDWR), "no memfd"),
    "a file": (lambda folder: os.open(folder / "x", os.O_RDWR), "no memfd|could shrink"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_descriptors_that_are_no_sealed_memfds(case: str, regions: Regions, folder: Path) -> None:
    """Refused, saying what to do, and closed."""
    make, reason = REFUSED[case]
    before = descriptors()
    with pytest.raises(InvalidRequest, match=reason):
        regions.register_fd("a", make(folder), 4096)
    assert descriptors() == before


def narrowed(fd: int, flags: int) -> int:
    try:
        return os.open(f"/proc/self/fd/{fd}", flags)
    finally:
        os.close(fd)


def test_memfd_opened_for_writing_alone(regions: Regions) -> None:
    """Inputs could not be read from it."""
    with pytest.raises(InvalidRequest, match="for writing alone"):
        regions.register_fd("a", narrowed(memfd(4096), os.O_WRONLY), 4096)


def test_object_that_was_opened_for_reading_alone(regions: Regions) -> None:
    """It is an input, and as an output refused before anything is run."""
    name = regions.register_fd("a", narrowed(memfd(4096), os.O_RDONLY), 4096)
    with regions.use("a", reads(floats(RegionRef(name, 0, 8)))) as use:
        use.read()
    with pytest.raises(InvalidRequest, match=f"region '{name}' can be read only"):
        regions.use("a", writes(RegionRef(name, 0, 8)))


def test_memory_that_was_handed_over_is_not_the_callers_of_the_protocol(regions: Regions) -> None:
    """Unregistering all that was registered by key leaves it, and the list of those does not show it."""
    name = regions.register_fd("a", memfd(4096), 4096)
    other = regions.register_fd("a", memfd(4096), 4096)
    assert name != other
    regions.unregister("a")
    assert regions.status("a") == []
    assert regions.status("a", name)[0].nbytes == 4096
    with pytest.raises(NoSuchRegion):
        regions.use("b", reads(floats(RegionRef(name, 0, 8))))
