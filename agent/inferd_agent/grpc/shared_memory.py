"""The calls of shared memory: register, status and unregister, for the system's and, in name only, for CUDA's."""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote

from inferd_agent.grpc import messages
from inferd_agent.identity import Principal
from inferd_agent.memory import Origin, Regions
from inferd_agent.sockets import PeerCredentials
from inferd_runtime import Unsupported


class SharedMemory:
    """Answers for the caller's own regions."""

    def __init__(self, regions: Regions) -> None:
        self._regions = regions

    def register(self, caller: Principal, asked: Any, origin: Origin) -> Any:
        """Name a part of an object under /dev/shm."""
        self._regions.register_key(caller.owner, origin, asked.name, asked.key, asked.offset, asked.byte_size)
        return messages.SystemSharedMemoryRegisterResponse()

    async def status(self, caller: Principal, asked: Any) -> Any:
        """One region or all."""
        answer = messages.SystemSharedMemoryStatusResponse()
        for each in self._regions.status(caller.owner, asked.name or None):
            told = answer.regions[each.name]
            told.name, told.key, told.offset, told.byte_size = each.name, each.key, each.offset, each.nbytes
        return answer

    async def unregister(self, caller: Principal, asked: Any) -> Any:
        """One region or all; what is not there is no error."""
        self._regions.unregister(caller.owner, asked.name or None)
        return messages.SystemSharedMemoryUnregisterResponse()

    async def nothing(self, caller: Principal, asked: Any) -> Any:
        """There are no regions on a GPU."""
        return messages.CudaSharedMemoryStatusResponse()

    async def ignore(self, caller: Principal, asked: Any) -> Any:
        """There is nothing to unregister."""
        return messages.CudaSharedMemoryUnregisterResponse()

    async def refuse(self, caller: Principal, asked: Any) -> Any:
        """Memory of a GPU is not taken."""
        raise Unsupported(
            f"region '{asked.name[:200]}': memory of a GPU cannot be shared here, use SystemSharedMemoryRegister"
        )


def origin_of(peer: PeerCredentials | None, address: str) -> Origin:
    """Where a caller sits: `peer` is whom a listener knows, `address` what gRPC calls the other end."""
    if peer is not None:
        return Origin(True, peer.uid)
    kind, _, place = address.partition(":")
    if kind == "unix":
        return Origin(True)
    return Origin.of_address(unquote(place).rpartition(":")[0].strip("[]"))
