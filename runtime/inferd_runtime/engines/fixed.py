"""Sessions compiled for exactly so many rows, which still take any number of them.

A fixed first dimension lets an engine plan its memory and kernels once, and is all that some devices take. Here the
rows of a run are cut into pieces of that size and the last piece is filled up by repeating its last row. What a caller
sees is the file's own shapes; nobody above needs to know.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from inferd_runtime.engines import Array, Session
from inferd_runtime.errors import EngineFault, EngineRefused, InvalidRequest
from inferd_runtime.tensor import TensorSpec


def require_free_rows(inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec], rows: int) -> None:
    """Refuse a file where not every tensor has a free first dimension that could be fixed."""
    for role, specs in (("input", inputs), ("output", outputs)):
        if not specs:
            raise EngineRefused(f"cannot be compiled for exactly {rows} rows: it has no {role}s")
        for spec in specs:
            if not spec.shape or spec.shape[0] >= 0:
                raise EngineRefused(
                    f"cannot be compiled for exactly {rows} rows: {role} {spec.name!r} has shape {list(spec.shape)}, "
                    "whose first dimension is not free"
                )


class FixedSession:
    """The `Session` of any engine around one of its sessions that takes exactly `rows`; it owns that session.

    `inputs`, `outputs` and `batch_symbols` are those of the file before its rows were fixed.
    """

    def __init__(
        self,
        session: Session,
        rows: int,
        inputs: tuple[TensorSpec, ...],
        outputs: tuple[TensorSpec, ...],
        batch_symbols: tuple[str, ...],
    ) -> None:
        self._session = session
        self._rows = rows
        self.inputs = inputs
        self.outputs = outputs
        self.batch_symbols = batch_symbols

    def run(self, inputs: Sequence[Array], outputs: Sequence[int]) -> list[Array]:
        rows = self._counted(inputs)
        if rows == self._rows:
            return self._run_piece(inputs, outputs, rows)
        pieces = [
            self._run_piece([array[start : start + self._rows] for array in inputs], outputs, rows - start)
            for start in range(0, rows, self._rows)
        ]
        return pieces[0] if len(pieces) == 1 else [self._joined(parts) for parts in zip(*pieces, strict=True)]

    def close(self) -> None:
        self._session.close()

    def _counted(self, inputs: Sequence[Array]) -> int:
        counts = {array.shape[0] if array.ndim else 0 for array in inputs}
        if len(counts) > 1 or 0 in counts:
            shapes = ", ".join(str(list(array.shape)) for array in inputs)
            raise InvalidRequest(f"expected inputs of one row or more, and equally many, got shapes {shapes}")
        return counts.pop()

    def _run_piece(self, piece: Sequence[Array], outputs: Sequence[int], left: int) -> list[Array]:
        """Run at most `self._rows` rows; `left` of them are still to be answered."""
        missing = self._rows - left
        if missing > 0:
            piece = [np.concatenate([array, np.repeat(array[-1:], missing, axis=0)]) for array in piece]
        results = self._session.run(piece, outputs)
        for index, result in zip(outputs, results, strict=True):
            if not result.ndim or result.shape[0] != self._rows:
                raise EngineFault(
                    f"output {self.outputs[index].name!r} has shape {list(result.shape)} for exactly {self._rows} rows"
                )
        return results if missing <= 0 else [result[:left] for result in results]

    def _joined(self, parts: Sequence[Array]) -> Array:
        try:
            return np.concatenate(parts)
        except ValueError as error:
            shapes = ", ".join(str(list(part.shape)) for part in parts)
            raise EngineFault(f"runs of {self._rows} rows each gave shapes that do not join: {shapes}") from error
