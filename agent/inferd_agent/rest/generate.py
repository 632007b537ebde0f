"""The generate extension: values in, values out, for callers that have no use for tensors.

The same jobs as every other inference makes. Models here answer once, so a stream is one event.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import Executor

from inferd.protocol.generate import Wanted, decode_generate, encode_generate
from inferd_agent import views
from inferd_agent.bridge import Bridge
from inferd_agent.inference import job_of
from inferd_agent.rest.answers import Answer, json_answer
from inferd_agent.rest.bodies import Bodies
from inferd_agent.rest.call import Call
from inferd_agent.rest.headers import TIMEOUT
from inferd_agent.rest.routes import Endpoint, Target

_EVENTS = b"Content-Type: text/event-stream; charset=utf-8\r\n"


class Generate:
    """Answers generate requests; `allowed_ns` tells how long one may take, given its timeout header."""

    def __init__(
        self, bridge: Bridge, bodies: Bodies, pool: Executor, *, allowed_ns: Callable[[str | None], int]
    ) -> None:
        self._bridge = bridge
        self._bodies = bodies
        self._pool = pool
        self._allowed_ns = allowed_ns

    def table(self) -> dict[str, Endpoint]:
        """The paths."""
        found = {}
        for model in ("/v2/models/{m}", "/v2/models/{m}/versions/{n}"):
            found[f"{model}/generate"] = Endpoint("generate", "POST", self.answer, ("infer",))
            found[f"{model}/generate_stream"] = Endpoint("generate_stream", "POST", self.stream, ("infer",))
        return found

    async def answer(self, call: Call, target: Target) -> Answer:
        """One object of outputs."""
        return json_answer(await self._run(call, target))

    async def stream(self, call: Call, target: Target) -> Answer:
        """The same as a stream of events, of which there is one; refusals are plain JSON."""
        return Answer(200, _EVENTS, (b"data: %b\n\n" % await self._run(call, target),))

    async def _run(self, call: Call, target: Target) -> bytes:
        arrived_ns = time.monotonic_ns()
        within_ns = self._allowed_ns(call.message.headers.get(TIMEOUT))
        body = await self._bodies.read(call)
        description = self._bridge.runtime.describe(target.model, target.version)
        inputs = [Wanted(each.name, each.datatype, each.shape) for each in views.spec_of(description).inputs]
        loop = asyncio.get_running_loop()
        request = await loop.run_in_executor(self._pool, decode_generate, body, inputs)
        job = job_of(
            request, call.principal, target.model, description.version,
            arrived_ns=arrived_ns, within_ns=within_ns, request_id=call.id,
        )  # fmt: skip
        result = await self._bridge.infer(job)
        return await loop.run_in_executor(
            self._pool, encode_generate, request, job.model, str(description.version), result
        )
