"""`/v2/trace/setting` and `/v2/logging`, as Triton's clients ask for them."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from inferd.protocol.messages import decode_optional
from inferd_agent.bridge import Bridge
from inferd_agent.rest.answers import Answer, json_answer
from inferd_agent.rest.bodies import Bodies
from inferd_agent.rest.call import Call
from inferd_agent.rest.routes import Endpoint, Target
from inferd_agent.settings import LogSetting, log_settings, trace_settings

TraceRequest = dict[str, str | list[str] | None]
LogRequest = dict[str, LogSetting]
_TRACE_REQUEST = msgspec.json.Decoder(TraceRequest)
_LOG_REQUEST = msgspec.json.Decoder(LogRequest)
_LISTS = ("trace_level",)  # the others have one value each
_SCOPES = ("read",)


class Settings:
    """Answers what is set; what would change it is refused."""

    def __init__(self, bridge: Bridge, bodies: Bodies) -> None:
        self._bridge = bridge
        self._bodies = bodies

    def table(self) -> dict[str, Endpoint]:
        """The paths."""
        found = {}
        for path in ("/v2/trace/setting", "/v2/models/{m}/trace/setting"):
            setting = Endpoint("trace", "POST", self.set_trace, _SCOPES)
            found[path] = Endpoint("trace", "GET", self.trace, _SCOPES, setting)
        setting = Endpoint("logging", "POST", self.set_log, _SCOPES)
        return found | {"/v2/logging": Endpoint("logging", "GET", self.log, _SCOPES, setting)}

    async def trace(self, call: Call, target: Target) -> Answer:
        """Of the server, or of one model, which is the same."""
        return self._traced(target, {})

    async def set_trace(self, call: Call, target: Target) -> Answer:
        """Takes what is so already; null asks for the default."""
        wanted = decode_optional(_TRACE_REQUEST, await self._bodies.read(call), "trace settings")
        return self._traced(target, {key: _values(given) for key, given in wanted.items()})

    def _traced(self, target: Target, wanted: dict[str, Sequence[str]]) -> Answer:
        if target.model:
            self._bridge.runtime.describe(target.model)
        found = trace_settings(wanted)
        told = {key: values if key in _LISTS else values[0] for key, values in found.items()}
        return json_answer(msgspec.json.encode(told))

    async def log(self, call: Call, target: Target) -> Answer:
        """What is logged."""
        return json_answer(msgspec.json.encode(log_settings({})))

    async def set_log(self, call: Call, target: Target) -> Answer:
        """Takes what is so already."""
        wanted = decode_optional(_LOG_REQUEST, await self._bodies.read(call), "log settings")
        return json_answer(msgspec.json.encode(log_settings(wanted)))


def _values(given: str | list[str] | None) -> Sequence[str]:
    if given is None:
        return ()
    return (given,) if isinstance(given, str) else given
