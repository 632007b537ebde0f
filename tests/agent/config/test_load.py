"""The tree from file, environment and flags."""

from __future__ import annotations

from pathlib import Path

import pytest

from inferd_agent.config import SCOPES, Config, Loaded, PeerRule, diff, load
from inferd_agent.config.schema import keys
from inferd_agent.errors import ConfigError

USER = 1000


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "inferd.toml"


def _load(file: Path, text: str, env: dict[str, str] | None = None, **flags: object) -> Loaded:
    file.write_text(text)
    dotted = {name.replace("__", "."): value for name, value in flags.items()}
    return load(file=file, env=env or {}, flags=dotted, uid=USER, home=file.parent)


def test_flag_beats_environment_beats_file_beats_default(file: Path) -> None:
    """Each source covers the one before, and every value knows where it came from."""
    loaded = _load(
        file,
        '[log]\nlevel = "debug"\nformat = "json"\n[server]\n\ndrain_s = 5\nkeepalive_s = 6\n',
        {"INFERD_LOG_LEVEL": "error", "INFERD_SERVER_DRAIN_S": "7"},
        server__drain_s=8.0,
    )
    server, log = loaded.config.server, loaded.config.log
    assert (log.level, log.format, server.drain_s, server.keepalive_s, server.max_connections) == (
        "error", "json", 8.0, 6.0, 1024,
    )  # fmt: skip
    told = {key: str(loaded.origins[key]) for key in ("log.level", "log.format", "server.drain_s", "server.listen")}
    assert told == {
        "log.level": "INFERD_LOG_LEVEL",
        "log.format": f"{file}:3",
        "server.drain_s": "flag for server.drain_s",
        "server.listen": "default",
    }
    assert str(loaded.origins["server.keepalive_s"]) == f"{file}:7"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[sever]\n", ":1: unknown section [sever], did you mean server?"),
        ("server = 3\n", ":1: [server] is a section"),
        ("[server]\nlisten = []\nmax_conections = 3\n", ":3: unknown key server.max_conections, did you mean max_conn"),
        ("[server]\ncores = 3\n", ":2: unknown key server.cores, did you mean runtime.cores?"),
        ("server.drain = 3\n", ":1: unknown key server.drain, did you mean drain_s?"),
        ("[server]\nmax_connections = 0\n", ":2: server.max_connections: expected int >= 1, got 0"),
        ("[server]\nmax_connections = '9'\n", "expected int, got str, got '9'"),
        ("[server]\ndrain_s = inf\n", "expected a finite number, got inf"),
        ("[server]\nbody_timeout_s = nan\n", ":2: server.body_timeout_s: expected"),
        ("[server]\nsocket_mode = '999'\n", ":2: server.socket_mode: expected str matching regex"),
        ("[server]\nlisten = 'unix:/a'\n", "expected array"),
        ("[server]\nlisten = ['tcp:1']\n", ":2: server.listen: listener 'tcp:1'"),
        ("[server]\nlisten = ['unix:/a', 'unix:/a?tls=off']\n", "given twice"),
        ("[server]\nlisten = ['unix:/a', 'memory+unix:/a']\n", "given twice"),
        ("[server]\nlisten = ['memory+unix:/a', 'memory+unix:/b']\n", "one memory+unix listener is enough"),
        ("[server]\nlisten = ['unix:/a.ca.pem']\n", "belong to the files beside sockets"),
        ("[log]\nlevel = 'debag'\n", "expected one of debug, info, warning, error, got 'debag', did you mean debug?"),
        ("[models]\nwatch = 'yes'\n", "expected bool, got str"),
        ("[tls]\ncert = '/a'\n", "give both or none"),
        ("[auth]\npeers = [{ user = 'a', scope = ['infer'] }]\n", "rule 1 has an unknown key 'scope', did you"),
        ("[auth]\npeers = [{ uid = 'a' }]\n", "at [0].uid"),
        ("[server]\nmax_body_bytes = 2000\nmax_inflight_bytes = 1000\n", "the largest body could never be taken"),
        ("[state]\ndir = \"/a\\u0000b\"\n", "NUL"),
        ("[server\n", "not TOML"),
    ],
)  # fmt: skip
def test_a_wrong_file_is_explained(file: Path, text: str, says: str) -> None:
    """The error has the place, what came and the nearest right thing."""
    with pytest.raises(ConfigError) as caught:
        _load(file, text)
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("INFERD_SERVER_DRAINS", "1", "unknown variable INFERD_SERVER_DRAINS, did you mean INFERD_SERVER_DRAIN_S?"),
        ("INFERD_TOKN", "x", "did you mean INFERD_TOKEN?"),
        ("INFERD_SERVER_DRAIN_S", "soon", "INFERD_SERVER_DRAIN_S: server.drain_s: expected float"),
        ("INFERD_AUTH_PEERS", "[{", "not a JSON array"),
    ],
)
def test_a_wrong_variable_is_explained(file: Path, name: str, value: str, says: str) -> None:
    """A misspelt or misused variable stops the start as a key of the file does."""
    with pytest.raises(ConfigError) as caught:
        _load(file, "", {name: value})
    assert says in str(caught.value)


def test_variables_hold_every_type(file: Path) -> None:
    """Lists by commas or as JSON, rules as JSON, numbers and booleans as text; the client's variables do no harm."""
    config = _load(
        file,
        "",
        {
            "INFERD_SERVER_LISTEN": "unix:/a, tcp:[::1]:1",
            "INFERD_TLS_NAMES": '["a,b"]',
            "INFERD_AUTH_PEERS": '[{"group": "video", "scopes": ["infer"]}]',
            "INFERD_METRICS_OPEN": "true",
            "INFERD_RUNTIME_CORES": "3",
            "INFERD_URL": "unix:/x", "INFERD_TOKEN": "t", "INFERD_CA": "c",
        },
    ).config  # fmt: skip
    assert config.server.listen == ("unix:/a", "tcp:[::1]:1")
    assert config.tls.names == ("a,b",)
    assert config.auth.peers == (PeerRule(group="video", scopes=("infer",)),)
    assert (config.metrics.open, config.runtime.cores) == (True, 3)


def test_root_gets_system_paths(tmp_path: Path) -> None:
    """Root, and a service user under /var/lib, use the system's folders."""
    for uid, env in ((0, {}), (999, {"STATE_DIRECTORY": "/var/lib/inferd:/var/lib/more"})):
        loaded = load(file=None, env=env, uid=uid, home=tmp_path)
        assert loaded.paths.config_file == Path("/etc/inferd/inferd.toml")
        config = loaded.config
        assert config.server.listen == ("unix:/run/inferd/inferd.sock",)
        assert (config.server.socket_mode, config.models.path) == ("0660", ("/var/lib/inferd/models",))
        assert (config.state.dir, config.state.cache_dir) == ("/var/lib/inferd", "/var/cache/inferd")


def test_a_user_gets_xdg_paths(tmp_path: Path) -> None:
    """XDG folders where they are set, the specification's fallbacks where not; relative ones are ignored."""
    run = tmp_path / "run"
    run.mkdir()
    env = {"XDG_CONFIG_HOME": "/c", "XDG_CACHE_HOME": "relative", "XDG_RUNTIME_DIR": str(run)}
    loaded = load(env=env, uid=USER, home=tmp_path)
    state = tmp_path / ".local/state/inferd"
    assert loaded.paths.config_file == Path("/c/inferd/inferd.toml")
    assert loaded.config.server.listen == (f"unix:{run}/inferd/inferd.sock",)
    assert (loaded.config.server.socket_mode, loaded.config.models.path) == ("0600", (f"{state}/models",))
    assert loaded.config.state.cache_dir == f"{tmp_path}/.cache/inferd"
    assert loaded.file is None
    no_runtime = load(env={}, uid=USER, home=tmp_path).config
    assert no_runtime.server.listen == (f"unix:{state}/inferd.sock",)


def test_a_given_state_folder_takes_the_cache_and_models_along(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """--state DIR keeps everything in DIR; relative paths become absolute."""
    monkeypatch.chdir(tmp_path)
    config = load(env={}, flags={"state.dir": "s", "models.path": ()}, uid=USER, home=tmp_path).config
    assert (config.state.dir, config.state.cache_dir) == (f"{tmp_path}/s", f"{tmp_path}/s/cache")
    assert config.models.path == (f"{tmp_path}/s/models",)
    assert config.server.listen == (f"unix:{tmp_path}/s/inferd.sock",)


def test_systemd_moves_the_folders(tmp_path: Path) -> None:
    """systemd's folder variables set the defaults, and its credentials the own certificate."""
    for name in ("tls.crt", "tls.key"):
        (tmp_path / name).write_text("x")
    env = {
        "STATE_DIRECTORY": "/var/lib/a", "CACHE_DIRECTORY": "/var/cache/a", "RUNTIME_DIRECTORY": "/run/a",
        "CONFIGURATION_DIRECTORY": "/etc/a", "CREDENTIALS_DIRECTORY": str(tmp_path),
    }  # fmt: skip
    loaded = load(env=env, uid=USER, home=tmp_path)
    config = loaded.config
    assert loaded.paths.config_file == Path("/etc/a/inferd.toml")
    assert (config.state.dir, config.state.cache_dir) == ("/var/lib/a", "/var/cache/a")
    assert config.server.listen == ("unix:/run/a/inferd.sock",)
    assert (config.tls.cert, config.tls.key) == (f"{tmp_path}/tls.crt", f"{tmp_path}/tls.key")


def test_files_that_cannot_be_read_stop_the_start(tmp_path: Path) -> None:
    """A file that was asked for must be there; one that is there must be text."""
    with pytest.raises(ConfigError, match="no such file"):
        load(file=tmp_path / "none.toml", env={})
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        load(file=tmp_path, env={})
    (tmp_path / "b.toml").write_bytes(b"\xff")
    with pytest.raises(ConfigError, match="not UTF-8"):
        load(file=tmp_path / "b.toml", env={})


def test_a_change_is_sorted_by_what_it_needs(file: Path) -> None:
    """The schema says which keys a running daemon takes."""
    old = _load(file, "").config
    new = _load(file, '[log]\nlevel = "error"\n[server]\ndrain_s = 1\n[tls]\nnames = ["a"]\n').config
    changes = diff(old, new)
    assert changes.live == ("tls.names", "log.level")
    assert changes.restart == ("server.drain_s",)
    assert diff(old, old).live == diff(old, old).restart == ()


def test_the_tree_is_frozen_and_every_key_documented() -> None:
    """Nobody changes a configuration, and no key is without its line."""
    with pytest.raises(AttributeError):
        Config().server.drain_s = 3.0  # type: ignore[misc]
    assert all(key.text.endswith(".") for key in keys())
    assert SCOPES == ("infer", "read", "admin")
