"""What one request does in regions: inputs are read before it runs, outputs are written before it is answered.

Inputs are copied, so that nothing a caller does to his memory meanwhile reaches an engine, which may look at a value
twice. Where the region's owner has power over the daemon anyway, large float tensors are seen where they lie.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType

import numpy as np

from inferd.protocol import DATATYPES, Reference, RegionRef, Request, read_reference
from inferd.protocol.binary import write_section
from inferd.protocol.datatypes import Array, sendable
from inferd.protocol.responses import pick_output
from inferd_agent.memory.region import Region
from inferd_runtime import InvalidRequest

_FLOATS = frozenset(DATATYPES[name] for name in ("FP16", "BF16", "FP32", "FP64"))
# From this size on looking at a tensor in place is worth it.
SEEN_BYTES = 1 << 20


def uses_regions(request: Request) -> bool:
    """Whether an input of a request, or an output, lies in a region."""
    if request.references or not request.outputs:
        return bool(request.references)
    return any(output.place is not None for output in request.outputs)


class Use:
    """Holds the regions until it is closed. `read` and `write` may run on any thread, one at a time.

    `copied_bytes` is what `read` copies, `room_bytes` what `write` may.
    """

    def __init__(self, request: Request, regions: Mapping[str, Region]) -> None:
        self._request = request
        self._outputs = [(output, output.place) for output in request.outputs if output.place is not None]
        for reference in request.references:
            regions[reference.place.region].check(reference.place)
        for _, place in self._outputs:
            _check_writable(regions[place.region], place)
        self._regions = regions
        self._held: list[Region] = []
        for region in regions.values():
            region.hold()
            self._held.append(region)
        self.copied_bytes = sum(each.place.nbytes for each in request.references if self._seen(each) is None)
        self.room_bytes = sum(place.nbytes for _, place in self._outputs)

    def __enter__(self) -> Use:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let the regions go; idempotent."""
        held, self._held = self._held, []
        for region in held:
            region.release()

    def read(self) -> None:
        """Add the inputs in regions to the request's others. Raises InvalidRequest, ProtocolError."""
        for reference in self._request.references:
            self._request.inputs[reference.name] = self._read(reference)

    def write(self, outputs: Mapping[str, Array]) -> None:
        """Write the outputs that are wanted in regions. Raises InvalidRequest, ProtocolError."""
        for wanted, place in self._outputs:
            data = write_section(sendable(pick_output(outputs, wanted, None, True)))
            if len(data) > place.nbytes:
                raise InvalidRequest(
                    f"output '{wanted.name}' takes {len(data)} bytes, "
                    f"region '{place.region}' was offered with {place.nbytes}"
                )
            self._regions[place.region].write(place, data)

    def _read(self, reference: Reference) -> Array:
        seen = self._seen(reference)
        if seen is None:
            copied = np.empty(reference.place.nbytes, np.uint8).data
            self._regions[reference.place.region].read(reference.place, copied)
            seen = copied.toreadonly()
        return read_reference(reference, seen)

    def _seen(self, reference: Reference) -> memoryview | None:
        if reference.place.nbytes < SEEN_BYTES or reference.dtype not in _FLOATS:
            return None
        return self._regions[reference.place.region].see(reference.place)


def _check_writable(region: Region, place: RegionRef) -> None:
    region.check(place)
    if not region.is_writable:
        raise InvalidRequest(f"region '{region.name}' can be read only: its object does not let this daemon write")
