"""Writes `docs/configuration.md` from the schema; `inferd config --docs` prints it, a test compares it."""

from __future__ import annotations

from typing import Any, get_type_hints

import msgspec

from inferd_agent.config.schema import Key, PeerRule, keys, sections

_HEAD = """\
# Configuration

Made from the schema by `inferd config --docs`; change the schema, not this page.

Without a file and without flags `inferd serve` works. Values come from, each over the one before:

1. the defaults below;
2. the file: `--config FILE`, else `/etc/inferd/inferd.toml` for root, else `$XDG_CONFIG_HOME/inferd/inferd.toml`
   (TOML, UTF-8; under systemd also `$CONFIGURATION_DIRECTORY/inferd.toml`);
3. environment variables `INFERD_<SECTION>_<KEY>`; lists separated by commas, or as a JSON array;
4. flags of `inferd serve`.

`inferd config` shows every value with its origin. An unknown key, an unknown `INFERD_` variable or a bad value stops
the start with its place. `INFERD_URL`, `INFERD_TOKEN` and `INFERD_CA` belong to the clients and change nothing here.
Keys marked *live* are taken over on SIGHUP (`systemctl reload inferd`); the others need a restart.
Under systemd, `STATE_DIRECTORY`, `CACHE_DIRECTORY` and `RUNTIME_DIRECTORY` move the default folders.
"""


def render_docs() -> str:
    """The whole page."""
    parts = [_HEAD]
    for section, struct in sections().items():
        parts += [f"\n## [{section}]\n\n{struct.__doc__}\n", _table([key for key in keys() if key.section == section])]
        if section == "auth":
            parts.append(_rules())
    return "\n".join(parts)


def _table(rows: list[Key]) -> str:
    lines = ["| key | default | environment | meaning |", "|---|---|---|---|"]
    for key in rows:
        flag = f" Flag `{key.flag}`." if key.flag else ""
        live = " *Live.*" if key.live else ""
        lines.append(
            f"| `{key.name}` | {key.shown or _toml(key.default)} | `{key.env}` | {_meaning(key)}{flag}{live} |"
        )
    return "\n".join(lines)


def _meaning(key: Key) -> str:
    choices = ", ".join(f"`{choice}`" for choice in key.choices)
    bounds = f" {key.bounds.capitalize()}." if key.bounds else ""
    return key.text + (f" One of {choices}." if choices else "") + bounds


def _rules() -> str:
    lines = [
        f"\nA rule in `[[auth.peers]]` says {(PeerRule.__doc__ or '').lower()}\n",
        "| key | meaning |",
        "|---|---|",
    ]
    for name, hint in get_type_hints(PeerRule, include_extras=True).items():
        lines.append(f"| `{name}` | {hint.__metadata__[0].description} |")
    return "\n".join(lines) + "\n"


def _toml(value: Any) -> str:
    return f"`{msgspec.json.encode(value).decode()}`"
