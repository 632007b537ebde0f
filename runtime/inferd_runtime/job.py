"""One request in flight: what was asked, by when, and in the end what came of it.

Owner: the submitter until `Runtime.submit`, then the runtime until the job is handed to the `deliver` callback, then
the submitter again. Only `cancel()` may be called by another thread meanwhile. A job is settled exactly once.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from inferd_runtime.errors import InferdError

Array = np.ndarray[Any, Any]


class Job:
    """A request for one inference.

    `inputs` map names to read-only C-contiguous arrays that must stay alive and unchanged until the job is settled.
    `outputs` names the wanted outputs, empty for all. `deadline_ns` is on `time.monotonic_ns`'s clock. A greater
    `priority` goes first among the jobs that wait for a model, within bounds. `context` is the submitter's own (a
    future, say); the runtime never looks at it. After settling exactly one of `result` and `error`
    is set; result arrays may be views on a buffer shared with batch mates and must not be written to.
    """

    __slots__ = (
        "batch_rows", "context", "deadline_ns", "enqueued_ns", "error", "gathered_ns", "group", "inputs",
        "is_cancelled", "model", "nbytes", "outputs", "principal", "priority", "ran_ns", "request_id", "result",
        "rows", "settled_ns", "started_ns", "turn_ns", "version",
    )  # fmt: skip

    def __init__(
        self,
        model: str,
        inputs: Mapping[str, Array],
        *,
        version: int | None = None,
        outputs: tuple[str, ...] = (),
        deadline_ns: int | None = None,
        priority: int = 0,
        principal: str = "",
        request_id: str = "",
        context: Any = None,
    ) -> None:
        self.model = model
        self.version = version
        self.inputs = inputs
        self.outputs = outputs
        self.deadline_ns = deadline_ns
        self.priority = priority
        self.principal = principal
        self.request_id = request_id
        self.context = context
        self.is_cancelled = False
        self.result: dict[str, Array] | None = None
        self.error: InferdError | None = None
        # Set by admission: rows (1 for a model without a batch dimension), bytes held, key of jobs that may share a
        # batch.
        self.rows = 1
        self.nbytes = 0
        self.group: Any = None
        # Set as the job walks, all on time.monotonic_ns's clock; 0 means not reached.
        self.enqueued_ns = 0
        self.turn_ns = 0.0  # its place among those that wait: earlier goes first
        self.started_ns = 0  # a worker took the batch
        self.gathered_ns = 0  # inputs are ready for the engine
        self.ran_ns = 0  # the engine returned
        self.settled_ns = 0  # outputs are split
        self.batch_rows = 0

    def cancel(self) -> None:
        """The caller left: drop the job at the next stop. Never harms the batch it may already be part of."""
        self.is_cancelled = True
