"""Everything beside inference: health, metadata, configuration, statistics, the repository, settings.

A caller that is limited to some models sees no others in any list. What is told is what REST tells: the same structs,
read into the protocol's messages by their field names.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from google.protobuf.json_format import ParseDict

from inferd_agent import views
from inferd_agent.bridge import Bridge
from inferd_agent.grpc import messages
from inferd_agent.identity import Principal, require
from inferd_agent.inference import read_version
from inferd_agent.settings import LogSetting, log_settings, trace_settings
from inferd_runtime import ModelDescription, ModelNotFound, State, Unsupported

_READ = ("read", "infer")
_PARAMETERS = {bool: "bool_param", int: "uint32_param", str: "string_param"}


class Models:
    """Answers one call each: the caller and the request in, the response out. Errors are the daemon's own."""

    def __init__(
        self, bridge: Bridge, version: str, extensions: Sequence[str], is_draining: Callable[[], bool]
    ) -> None:
        self._bridge = bridge
        self._version = version
        self._extensions = extensions
        self._is_draining = is_draining

    async def live(self, caller: Principal, asked: Any) -> Any:
        """It answers, so it lives."""
        return messages.ServerLiveResponse(live=True)

    async def ready(self, caller: Principal, asked: Any) -> Any:
        """Whether it takes requests and all models that should serve do."""
        return messages.ServerReadyResponse(ready=self._is_ready())

    async def health(self, caller: Principal, asked: Any) -> Any:
        """gRPC's own health check; always of the server as a whole, since the question of a stranger is not read."""
        return messages.HealthCheckResponse(status="SERVING" if self._is_ready() else "NOT_SERVING")

    async def server(self, caller: Principal, asked: Any) -> Any:
        """Name, version, extensions."""
        return messages.ServerMetadataResponse(name="inferd", version=self._version, extensions=self._extensions)

    async def model_ready(self, caller: Principal, asked: Any) -> Any:
        """Whether it serves; ModelNotFound where there is no such model."""
        require(caller, _READ, asked.name)
        state = self._bridge.runtime.describe(asked.name, _version(asked.version)).state
        return messages.ModelReadyResponse(ready=state is State.READY)

    async def metadata(self, caller: Principal, asked: Any) -> Any:
        """With a version only that one is listed, without all that are ready."""
        return _fill(messages.ModelMetadataResponse, views.metadata(*self._described(caller, asked)))

    async def config(self, caller: Principal, asked: Any) -> Any:
        """The configuration as Triton would tell it."""
        return messages.ModelConfigResponse(
            config=_fill(messages.ModelConfig, views.config(*self._described(caller, asked)))
        )

    async def statistics(self, caller: Principal, asked: Any) -> Any:
        """Of one model or of all."""
        if asked.name:
            require(caller, "read", asked.name)
        snapshots = self._bridge.runtime.stats(asked.name or None, _version(asked.version))
        return messages.ModelStatisticsResponse(
            model_stats=[
                _fill(messages.ModelStatistics, views.statistics(each)) for each in snapshots if caller.sees(each.name)
            ]
        )

    async def index(self, caller: Principal, asked: Any) -> Any:
        """Every model version known, or only the ready ones."""
        found = [
            _fill(messages.RepositoryIndexResponse.ModelIndex, views.index_entry(each))
            for each in self._bridge.runtime.models()
            if caller.sees(each.name) and (each.state is State.READY or not asked.ready)
        ]
        return messages.RepositoryIndexResponse(models=found)

    async def load(self, caller: Principal, asked: Any) -> Any:
        """Answers once the model serves; loading a loaded one reloads it."""
        require(caller, "admin", asked.model_name)
        _refuse_repository(asked)
        if asked.parameters:
            raise Unsupported(f"load takes no parameters here, got {', '.join(sorted(asked.parameters))[:200]}")
        await self._bridge.load(asked.model_name)
        return messages.RepositoryModelLoadResponse()

    async def unload(self, caller: Principal, asked: Any) -> Any:
        """Unloading what is not there is no error, as in Triton."""
        require(caller, "admin", asked.model_name)
        _refuse_repository(asked)
        with contextlib.suppress(ModelNotFound):
            await self._bridge.unload(asked.model_name)
        return messages.RepositoryModelUnloadResponse()

    async def trace(self, caller: Principal, asked: Any) -> Any:
        """Tracing is always off, of every model; saying so again is no error."""
        if asked.model_name:
            require(caller, ("read",), asked.model_name)
            self._bridge.runtime.describe(asked.model_name)
        answer = messages.TraceSettingResponse()
        for key, values in trace_settings({key: each.value for key, each in asked.settings.items()}).items():
            answer.settings[key].value.extend(values)
        return answer

    async def log(self, caller: Principal, asked: Any) -> Any:
        """What is logged now; it is set in the configuration."""
        answer = messages.LogSettingsResponse()
        for key, value in log_settings({key: _chosen(each) for key, each in asked.settings.items()}).items():
            setattr(answer.settings[key], _PARAMETERS[type(value)], value)
        return answer

    def _is_ready(self) -> bool:
        return not self._is_draining() and self._bridge.runtime.is_ready()

    def _described(self, caller: Principal, asked: Any) -> tuple[ModelDescription, tuple[int, ...]]:
        require(caller, _READ, asked.name)
        runtime, version = self._bridge.runtime, _version(asked.version)
        description = runtime.describe(asked.name, version)
        if version is not None:
            return description, (version,)
        return description, runtime.versions(asked.name) or (description.version,)


def _version(text: str) -> int | None:
    return read_version(text) if text else None


def _chosen(setting: Any) -> LogSetting:
    """The value in whichever field it came; none is an empty text."""
    field = setting.WhichOneof("parameter_choice")
    value: LogSetting = getattr(setting, field) if field else ""
    return value


def _fill(kind: Any, view: msgspec.Struct) -> Any:
    """A message with what a view says; what the message has no field for is left out."""
    return ParseDict(msgspec.to_builtins(view), kind(), ignore_unknown_fields=True)


def _refuse_repository(asked: Any) -> None:
    if asked.repository_name:
        raise Unsupported("repositories have no names here: leave repository_name empty")
