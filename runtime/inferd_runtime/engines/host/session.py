"""A session that lives in an engine host. Its runs raise HostDied when the host ends under them."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from inferd_runtime.engines import Array
from inferd_runtime.engines.arrays import settled
from inferd_runtime.engines.host import words
from inferd_runtime.errors import HostDied
from inferd_runtime.tensor import STRING

if TYPE_CHECKING:
    from inferd_runtime.engines.host.process import HostProcess

_CLOSE_TIMEOUT_S = 10.0


class HostedSession:
    """The `Session` in a child; `compile_ms` is what opening took there."""

    def __init__(self, host: HostProcess, opened: words.Opened, run_timeout_s: float) -> None:
        self._host = host
        self._number = opened.session
        self._run_timeout_s = run_timeout_s
        self.inputs = tuple(port.spec() for port in opened.inputs)
        self.outputs = tuple(port.spec() for port in opened.outputs)
        self.batch_symbols = opened.batch_symbols
        self.compile_ms = opened.compile_ms

    def run(self, inputs: Sequence[Array], outputs: Sequence[int]) -> list[Array]:
        arrays = self._settled(inputs)
        with self._host.visit(self._run_timeout_s) as visit:
            slots = visit.region.put(arrays)
            ran = visit.ask(words.Run(self._number, slots, tuple(outputs)), words.Ran)
            answers = [visit.region.get(slot) for slot in ran.outputs]
            return [array if array.dtype == STRING else array.copy() for array in answers]

    def measure(
        self, *turns: Sequence[Array], seconds: float, callers: int = 1, timeout_s: float = 60.0
    ) -> words.Measured:
        """Run the same inputs over and over for `seconds`, by `callers` threads of the child at once, and time the runs
        there; several inputs take turns. Each caller's first run of each is not counted, and at least one is. Raises
        EngineFault, InvalidRequest, HostDied."""
        arrays = [array for inputs in turns for array in self._settled(inputs)]
        with self._host.visit(timeout_s) as visit:
            slots = visit.region.put(arrays)
            return visit.ask(words.Measure(self._number, slots, callers, seconds), words.Measured)

    def close(self) -> None:
        with contextlib.suppress(HostDied), self._host.visit(_CLOSE_TIMEOUT_S) as visit:
            visit.ask(words.Close(self._number), words.Closed)

    def _settled(self, inputs: Sequence[Array]) -> list[Array]:
        return [
            array if spec.dtype == STRING else settled(spec, array)
            for spec, array in zip(self.inputs, inputs, strict=True)
        ]
