"""The paths of shared memory: register, status and unregister, for the system's and, in name only, for CUDA's.

Load generators unregister everything at their start and end, whatever they use; so that is never an error.
"""

from __future__ import annotations

from inferd.protocol.messages import REGISTER_REGION, MemoryBody, RegionStatus, decode, encode
from inferd_agent.errors import Forbidden, NoSuchPath
from inferd_agent.memory import Origin, Regions
from inferd_agent.rest.answers import Answer, json_answer
from inferd_agent.rest.bodies import Bodies
from inferd_agent.rest.call import Call
from inferd_agent.rest.routes import Endpoint, Target
from inferd_runtime import Unsupported

_SCOPES = ("infer",)


class SharedMemory:
    """Answers for the caller's own regions. `socket`: where memory is handed over, empty where that cannot be."""

    def __init__(self, regions: Regions, bodies: Bodies, socket: str) -> None:
        self._regions = regions
        self._bodies = bodies
        self._socket = socket

    def table(self) -> dict[str, Endpoint]:
        """The paths."""
        found = {"/inferd/v1/memory": Endpoint("memory", "GET", self.socket, _SCOPES)}
        for root, status, register, unregister in (
            ("/v2/systemsharedmemory", self.status, self.register, self.unregister),
            ("/v2/cudasharedmemory", self.nothing, self.refuse, self.ignore),
        ):
            for path in (root, f"{root}/region/{{g}}"):
                found[f"{path}/status"] = Endpoint("regions", "GET", status, _SCOPES)
                found[f"{path}/unregister"] = Endpoint("unregister", "POST", unregister, _SCOPES)
            found[f"{root}/region/{{g}}/register"] = Endpoint("register", "POST", register, _SCOPES)
        return found

    async def register(self, call: Call, target: Target) -> Answer:
        """Name a part of an object under /dev/shm."""
        wanted = decode(REGISTER_REGION, await self._bodies.read(call), f"region '{target.region}'")
        self._regions.register_key(
            call.principal.owner, _origin(call), target.region, wanted.key, wanted.offset, wanted.byte_size
        )
        return json_answer(b"{}")

    async def status(self, call: Call, target: Target) -> Answer:
        """One region or all."""
        found = self._regions.status(call.principal.owner, target.region or None)
        return json_answer(encode([RegionStatus(each.name, each.key, each.offset, each.nbytes) for each in found]))

    async def unregister(self, call: Call, target: Target) -> Answer:
        """One region or all; what is not there is no error."""
        self._regions.unregister(call.principal.owner, target.region or None)
        return json_answer(b"{}")

    async def socket(self, call: Call, target: Target) -> Answer:
        """Where memory is handed over, for callers who can go there."""
        if not self._socket:
            raise NoSuchPath("memory is not handed over here: add memory+unix:/path to server.listen")
        if not _origin(call).is_local:
            raise Forbidden("only callers on this machine, by Unix socket or loopback, share memory")
        return json_answer(encode(MemoryBody(self._socket)))

    async def nothing(self, call: Call, target: Target) -> Answer:
        """There are no regions on a GPU."""
        return json_answer(b"[]")

    async def ignore(self, call: Call, target: Target) -> Answer:
        """There is nothing to unregister."""
        return json_answer(b"{}")

    async def refuse(self, call: Call, target: Target) -> Answer:
        """Memory of a GPU is not taken."""
        raise Unsupported(
            f"region '{target.region}': memory of a GPU cannot be shared here, use /v2/systemsharedmemory"
        )


def _origin(call: Call) -> Origin:
    peer = call.connection.peer
    if peer is not None:
        return Origin(True, peer.uid)
    transport = call.connection.transport
    address = transport.get_extra_info("peername") if transport is not None else None
    return Origin.of_address(address[0]) if address else Origin(False)
