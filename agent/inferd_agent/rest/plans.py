"""Measured plans: what was tried of a model and what came of it, how far a measuring is, and the order to measure.

Ours, beyond the protocol. Measuring takes seconds to minutes, so the order is answered at once and followed by asking.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from inferd.protocol.messages import decode_optional
from inferd_agent import views
from inferd_agent.bridge import Bridge
from inferd_agent.rest.answers import Answer, json_answer
from inferd_agent.rest.bodies import Bodies
from inferd_agent.rest.call import Call
from inferd_agent.rest.routes import Endpoint, Target


class MeasureRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """The optional body of an order to measure. `budget_s` None: as configured."""

    budget_s: Annotated[float, Meta(ge=1, le=86_400)] | None = None
    thorough: bool = False


_MEASURE_REQUEST = msgspec.json.Decoder(MeasureRequest)


class Plans:
    """Answers questions about plans, and the order to measure."""

    def __init__(self, bridge: Bridge, bodies: Bodies) -> None:
        self._bridge = bridge
        self._bodies = bodies

    def table(self) -> dict[str, Endpoint]:
        """The paths."""
        scopes = ("read", "admin")
        measure = Endpoint("plan", "POST", self.measure, ("admin",))
        return {
            "/inferd/v1/models/{m}/plan": Endpoint("plan", "GET", self.show, scopes, measure),
            "/inferd/v1/models/{m}/versions/{n}/plan": Endpoint("plan", "GET", self.show, scopes),
        }

    async def show(self, call: Call, target: Target) -> Answer:
        """The plan in service, the evidence, and how far a measuring is."""
        return json_answer(self._shown(target))

    async def measure(self, call: Call, target: Target) -> Answer:
        """202 and the state as it is now; the measuring goes on in the background."""
        wanted = decode_optional(_MEASURE_REQUEST, await self._bodies.read(call), "measure")
        self._bridge.runtime.measure(target.model, budget_s=wanted.budget_s, thorough=wanted.thorough)
        return json_answer(self._shown(target), 202)

    def _shown(self, target: Target) -> bytes:
        runtime = self._bridge.runtime
        description = runtime.describe(target.model, target.version)
        state = runtime.evidence(target.model, description.version)
        return msgspec.json.encode(views.plan(description, state))
