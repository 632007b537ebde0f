"""Keeps what is served as the files, the settings and the callers' wishes say: the loader thread's whole mind.

`scan` looks at the disk, `tend` loads and retires until all is as it should be. A version is replaced only by one that
is open and warm; where nothing that is wanted can be loaded, what serves goes on. Never called by two threads at once.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from inferd_runtime.errors import InferdError, InvalidModel, LoadFailed, ModelNotFound, ModelNotReady
from inferd_runtime.repository.digest import Settling, fingerprint
from inferd_runtime.repository.entries import Entry, Model, Snapshot, snapshot_of
from inferd_runtime.repository.layout import ModelFiles, Refusal, Unfit, VersionFiles, scan
from inferd_runtime.repository.loading import Loaded, Loader
from inferd_runtime.repository.settings import ModelSettings, read_settings
from inferd_runtime.repository.triton import read_triton
from inferd_runtime.spec import State

log = logging.getLogger("inferd.repository")

# Drains and closes what served; then tells, from any thread, that the entry (if any) is drained.
Retire = Callable[[Entry | None, Loaded], None]
_CHANGING = "its files are still changing; it is taken once they lie still"


class Keeper:
    """All models and what becomes of them. `publish` takes every new snapshot."""

    def __init__(
        self,
        roots: Sequence[Path],
        loader: Loader,
        settling: Settling,
        *,
        retire: Retire,
        publish: Callable[[Snapshot], None],
        is_parked: bool,
    ) -> None:
        self._roots = tuple(roots)
        self._loader = loader
        self._settling = settling
        self._retire = retire
        self._publish = publish
        self._is_parked = is_parked
        self._models: dict[str, Model] = {}
        self._refusals: tuple[Refusal, ...] = ()
        self.loading: Entry | None = None

    def scan(self) -> None:
        """See what is on disk now. A root that cannot be read just now leaves its models as they were."""
        layout = scan(self._roots)
        self._refusals = layout.refusals
        for name, files in layout.models.items():
            model = self._models.get(name)
            if model is None:
                model = self._models[name] = Model(name, self._is_parked)
            model.files = files
        for name, model in self._models.items():
            if name not in layout.models and not layout.unreadable:
                model.files = None

    def tend(self, is_interrupted: Callable[[], bool] = lambda: False) -> bool:
        """Bring every model to what is wanted; True when something has to be looked at again soon."""
        for name in sorted(self._models):
            try:
                self._tend(self._models[name])
            except Exception as error:  # what nobody foresaw in one model must not keep the others from serving
                self._surprised(self._models[name], error)
            if is_interrupted():
                self.publish()
                return True
        self._models = {name: model for name, model in self._models.items() if model.files or model.entries}
        keys = {(model.name, version) for model in self._models.values() for version in (0, *model.entries)}
        self._settling.keep(keys)
        self.publish()
        return any(model.is_waiting for model in self._models.values())

    def _surprised(self, model: Model, error: Exception) -> None:
        """The model keeps what it serves of it; the rest is FAILED until something changes."""
        log.exception("model %s cannot be looked after", model.name)
        for entry in model.entries.values():
            entry.error = LoadFailed(f"{type(error).__name__}: {error}")
            entry.rest(State.FAILED, f"an error nobody foresaw ({entry.error}); the daemon's log has more")

    def publish(self) -> None:
        """Let everybody see how things stand."""
        self._publish(snapshot_of(self._models.values(), self._refusals))

    def ask_load(self, name: str) -> None:
        """Load, or load again, a model. Raises ModelNotFound, and InvalidModel for a folder that is none."""
        model = self._known(name)
        model.is_parked = False
        model.is_waiting = model.is_forced = True
        model.failures.clear()
        model.forced = set(model.files.versions) if model.files else set()

    def ask_unload(self, name: str) -> None:
        """Unload a model until somebody asks to load it. Raises ModelNotFound."""
        model = self._known(name)
        model.is_parked = model.is_waiting = True

    def ask_refresh(self, name: str, version: int) -> None:
        """Load a version that serves once more. Raises ModelNotFound, ModelNotReady."""
        model = self._known(name)
        entry = model.entries.get(version)
        if entry is None or entry.loaded is None or model.is_parked:
            raise ModelNotReady(f"model {name!r} version {version} does not serve")
        if not model.is_forced:
            model.failures.clear()
        model.forced.add(version)
        model.is_waiting = True

    def is_done(self, name: str) -> bool:
        """Whether what was asked for is over. Raises the error that a forced load ended with."""
        model = self._models.get(name)
        if model is None:
            raise ModelNotFound(f"model {name!r} is not there any more")
        if model.is_waiting:
            return False
        if model.is_parked:
            return all(entry.life.state is not State.DRAINING for entry in model.entries.values())
        model.is_forced = False
        model.forced.clear()
        if model.failures:
            raise model.failures[0]
        if not any(entry.loaded for entry in model.entries.values()):
            reasons = "; ".join(f"version {e.version}: {e.life.reason}" for e in model.entries.values())
            raise LoadFailed(f"model {name!r} has no version that can be served: {reasons}")
        return True

    def drained(self, entry: Entry) -> None:
        """What served of this entry is drained and closed."""
        entry.life.move(State.UNLOADED, entry.life.reason)
        model = self._models.get(entry.name)
        if entry.is_gone and model is not None:
            model.entries.pop(entry.version, None)

    def loaded(self) -> tuple[Loaded, ...]:
        """Everything that serves."""
        return tuple(e.loaded for m in self._models.values() for e in m.entries.values() if e.loaded is not None)

    def _known(self, name: str) -> Model:
        model = self._models.get(name)
        if model is not None:
            return model
        for refusal in self._refusals:
            if refusal.name == name and not refusal.is_shadowed:
                raise InvalidModel(refusal.reason)
        raise ModelNotFound(f"there is no model {name!r} in the repository")

    def _tend(self, model: Model) -> None:
        versions: Mapping[int, VersionFiles] = model.files.versions if model.files else {}
        unfit: Mapping[int, Unfit] = model.files.unfit if model.files else {}
        model.is_waiting = self._drop_gone(model, {*versions, *unfit})
        if model.files is None:
            return
        for version in {*versions, *unfit} - set(model.entries):
            model.entries[version] = Entry(model.name, version)
        for version, files in versions.items():
            model.entries[version].files = files
        if model.is_parked:
            reason = "loads on request only" if self._is_parked else "unloaded on request; load it to serve it again"
            self._rest(model, set(model.entries), reason)
        elif (settings := self._settings(model, model.files)) is not None:
            self._serve(model, model.files, settings)

    def _drop_gone(self, model: Model, there: set[int]) -> bool:
        """Retire versions whose files are gone for good; True while one may only be under replacement."""
        is_waiting = False
        for version in set(model.entries) - there:
            entry = model.entries[version]
            if entry.life.state is State.DRAINING:
                entry.is_gone = is_waiting = True
            elif entry.loaded is None:
                del model.entries[version]
            elif self._settling.is_settled((model.name, version), "gone"):
                entry.is_gone = is_waiting = True
                self._retire_entry(entry, "its files are gone")
            else:
                is_waiting = True
        return is_waiting

    def _settings(self, model: Model, files: ModelFiles) -> ModelSettings | None:
        """The model's settings; None when they are wrong (told on every version) or not settled yet."""
        seen = fingerprint(files.configuration)
        if seen != model.settings_seen:
            if not self._settling.is_settled((model.name, 0), seen):
                model.is_waiting = True
                return None
            model.settings_seen, model.settings_error = seen, None
            try:
                given, warning = read_triton(files.triton, self._roots, model.name)
                model.settings = read_settings(files.settings, self._roots, given)
            except InvalidModel as error:
                model.settings_error = error
            else:
                if warning:
                    log.warning("%s: %s", model.name, warning)
        if model.settings_error is None:
            return model.settings
        for entry in model.entries.values():
            entry.tried, entry.error = None, model.settings_error
            entry.rest(State.FAILED, str(model.settings_error))
        if model.is_forced:
            model.failures = [model.settings_error]
        return None

    def _serve(self, model: Model, files: ModelFiles, settings: ModelSettings) -> None:
        """Load what the version policy wants, then retire the rest."""
        kept: set[int] = set()
        undecided: set[int] = set()
        for version in self._wanted(model, files, settings):
            entry = model.entries[version]
            if version in files.versions:
                self._ensure(model, entry, files, files.versions[version], settings)
            else:
                self._mark_unfit(model, entry, files.unfit.get(version))
            (kept if entry.loaded else undecided).add(version)
            if kept and len(kept) == settings.newest:
                break
        if not kept:
            return
        served = " and ".join(map(str, sorted(kept)))
        policy = f"version {served} is served" if settings.newest else "not among the versions asked for"
        self._rest(model, set(model.entries) - kept - undecided, policy)

    def _wanted(self, model: Model, files: ModelFiles, settings: ModelSettings) -> list[int]:
        """Version numbers in the order to try them; "latest" stops when enough serve."""
        if isinstance(settings.versions, str):
            return sorted({*files.versions, *files.unfit}, reverse=True)
        for version in settings.versions:
            model.entries.setdefault(version, Entry(model.name, version))
        return sorted(set(settings.versions), reverse=True)

    def _mark_unfit(self, model: Model, entry: Entry, unfit: Unfit | None) -> None:
        if entry.life.state is State.DRAINING:
            model.is_waiting = True
            return
        unfit = unfit or Unfit("the settings ask for this version, but it is not there")
        entry.tried = None
        if not unfit.is_unfinished and model.is_forced:
            model.failures.append(InvalidModel(unfit.reason))
        entry.rest(State.UNLOADED if unfit.is_unfinished else State.FAILED, unfit.reason)

    def _ensure(
        self, model: Model, entry: Entry, folder: ModelFiles, files: VersionFiles, settings: ModelSettings
    ) -> None:
        """See to it that the content on disk was tried, once."""
        if entry.life.state is State.DRAINING:
            model.is_waiting = True
            return
        watched = (*files.files, *folder.configuration, *settings.beside(folder.folder))
        content = fingerprint(watched)
        if content == entry.tried and entry.version not in model.forced:
            return
        if not self._settling.is_settled((model.name, entry.version), content):
            model.is_waiting = True
            if entry.loaded is None:
                entry.rest(State.UNLOADED, _CHANGING)
            return
        is_forced = entry.version in model.forced
        fresh, error = self._load(entry, folder, files, settings, is_forced=is_forced)
        if fingerprint(watched) != content:
            self._put_off(model, entry, fresh)
            return
        model.forced.discard(entry.version)
        entry.tried, entry.error = content, error
        if fresh is not None:
            self._take(entry, fresh)
        elif error is not None:
            self._note_failure(model, entry, error)

    def _load(
        self, entry: Entry, folder: ModelFiles, files: VersionFiles, settings: ModelSettings, *, is_forced: bool
    ) -> tuple[Loaded | None, InferdError | None]:
        if entry.loaded is None:
            entry.life.move(State.LOADING)
            self.publish()
        self.loading = entry
        try:
            return self._loader.load(folder, files, settings, serving=entry.loaded, is_forced=is_forced), None
        except (InvalidModel, LoadFailed) as error:
            return None, error
        except InferdError as error:
            return None, LoadFailed(str(error))
        except Exception as error:
            log.exception("loading %s version %d failed unexpectedly", entry.name, entry.version)
            return None, LoadFailed(f"loading failed unexpectedly: {type(error).__name__}: {error}")
        finally:
            self.loading = None

    def _put_off(self, model: Model, entry: Entry, fresh: Loaded | None) -> None:
        """The files changed under the loading: nothing that came of it counts."""
        model.is_waiting = True
        entry.tried = None
        if fresh is not None and fresh is not entry.loaded:
            fresh.served.close()
        if entry.loaded is None:
            entry.rest(State.UNLOADED, _CHANGING)

    def _take(self, entry: Entry, fresh: Loaded) -> None:
        """Swap: from the next snapshot on, `fresh` has the traffic."""
        old, entry.loaded = entry.loaded, fresh
        if old is None:
            entry.life.move(State.READY)
            log.info("%s version %d is ready: %s", entry.name, entry.version, fresh.served.plan.reason)
        entry.life.reason = ""
        self.publish()
        if old is not None and old is not fresh:
            same = old.digest == fresh.digest
            what = f"a new plan: {fresh.served.plan.reason}" if same else "new content"
            log.info("%s version %d has %s", entry.name, entry.version, what)
            self._retire(None, old)

    def _note_failure(self, model: Model, entry: Entry, error: InferdError) -> None:
        log.warning("%s version %d is not loaded: %s", entry.name, entry.version, error)
        if model.is_forced:
            model.failures.append(error)
        if entry.loaded is None:
            entry.life.move(State.FAILED, str(error))
        else:
            entry.life.reason = f"its new content was not taken, the old one serves on: {error}"

    def _rest(self, model: Model, versions: set[int], reason: str) -> None:
        for version in versions:
            entry = model.entries[version]
            if entry.loaded is not None:
                model.is_waiting = True
                self._retire_entry(entry, reason)
            elif entry.life.state is State.DRAINING:
                model.is_waiting = True
            else:
                entry.tried = None
                entry.rest(State.UNLOADED, reason)

    def _retire_entry(self, entry: Entry, reason: str) -> None:
        old, entry.loaded, entry.tried = entry.loaded, None, None
        if old is None:
            return
        entry.life.move(State.DRAINING, reason)
        self.publish()
        self._retire(entry, old)
