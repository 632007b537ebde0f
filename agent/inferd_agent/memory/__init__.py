"""Regions of shared memory: who registered which, and how tensors get in and out of them.

Knows the protocol's references and no transport. Whatever a caller does to the memory behind a region, at any time,
costs that caller's requests alone: objects that can shrink are never mapped, only read and written by system calls.
"""

from inferd_agent.memory.objects import Origin
from inferd_agent.memory.region import Region
from inferd_agent.memory.regions import Regions
from inferd_agent.memory.use import Use, uses_regions

__all__ = ["Origin", "Region", "Regions", "Use", "uses_regions"]
