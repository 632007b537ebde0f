"""Everything about models beside inference: metadata, readiness, configuration, statistics, index, load and unload.

A caller that is limited to some models sees no others in any list.
"""

from __future__ import annotations

import contextlib
from typing import Any

import msgspec

from inferd.protocol.messages import (
    INDEX_REQUEST,
    LOAD_REQUEST,
    UNLOAD_REQUEST,
    StatisticsBody,
    decode_optional,
    encode,
)
from inferd_agent import views
from inferd_agent.bridge import Bridge
from inferd_agent.rest.answers import Answer, json_answer
from inferd_agent.rest.bodies import Bodies
from inferd_agent.rest.call import Call
from inferd_agent.rest.routes import Endpoint, Target
from inferd_runtime import ModelNotFound, State, Unsupported

_READ = ("read", "infer")


class Models:
    """Answers questions about models, and the orders to load and unload them."""

    def __init__(self, bridge: Bridge, bodies: Bodies) -> None:
        self._bridge = bridge
        self._bodies = bodies

    def table(self) -> dict[str, Endpoint]:
        """The paths."""
        found = {
            "/v2/models/stats": Endpoint("statistics", "GET", self.statistics, ("read",)),
            "/v2/repository/index": Endpoint("index", "POST", self.index, ("read",)),
            "/v2/repository/{r}/index": Endpoint("index", "POST", self.index, ("read",)),
            "/inferd/v1/models": Endpoint("details", "GET", self.details, ("read",)),
            "/inferd/v1/models/{m}": Endpoint("details", "GET", self.details, ("read",)),
        }
        for word, handler in (("load", self.load), ("unload", self.unload)):
            found[f"/v2/repository/models/{{m}}/{word}"] = Endpoint(word, "POST", handler, ("admin",))
            found[f"/v2/repository/{{r}}/models/{{m}}/{word}"] = Endpoint(word, "POST", self.elsewhere, ("admin",))
        for model in ("/v2/models/{m}", "/v2/models/{m}/versions/{n}"):
            found[model] = Endpoint("metadata", "GET", self.metadata, _READ)
            found[f"{model}/ready"] = Endpoint("ready", "GET", self.ready, _READ)
            found[f"{model}/config"] = Endpoint("config", "GET", self.config, _READ)
            found[f"{model}/stats"] = Endpoint("statistics", "GET", self.statistics, ("read",))
        return found

    async def metadata(self, call: Call, target: Target) -> Answer:
        """With a version only that one is listed, without all that are ready."""
        return json_answer(encode(views.metadata(*self._described(target))))

    async def config(self, call: Call, target: Target) -> Answer:
        """ModelConfig as JSON."""
        return json_answer(encode(views.config(*self._described(target))))

    async def ready(self, call: Call, target: Target) -> Answer:
        """200 when it serves, 503 with the reason when it is known."""
        description = self._bridge.runtime.describe(target.model, target.version)
        if description.state is not State.READY:
            raise views.not_ready(description)
        return json_answer(msgspec.json.encode({"name": target.model, "ready": True}))

    async def statistics(self, call: Call, target: Target) -> Answer:
        """Of one model or of all."""
        snapshots = self._bridge.runtime.stats(target.model or None, target.version)
        seen = [views.statistics(each) for each in snapshots if call.principal.sees(each.name)]
        return json_answer(encode(StatisticsBody(tuple(seen))))

    async def index(self, call: Call, target: Target) -> Answer:
        """Every model version known, or only the ready ones."""
        wanted = decode_optional(INDEX_REQUEST, await self._bodies.read(call), "index")
        entries = [
            views.index_entry(each)
            for each in self._bridge.runtime.models()
            if call.principal.sees(each.name) and (each.state is State.READY or not wanted.ready)
        ]
        return json_answer(encode(entries))

    async def load(self, call: Call, target: Target) -> Answer:
        """Answers once the model serves; loading a loaded one reloads it."""
        wanted = decode_optional(LOAD_REQUEST, await self._bodies.read(call), "load")
        if wanted.parameters:
            raise Unsupported(f"load takes no parameters here, got {', '.join(sorted(wanted.parameters))[:200]}")
        await self._bridge.load(target.model)
        return json_answer(b"{}")

    async def unload(self, call: Call, target: Target) -> Answer:
        """Unloading what is not there is no error, as in Triton."""
        decode_optional(UNLOAD_REQUEST, await self._bodies.read(call), "unload")
        with contextlib.suppress(ModelNotFound):
            await self._bridge.unload(target.model)
        return json_answer(b"{}")

    async def elsewhere(self, call: Call, target: Target) -> Answer:
        """Load and unload in a named repository."""
        raise Unsupported("repositories have no names here: POST /v2/repository/models/{model}/load or /unload")

    async def details(self, call: Call, target: Target) -> Answer:
        """Ours, beyond the protocol: everything known of one model or of all."""
        if target.model:
            self._bridge.runtime.describe(target.model)
        found: list[dict[str, Any]] = [
            views.details(each)
            for each in self._bridge.runtime.models()
            if each.name == target.model or (not target.model and call.principal.sees(each.name))
        ]
        return json_answer(msgspec.json.encode(found))

    def _described(self, target: Target) -> tuple[Any, tuple[int, ...]]:
        runtime = self._bridge.runtime
        description = runtime.describe(target.model, target.version)
        if target.version is not None:
            return description, (target.version,)
        return description, runtime.versions(target.model) or (description.version,)
