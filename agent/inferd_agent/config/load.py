"""Builds the tree from file < environment < flag, and says of every value where it came from.

Each value is checked where it enters, so that an error can name its file and line, its variable or its flag.
"""

from __future__ import annotations

import json
import math
import os
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal

import msgspec

from inferd_agent.config.listeners import Listener, is_lan_listener, lan_listener, parse_listener
from inferd_agent.config.paths import Paths
from inferd_agent.config.schema import Config, Key, PeerRule, keys, sections
from inferd_agent.errors import ConfigError

CLIENT_ENV = frozenset({"INFERD_URL", "INFERD_TOKEN", "INFERD_CA"})
_RESERVED_SOCKET_NAMES = (".ca.pem", ".lock")


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a value came from; `place` is a file with its line, a variable or a flag."""

    kind: Literal["default", "file", "environment", "flag"]
    place: str = ""

    def __str__(self) -> str:
        return self.place or self.kind


@dataclass(frozen=True, slots=True)
class Loaded:
    """The configuration with its story. `origins` has every dotted key; `file` is None where there was none."""

    config: Config
    origins: Mapping[str, Origin]
    file: Path | None
    listeners: tuple[Listener, ...]
    paths: Paths


@dataclass(frozen=True, slots=True)
class Changes:
    """The dotted keys in which two trees differ: those a running daemon takes, and those that need a restart."""

    live: tuple[str, ...]
    restart: tuple[str, ...]


def load(
    *,
    file: Path | None = None,
    env: Mapping[str, str] | None = None,
    flags: Mapping[str, Any] | None = None,
    uid: int | None = None,
    home: Path | None = None,
) -> Loaded:
    """Read everything and check it. `flags` maps dotted keys to values, None where not given. Raises ConfigError."""
    env = os.environ if env is None else env
    paths = Paths.of(env, os.geteuid() if uid is None else uid, home)
    known = {key.dotted: key for key in keys()}
    values: dict[str, Any] = {}
    origins = dict.fromkeys(known, Origin("default"))
    path = file or paths.config_file
    text = _read(path, is_required=file is not None)
    for entries in (_from_file(path, text or "", known), _from_env(env, known), _from_flags(flags or {}, known)):
        for key, value, origin, is_text in entries:
            values[key.dotted] = _checked(key, value, origin, is_text)
            origins[key.dotted] = origin
    config = _build(values | _defaults(values, paths))
    listeners = _listeners(config, origins["server.listen"])
    return Loaded(config, origins, path if text is not None else None, listeners, paths)


def diff(old: Config, new: Config) -> Changes:
    """What changed, by whether it may change while running."""
    changed = [
        key for key in keys()
        if getattr(getattr(old, key.section), key.name) != getattr(getattr(new, key.section), key.name)
    ]  # fmt: skip
    return Changes(
        live=tuple(key.dotted for key in changed if key.live),
        restart=tuple(key.dotted for key in changed if not key.live),
    )


Entry = tuple[Key, Any, Origin, bool]  # the last: the value is text to be parsed


def _read(path: Path, *, is_required: bool) -> str | None:
    try:
        return path.read_text("utf-8")
    except FileNotFoundError:
        if is_required:
            raise ConfigError(f"{path}: there is no such file") from None
        return None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start})") from error


def _from_file(path: Path, text: str, known: Mapping[str, Key]) -> Iterable[Entry]:
    try:
        tree = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: not TOML: {error}") from error
    for section, table in tree.items():
        if section not in sections():
            raise ConfigError(f"{_place(path, text, section)}: unknown section [{section}]{_near(section, sections())}")
        if not isinstance(table, dict):
            raise ConfigError(f"{_place(path, text, section)}: [{section}] is a section, not a value")
        for name, value in table.items():
            place = _place(path, text, section, name)
            key = known.get(f"{section}.{name}")
            if key is None:
                raise ConfigError(f"{place}: unknown key {section}.{name}{_near_key(section, name, known)}")
            yield key, value, Origin("file", place), False


def _from_env(env: Mapping[str, str], known: Mapping[str, Key]) -> Iterable[Entry]:
    by_env = {key.env: key for key in known.values()}
    for name in sorted(env):
        if not name.startswith("INFERD_") or name in CLIENT_ENV:
            continue
        if name not in by_env:
            raise ConfigError(f"environment: unknown variable {name}{_near(name, [*by_env, *CLIENT_ENV])}")
        yield by_env[name], env[name], Origin("environment", name), True


def _from_flags(flags: Mapping[str, Any], known: Mapping[str, Key]) -> Iterable[Entry]:
    for dotted, value in flags.items():
        if value is not None and value != ():
            key = known[dotted]
            yield key, value, Origin("flag", key.flag or f"flag for {dotted}"), isinstance(value, str)


def _checked(key: Key, value: Any, origin: Origin, is_text: bool) -> Any:
    where = f"{origin.place}: {key.dotted}"
    if is_text and key.is_list:
        value = _split(where, value)
    if key.dotted == "auth.peers" and isinstance(value, list):
        _check_rules(where, value)
    try:
        checked = msgspec.convert(value, key.type, strict=not is_text)
    except msgspec.ValidationError as error:
        raise ConfigError(
            f"{where}: {_expected(key, str(error))}, got {_short(value)}{_near_choice(key, value)}"
        ) from None
    if isinstance(checked, float) and not math.isfinite(checked):
        raise ConfigError(f"{where}: expected a finite number, got {checked}")
    if isinstance(checked, str) and "\0" in checked:
        raise ConfigError(f"{where}: holds a NUL character")
    return checked


def _split(where: str, text: str) -> list[Any]:
    """A list from text: a JSON array, or values separated by commas."""
    if not text.lstrip().startswith("["):
        return [part.strip() for part in text.split(",") if part.strip()]
    try:
        found = json.loads(text)
    except ValueError as error:
        raise ConfigError(f"{where}: not a JSON array: {error}") from None
    assert isinstance(found, list)
    return found


def _check_rules(where: str, rules: list[Any]) -> None:
    names = PeerRule.__struct_fields__
    for place, rule in enumerate(rules, 1):
        for name in rule if isinstance(rule, dict) else ():
            if name not in names:
                raise ConfigError(f"{where}: rule {place} has an unknown key {name!r}{_near(name, names)}")


def _defaults(given: Mapping[str, Any], paths: Paths) -> dict[str, Any]:
    """The values that depend on who runs the daemon, and the paths made absolute."""
    state = Path(given.get("state.dir") or paths.state_dir).expanduser().absolute()
    cache = given.get("state.cache_dir") or (state / "cache" if given.get("state.dir") else paths.cache_dir)
    has_own_pair = "tls.cert" in given or "tls.key" in given
    return {
        "state.dir": str(state),
        "state.cache_dir": str(Path(cache).expanduser().absolute()),
        "server.listen": given.get("server.listen") or (f"unix:{paths.socket(state)}",),
        "server.socket_mode": given.get("server.socket_mode") or ("0660" if paths.is_system else "0600"),
        "models.path": tuple(
            str(Path(path).expanduser().absolute()) for path in given.get("models.path") or (state / "models",)
        ),
        "tls.cert": given.get("tls.cert", "") if has_own_pair else paths.credential("tls.crt"),
        "tls.key": given.get("tls.key", "") if has_own_pair else paths.credential("tls.key"),
    }


def _build(values: Mapping[str, Any]) -> Config:
    tree: dict[str, dict[str, Any]] = {section: {} for section in sections()}
    for dotted, value in values.items():
        section, _, name = dotted.partition(".")
        tree[section][name] = value
    built: dict[str, Any] = {section: struct(**tree[section]) for section, struct in sections().items()}
    config = Config(**built)
    if bool(config.tls.cert) != bool(config.tls.key):
        raise ConfigError("tls.cert and tls.key: give both or none")
    if config.server.max_inflight_bytes < config.server.max_body_bytes:
        raise ConfigError(
            f"server.max_inflight_bytes ({config.server.max_inflight_bytes}) is below server.max_body_bytes"
            f" ({config.server.max_body_bytes}): the largest body could never be taken"
        )
    return config


def _listeners(config: Config, origin: Origin) -> tuple[Listener, ...]:
    found: dict[tuple[str, str, int], Listener] = {}
    for url in config.server.listen:
        try:
            listener = parse_listener(url)
            key = (listener.path, listener.host, listener.port)
            if key in found and (listener.kind == "unix" or listener.port):
                raise ConfigError(f"listener {url!r} is given twice")
            if listener.path.endswith(_RESERVED_SOCKET_NAMES):
                raise ConfigError(
                    f"listener {url!r}: names ending in .ca.pem and .lock belong to the files beside sockets"
                )
        except ConfigError as error:
            raise ConfigError(f"{origin}: server.listen: {error}") from None
        found[key] = listener
    if sum(listener.memory for listener in found.values()) > 1:
        raise ConfigError(f"{origin}: server.listen: one memory+unix listener is enough, there are several")
    listeners = tuple(found.values())
    if config.lan.enabled and not any(map(is_lan_listener, listeners)):
        listeners += (lan_listener(config.lan.port),)
    return listeners


def _place(path: Path, text: str, section: str, name: str = "") -> str:
    """The file, with the line of a section or key where it is easy to find."""
    head = re.compile(rf"\s*\[\[?\s*{re.escape(section)}\s*[.\]]")
    key = re.compile(rf"""\s*["']?{re.escape(name)}["']?\s*[=.]""")
    dotted = re.compile(
        rf"\s*(\[\[?\s*)?{re.escape(section)}\s*\.\s*{re.escape(name)}\b" if name else rf"\s*{re.escape(section)}\b"
    )
    is_inside = False
    for number, line in enumerate(text.splitlines(), 1):
        if dotted.match(line) or (is_inside and name and key.match(line)):
            return f"{path}:{number}"
        if line.lstrip().startswith("["):
            is_inside = head.match(line) is not None
            if is_inside and not name:
                return f"{path}:{number}"
    return str(path)


def _near(word: str, words: Iterable[str]) -> str:
    found = get_close_matches(word, list(words), n=1)
    return f", did you mean {found[0]}?" if found else ""


def _near_key(section: str, name: str, known: Mapping[str, Key]) -> str:
    """The nearest key: of this section by spelling, else the same name in another section."""
    own = {key.name for key in known.values() if key.section == section}
    elsewhere: Callable[[], list[str]] = lambda: [key.dotted for key in known.values() if key.name == name]  # noqa: E731
    return _near(name, own) or "".join(f", did you mean {dotted}?" for dotted in elsewhere()[:1])


def _near_choice(key: Key, value: Any) -> str:
    return _near(value, key.choices) if isinstance(value, str) else ""


def _expected(key: Key, message: str) -> str:
    """What the key takes: its choices, or msgspec's message in our words."""
    if key.choices:
        return f"expected one of {', '.join(key.choices)}"
    message = message.replace("`$", "`").replace(" - at ``", "").replace(" - at ", " at ").replace("`", "")
    return message[0].lower() + message[1:]


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
