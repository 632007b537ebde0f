"""What the loader thread knows of each version, and the immutable snapshot of it that every other thread reads."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from inferd_runtime.errors import InferdError
from inferd_runtime.repository.digest import Fingerprint
from inferd_runtime.repository.layout import ModelFiles, Refusal, VersionFiles
from inferd_runtime.repository.loading import Loaded, Served
from inferd_runtime.repository.settings import ModelSettings
from inferd_runtime.repository.states import Lifecycle
from inferd_runtime.spec import ModelDescription, State


@dataclass(slots=True)
class Entry:
    """One version. `loaded` is what serves; `tried` the content that was taken or refused last."""

    name: str
    version: int
    life: Lifecycle = field(default_factory=Lifecycle)
    files: VersionFiles | None = None
    loaded: Loaded | None = None
    tried: Fingerprint | None = None
    error: InferdError | None = None
    is_gone: bool = False

    def rest(self, state: State, reason: str) -> None:
        """Tell why nothing is served of it: UNLOADED or FAILED. One that serves stays READY with the reason beside."""
        if self.loaded is not None or self.life.state in (state, State.DRAINING):
            self.life.reason = reason
        else:
            self.life.move(state, reason)

    def describe(self) -> ModelDescription:
        """The version as the outside may see it."""
        files, loaded = self.files, self.loaded
        if loaded is not None:
            files = loaded.files
        if files is None:
            return ModelDescription(self.name, self.version, self.life.state, self.life.reason)
        plan = loaded.served.plan if loaded else None
        variant = plan.variant if plan and plan.variant in files.variants else min(files.variants)
        return ModelDescription(
            name=self.name,
            version=self.version,
            state=self.life.state,
            reason=self.life.reason,
            format=files.format_of(variant),
            file_bytes=self.tried.bytes_of(files.files) if self.tried else 0,
            digest=loaded.digest if loaded else "",
            variants=tuple(sorted(files.variants)),
            spec=loaded.served.spec if loaded else None,
            plan=plan,
            quantisation=loaded.quantisation if loaded else None,
            labels=dict(loaded.labels) if loaded else {},
            label_files=dict(loaded.settings.labels) if loaded else {},
            embedding=loaded.embedding if loaded else None,
        )


@dataclass(slots=True)
class Model:
    """One model. `is_parked`: nothing of it is loaded until somebody asks.

    `forced` versions are loaded even if the same content serves or failed; `failures` is what came of that.
    `is_waiting`: not all that is wanted is decided yet, so look again soon.
    """

    name: str
    is_parked: bool = False
    files: ModelFiles | None = None
    entries: dict[int, Entry] = field(default_factory=dict)
    settings: ModelSettings | None = None
    settings_error: InferdError | None = None
    settings_seen: Fingerprint | None = None
    is_forced: bool = False
    forced: set[int] = field(default_factory=set)
    failures: list[InferdError] = field(default_factory=list)
    is_waiting: bool = True


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All models at one moment. `ready[name]` maps each served version, and None for the highest, to what serves it."""

    ready: Mapping[str, Mapping[int | None, Served]] = field(default_factory=dict)
    known: Mapping[str, tuple[ModelDescription, ...]] = field(default_factory=dict)
    refused: tuple[ModelDescription, ...] = ()


def snapshot_of(models: Iterable[Model], refusals: Sequence[Refusal]) -> Snapshot:
    """The snapshot of these models. Folders that are none appear as version 0."""
    ready: dict[str, Mapping[int | None, Served]] = {}
    known: dict[str, tuple[ModelDescription, ...]] = {}
    for model in models:
        entries = [model.entries[version] for version in sorted(model.entries)]
        if entries:
            known[model.name] = tuple(entry.describe() for entry in entries)
        served: dict[int | None, Served] = {e.version: e.loaded.served for e in entries if e.loaded is not None}
        if served:
            served[None] = served[max(version for version in served if version is not None)]
            ready[model.name] = served
    reasons: dict[tuple[str, State], list[str]] = {}
    for refusal in refusals:
        state = State.UNLOADED if refusal.is_shadowed else State.FAILED
        reasons.setdefault((refusal.name, state), []).append(refusal.reason)
    refused = tuple(ModelDescription(name, 0, state, "; ".join(why)) for (name, state), why in reasons.items())
    return Snapshot(ready, known, refused)
