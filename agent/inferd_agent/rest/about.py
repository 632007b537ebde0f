"""What concerns no model: health, name, metrics, and the document of all paths."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from inferd.protocol.messages import LiveBody, ReadyBody, ServerMetadata, encode
from inferd_agent.identity import ANONYMOUS
from inferd_agent.metrics import Metrics
from inferd_agent.rest.answers import Answer, json_answer
from inferd_agent.rest.call import Call
from inferd_agent.rest.openapi import document
from inferd_agent.rest.routes import Endpoint, Target


class About:
    """Answers for the server as a whole. `is_open`: whoever asks may see the metrics."""

    def __init__(
        self, metrics: Metrics, extensions: tuple[str, ...], is_ready: Callable[[], bool], *, is_open: bool
    ) -> None:
        self._metrics = metrics
        self._is_ready = is_ready
        self._is_open = is_open
        self._metadata = encode(ServerMetadata("inferd", metrics.version, extensions))
        self._document = b"{}"

    def table(self) -> dict[str, Endpoint]:
        """The paths."""
        return {
            "/v2/health/live": Endpoint("health", "GET", self.live, None),
            "/v2/health/ready": Endpoint("health", "GET", self.ready, None),
            "/v2": Endpoint("server", "GET", self.metadata, ()),
            "/metrics": Endpoint("metrics", "GET", self.metrics, None if self._is_open else ("read",)),
            "/openapi.json": Endpoint("openapi", "GET", self.openapi, ()),
        }

    def tell(self, table: Mapping[str, Endpoint]) -> None:
        """Take the whole table, of all rooms, into the document."""
        self._document = document(table, self._metrics.version)

    async def live(self, call: Call, target: Target) -> Answer:
        """Whoever can answer lives."""
        return json_answer(encode(LiveBody(True)))

    async def ready(self, call: Call, target: Target) -> Answer:
        """503 while a model loads or has failed, and while the daemon stops."""
        is_ready = self._is_ready()
        return json_answer(encode(ReadyBody(is_ready)), 200 if is_ready else 503)

    async def metadata(self, call: Call, target: Target) -> Answer:
        """Name, version, extensions."""
        return json_answer(self._metadata)

    async def openapi(self, call: Call, target: Target) -> Answer:
        """The document."""
        return json_answer(self._document)

    async def metrics(self, call: Call, target: Target) -> Answer:
        """Of the models that the caller sees."""
        principal = call.principal
        kind, body = self._metrics.expose(None if principal is ANONYMOUS else principal.sees)
        return Answer(200, b"Content-Type: %b\r\n" % kind.encode(), (body,))
