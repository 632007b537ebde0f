"""Looks at everything once and lets every check say what it thinks; the order is the order of the report.

Where the configuration cannot be read, what depends on it is left out: the one error says so.
"""

from __future__ import annotations

import grp
import os
import pwd
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

from inferd import Client, InferdError
from inferd_agent.config import Loaded
from inferd_agent.doctor.doors import ANSWER_S, Door, Wanted, check_doors, knock
from inferd_agent.doctor.finding import Finding, error, ok
from inferd_agent.doctor.machine import (
    PlanFacts,
    check_cores,
    check_devices,
    check_engines,
    check_instructions,
    read_engines,
    read_quota,
)
from inferd_agent.doctor.multicast import check_multicast, listen_to_ourselves, read_interfaces
from inferd_agent.doctor.places import (
    Place,
    User,
    check_configuration_file,
    check_disks,
    check_models,
    check_owned,
    check_secrets,
    look,
    secrets_in,
)
from inferd_agent.doctor.times import Dated, check_certificates, check_clock, read_certificate, read_clock
from inferd_agent.doctor.unit import Unit, check_unit, read_unit
from inferd_agent.errors import ConfigError
from inferd_runtime import probe

_CA_LEFT = timedelta(days=60)
_LOCAL_LEFT = timedelta(days=25)  # the daemon renews with a third of 90 days left


def examine(loaded: Loaded | ConfigError) -> Iterator[Finding]:
    """Every finding, as it is made."""
    is_system = loaded.paths.is_system if isinstance(loaded, Loaded) else os.geteuid() == 0
    unit = read_unit(is_user=not is_system)
    doors: tuple[Door, ...] = ()
    configured = 0
    if isinstance(loaded, Loaded):
        certificates = _certificate_files(loaded)
        doors = tuple(knock(listener, certificates) for listener in loaded.listeners)
        configured = loaded.config.runtime.cores
        yield from _examine_configured(loaded, unit, doors)
    else:
        yield error("configuration", str(loaded), "correct it; inferd config --docs lists every key")
    yield from check_clock(read_clock())
    machine, engines = probe(), read_engines()
    yield from check_instructions(machine)
    yield from check_cores(machine, read_quota(unit.control_group, unit.quota_cores), _plans(doors), configured)
    yield from check_engines(engines)
    yield from check_devices(machine, engines)
    yield from check_multicast(listen_to_ourselves(read_interfaces()), is_wanted=_is_on_lan(loaded))
    yield from check_unit(unit, is_on_lan=_is_on_lan(loaded))


def _examine_configured(loaded: Loaded, unit: Unit, doors: tuple[Door, ...]) -> Iterator[Finding]:
    config = loaded.config
    user = _user(unit)
    state, cache = Path(config.state.dir), Path(config.state.cache_dir)
    models = [look(Path(path)) for path in config.models.path]
    yield ok("configuration", str(loaded.file or f"no file at {loaded.paths.config_file}; the defaults hold"))
    if loaded.file:
        yield from check_configuration_file(look(loaded.file), user)
    yield from check_owned("state", look(state), user)
    yield from check_owned("cache", look(cache), user)
    yield from check_models(models, user)
    yield from check_disks([look(state), look(cache), *models])
    yield from check_secrets((*secrets_in({state, loaded.paths.config_file.parent}), *_own_key(loaded)))
    wanted = Wanted(int(config.server.socket_mode, 8), config.server.socket_group)
    start = f"{unit.systemctl} start inferd" if unit.is_installed else "start it: inferd serve"
    yield from check_doors(doors, wanted, start)
    yield from check_certificates(_certificates(loaded), read_clock().now)


def _certificates(loaded: Loaded) -> list[Dated]:
    folder, own = Path(loaded.config.state.dir) / "tls", loaded.config.tls.cert
    renewed = "the daemon renews it; restart it, and read its log if that does not help"
    found = [
        read_certificate("local CA", folder / "ca.pem", renewed_at=_CA_LEFT, fix=renewed),
        read_certificate("certificate", folder / "cert.pem", renewed_at=_LOCAL_LEFT, fix=renewed),
    ]
    if own:
        fix = "put a new one in its place and `systemctl reload inferd`"
        found.append(read_certificate("own certificate", Path(own), renewed_at=timedelta(days=14), fix=fix))
    return [each for each in found if each is not None]


def _certificate_files(loaded: Loaded) -> tuple[Path, ...]:
    own = loaded.config.tls.cert
    return (Path(loaded.config.state.dir) / "tls" / "cert.pem", *((Path(own),) if own else ()))


def _own_key(loaded: Loaded) -> list[Place]:
    return [look(Path(loaded.config.tls.key))] if loaded.config.tls.key else []


def _plans(doors: tuple[Door, ...]) -> list[PlanFacts]:
    """Of the models that serve, where the daemon lets us ask."""
    socket = next(
        (
            d.listener
            for d in doors
            if d.listener.kind == "unix" and d.listener.is_rest and d.answer in ("ready", "not ready")
        ),
        None,
    )
    if socket is None:
        return []
    try:
        with Client(f"unix:{socket.path}" + ("" if socket.tls else "?tls=off"), timeout_s=ANSWER_S) as client:
            found = client.descriptions()
    except InferdError:
        return []
    return [
        PlanFacts(each["name"], plan["streams"], plan["threads"])
        for each in found if (plan := each.get("plan")) and plan["device"] == "cpu"
    ]  # fmt: skip


def _user(unit: Unit) -> User:
    """Who the unit runs the daemon as; without a unit, whoever asks."""
    try:
        entry = pwd.getpwnam(unit.user) if unit.user else pwd.getpwuid(os.geteuid())
    except KeyError:
        return User(unit.user or str(os.geteuid()), os.geteuid(), frozenset(os.getgroups()))
    groups = {entry.pw_gid, *(each.gr_gid for each in grp.getgrall() if entry.pw_name in each.gr_mem)}
    return User(entry.pw_name, entry.pw_uid, frozenset(groups))


def _is_on_lan(loaded: Loaded | ConfigError) -> bool:
    return isinstance(loaded, Loaded) and loaded.config.lan.enabled
