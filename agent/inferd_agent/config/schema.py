"""The configuration as one frozen tree: types, bounds, defaults, one line of documentation each.

Everything else about a key is derived from here: the checks, the environment names, `docs/configuration.md`, and which
keys a SIGHUP may change (`live`). A default that depends on who runs the daemon is empty here, told in `shown`, and
filled in by `config.paths`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Meta, Struct

Scope = Literal["infer", "read", "admin"]
SCOPES: tuple[Scope, ...] = get_args(Scope)

MiB = 1 << 20


def _key(text: str, *, live: bool = False, flag: str = "", shown: str = "", **bounds: Any) -> Meta:
    return Meta(description=text, extra={"live": live, "flag": flag, "shown": shown}, **bounds)


class PeerRule(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Who may do what over a Unix socket without a token; all the conditions given must hold."""

    user: Annotated[str, Meta(description="User name of the caller.")] = ""
    group: Annotated[str, Meta(description="Group name, primary or supplementary.")] = ""
    uid: Annotated[int | None, Meta(description="User id of the caller.")] = None
    gid: Annotated[int | None, Meta(description="Group id, primary or supplementary.")] = None
    scopes: Annotated[tuple[Scope, ...], Meta(description="Any of infer, read, admin; empty allows nothing.")] = ()
    models: Annotated[tuple[str, ...], Meta(description="Model name patterns, with `*`, `?` and `[...]`.")] = ("*",)


class Server(Struct, frozen=True, kw_only=True):
    """Where it listens, and how much it takes from its callers."""

    listen: Annotated[
        tuple[str, ...],
        _key(
            "Listeners: `unix:/path[?tls=off]` or `tcp:HOST:PORT[?tls=off&insecure=on]`; `grpc+` before it for gRPC;"
            " `memory+unix:/path` takes shared memory from callers.",
            flag="--listen",
            shown="`inferd.sock` in `/run/inferd` for the system, in `$XDG_RUNTIME_DIR/inferd` for a user",
        ),
    ] = ()
    socket_mode: Annotated[
        str,
        _key(
            "Permissions of Unix sockets, octal.",
            pattern=r"^0?[0-7]{3}$",
            shown='`"0660"` for the system, `"0600"` for a user',
        ),
    ] = "0600"
    socket_group: Annotated[str, _key("Group that owns the Unix sockets; empty leaves the daemon's own.")] = ""
    max_connections: Annotated[int, _key("Connections open at once, all listeners.", ge=1)] = 1024
    max_body_bytes: Annotated[int, _key("Largest request body, as sent and once inflated.", ge=1)] = 128 * MiB
    max_inflight_bytes: Annotated[int, _key("Request bodies held at once, all connections.", ge=1)] = 512 * MiB
    max_header_bytes: Annotated[int, _key("Largest request head.", ge=1024)] = 16384
    header_timeout_s: Annotated[float, _key("Time for a request's head to arrive.", gt=0)] = 10.0
    body_timeout_s: Annotated[float, _key("Time for a whole request body; slow senders are cut off.", gt=0)] = 30.0
    keepalive_s: Annotated[float, _key("How long an idle connection stays open.", ge=0)] = 75.0
    request_timeout_s: Annotated[float, _key("Deadline of requests that bring none of their own.", gt=0)] = 60.0
    drain_s: Annotated[float, _key("How long a stop waits for accepted requests.", ge=0)] = 30.0


class SharedMemory(Struct, frozen=True, kw_only=True):
    """Tensors in memory that callers on this machine share with the daemon, instead of sending them."""

    system: Annotated[
        bool, _key("Callers on this machine may name objects under /dev/shm that are theirs, as for Triton.")
    ] = False
    max_bytes: Annotated[int, _key("Bytes of all registered regions; one caller has half of them.", ge=1)] = 1024 * MiB
    max_regions: Annotated[int, _key("Registered regions; one caller has half of them.", ge=1)] = 256


class Lan(Struct, frozen=True, kw_only=True):
    """Whether other devices find this one. On the LAN there is TLS always, and nothing but health without a token."""

    enabled: Annotated[
        bool,
        _key("Listen on the LAN and announce it by mDNS as `_inferd._tcp`.", flag="--lan"),
    ] = False
    port: Annotated[
        int,
        _key(
            "TCP port on all addresses; not used where `server.listen` names a TLS listener for the LAN, which is"
            " announced instead. 0 takes any.",
            ge=0,
            le=65535,
        ),
    ] = 8470
    interfaces: Annotated[
        tuple[str, ...],
        _key(
            "Interfaces to announce on, with `*`. It does not narrow the listener.",
            shown="all but those of containers, virtual machines and tunnels",
        ),
    ] = ()
    name: Annotated[str, _key("Name to announce; a number is added where it is taken.", shown="the host's name")] = ""


class Models(Struct, frozen=True, kw_only=True):
    """Which folders are served."""

    path: Annotated[
        tuple[str, ...],
        _key("Model folders.", flag="--models", shown="`models` in the state folder"),
    ] = ()
    watch: Annotated[bool, _key("Follow changes in the model folders; else a request to load or unload looks.")] = True
    load: Annotated[Literal["all", "none"], _key("What to load at the start; `none` waits for requests to load.")] = (
        "all"
    )


class Runtime(Struct, frozen=True, kw_only=True):
    """How the machine is used."""

    cores: Annotated[int, _key("Cores to use at most; 0 takes what the machine allows this process.", ge=0)] = 0
    core_floor: Annotated[int, _key("Cores that stay ours however busy the host is.", ge=1)] = 1
    governor: Annotated[
        Literal["polite", "fair", "fixed"],
        _key(
            "`polite` gives cores back to other programs, whose threads go first; `fair` gives back half at most; "
            "`fixed` gives back none."
        ),
    ] = "polite"
    headroom: Annotated[
        float, _key("Cores that are left to other programs beside those that they use; not with `fixed`.", ge=0)
    ] = 0.0
    max_temperature_c: Annotated[
        float,
        _key("Processor temperature that costs cores; 0 takes its drivers' own mark; not with `fixed`.", ge=0),
    ] = 0.0
    battery_share: Annotated[
        float, _key("Part of the cores to use while a battery feeds the machine; not with `fixed`.", gt=0, le=1)
    ] = 0.5
    inline: Annotated[Literal["auto", "off"], _key("Whether micro-models may run on the event loop.")] = "auto"
    engine: Annotated[
        Literal["auto", "onnxruntime", "openvino"], _key("Engine for models that name none; `auto` chooses.")
    ] = "auto"
    max_jobs: Annotated[int, _key("Waiting requests for each model.", ge=1)] = 1024
    max_queue_bytes: Annotated[int, _key("Input bytes of waiting and running requests, all models.", ge=1)] = 256 * MiB


class Planning(Struct, frozen=True, kw_only=True):
    """How it is found out how a model runs best on this machine; see planning.md."""

    mode: Annotated[
        Literal["auto", "off"],
        _key("`auto` measures models in the background; `off` only those that somebody asks for."),
    ] = "auto"
    budget_s: Annotated[float, _key("How long measuring one model may take.", ge=1)] = 20.0
    objective: Annotated[
        Literal["latency", "throughput", "balanced"],
        _key("What plans strive for where a model does not say; `balanced` is throughput without slow lone requests."),
    ] = "balanced"


class Tls(Struct, frozen=True, kw_only=True):
    """Certificates. Unix sockets always use the local CA's; an own certificate is for TCP listeners."""

    cert: Annotated[
        str,
        _key(
            "Own certificate chain (PEM) for TCP listeners; empty uses the local CA's.",
            live=True,
            shown='`""`, or the systemd credential `tls.crt`',
        ),
    ] = ""
    key: Annotated[
        str, _key("Private key of `cert` (PEM).", live=True, shown='`""`, or the systemd credential `tls.key`')
    ] = ""
    names: Annotated[
        tuple[str, ...], _key("Further names and addresses for the local CA's certificate.", live=True)
    ] = ()


class Auth(Struct, frozen=True, kw_only=True):
    """Who may do what without a token; tokens are made by `inferd token create`."""

    peers: Annotated[
        tuple[PeerRule, ...],
        _key(
            "Rules for callers over Unix sockets, first match wins; root and the daemon's user may do all.", live=True
        ),
    ] = ()


class Log(Struct, frozen=True, kw_only=True):
    """What is written to standard error."""

    level: Annotated[
        Literal["debug", "info", "warning", "error"], _key("Least severity written.", live=True, flag="--log-level")
    ] = "info"
    format: Annotated[
        Literal["auto", "human", "json"], _key("`auto` is human on terminals and in the journal, else json.", live=True)
    ] = "auto"


class Metrics(Struct, frozen=True, kw_only=True):
    """Prometheus metrics at `/metrics`."""

    open: Annotated[bool, _key("Serve metrics without asking who calls.")] = False


class State(Struct, frozen=True, kw_only=True):
    """Where the daemon keeps what it must not lose (tokens, certificates) and what it may (caches)."""

    dir: Annotated[
        str,
        _key(
            "State folder.",
            flag="--state",
            shown="`/var/lib/inferd` for the system, `$XDG_STATE_HOME/inferd` for a user",
        ),
    ] = ""
    cache_dir: Annotated[
        str,
        _key(
            "Plans and compiled models.",
            shown="`cache` in a state folder that was given, else `/var/cache/inferd` or `$XDG_CACHE_HOME/inferd`",
        ),
    ] = ""


class Config(Struct, frozen=True, kw_only=True):
    """The whole tree."""

    server: Server = Server()
    shared_memory: SharedMemory = SharedMemory()
    lan: Lan = Lan()
    models: Models = Models()
    runtime: Runtime = Runtime()
    planning: Planning = Planning()
    tls: Tls = Tls()
    auth: Auth = Auth()
    log: Log = Log()
    metrics: Metrics = Metrics()
    state: State = State()


@dataclass(frozen=True, slots=True)
class Key:
    """One key of the tree, with everything the schema says about it."""

    section: str
    name: str
    type: Any
    default: Any
    text: str
    live: bool
    flag: str
    shown: str
    meta: Meta

    @property
    def dotted(self) -> str:
        return f"{self.section}.{self.name}"

    @property
    def env(self) -> str:
        return f"INFERD_{self.section}_{self.name}".upper()

    @property
    def is_list(self) -> bool:
        return get_origin(_bare(self.type)) is tuple

    @property
    def choices(self) -> tuple[str, ...]:
        """The words that are right, where only some are."""
        return get_args(_bare(self.type)) if get_origin(_bare(self.type)) is Literal else ()

    @property
    def bounds(self) -> str:
        """The bounds in words, empty if there are none."""
        meta = self.meta
        told = (("more than", meta.gt), ("at least", meta.ge), ("at most", meta.le))
        return ", ".join(f"{words} {bound}" for words, bound in told if bound is not None)


def sections() -> dict[str, type[Struct]]:
    """The sections in their order."""
    return {field.name: field.type for field in msgspec.structs.fields(Config)}


def keys() -> Iterator[Key]:
    """Every key, in the order of the schema."""
    for section, struct in sections().items():
        hints = get_type_hints(struct, include_extras=True)
        for field in msgspec.structs.fields(struct):
            meta = hints[field.name].__metadata__[0]
            assert isinstance(meta, Meta)
            extra = meta.extra or {}
            yield Key(
                section, field.name, hints[field.name], field.default, meta.description or "",
                extra["live"], extra["flag"], extra["shown"], meta,
            )  # fmt: skip


def _bare(kind: Any) -> Any:
    return get_args(kind)[0] if get_origin(kind) is Annotated else kind
