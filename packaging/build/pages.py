"""What a shell and `man` know of inferd, written from its own commands and schema: they cannot say otherwise."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from datetime import UTC, datetime

import click
import msgspec
import roff
from checkout import epoch, version
from click.shell_completion import get_completion_class

from inferd_agent.cli import COMMANDS, group
from inferd_agent.config.schema import Key, keys, sections

_COMPLETIONS = {
    "bash": "usr/share/bash-completion/completions/inferd",
    "zsh": "usr/share/zsh/vendor-completions/_inferd",
    "fish": "usr/share/fish/vendor_completions.d/inferd.fish",
}
_FILES = {
    "/etc/inferd/inferd.toml": "Configuration of the system's daemon; see inferd.toml(5).",
    "/var/lib/inferd/models": "The models that are served; what is copied in is taken up.",
    "/var/lib/inferd": "Tokens, certificates and what else must not be lost.",
    "/var/cache/inferd": "Plans and compiled models; may be deleted while the daemon is stopped.",
    "/run/inferd/inferd.sock": "Where programs of this machine call it.",
    "/usr/share/doc/inferd": "Operations, protocol, planning and the threat model.",
}


def written() -> dict[str, bytes]:
    """The files by their paths from `/`."""
    files = {path: _completion(shell).encode() for shell, path in _COMPLETIONS.items()}
    for name, page in (("man1/inferd.1", command_page()), ("man5/inferd.toml.5", settings_page())):
        files[f"usr/share/man/{name}.gz"] = gzip.compress(page.encode(), 9, mtime=0)
    return files


def command_page() -> str:
    """inferd(1): every command with its options."""
    root = click.Context(group, info_name="inferd")
    first, _, rest = (group.help or "").partition("\n\n")
    lines = [
        _title("inferd", 1),
        roff.section("NAME", roff.text("inferd - serve quantised models on this machine")),
        roff.section("SYNOPSIS", roff.bold("inferd"), roff.text("COMMAND [OPTIONS] [ARGUMENTS]")),
        roff.section("DESCRIPTION", roff.text(first), ".PP", roff.prose(rest)),
        roff.section("COMMANDS"),
        *(part for name in COMMANDS for part in _command(name, group.get_command(root, name), root)),
        roff.section("FILES", *(roff.item(path, roff.text(words)) for path, words in _FILES.items())),
        roff.section("SEE ALSO", roff.text("inferd.toml(5), systemctl(1), journalctl(1)")),
    ]
    return "\n".join(lines) + "\n"


def settings_page() -> str:
    """inferd.toml(5): every key with its default, bounds and variable."""
    head = (
        "A TOML file. An unknown key or a bad value stops the start with its place. Environment variables go over the "
        "file, flags of `inferd serve` over both; `inferd config` shows every value with where it came from. Keys "
        "marked live are taken over by `systemctl reload inferd`, the others by a restart."
    )
    lines = [
        _title("inferd.toml", 5),
        roff.section("NAME", roff.text("inferd.toml - configuration of inferd")),
        roff.section("SYNOPSIS", roff.text("/etc/inferd/inferd.toml")),
        roff.section("DESCRIPTION", roff.text(head)),
    ]
    for section, struct in sections().items():
        known = [_setting(key) for key in keys() if key.section == section]
        lines.append(roff.section(f"[{section}]", roff.text(struct.__doc__ or ""), *known))
    lines.append(roff.section("SEE ALSO", roff.text("inferd(1)")))
    return "\n".join(lines) + "\n"


def _title(name: str, chapter: int) -> str:
    when = datetime.fromtimestamp(epoch(), UTC).strftime("%Y-%m-%d")
    return f'.TH "{name.upper()}" {chapter} "{when}" "inferd {version()}"'


def _command(name: str, command: click.Command | None, parent: click.Context) -> Iterator[str]:
    assert command is not None, f"inferd has no command {name}"
    context = click.Context(command, info_name=name, parent=parent)
    yield roff.heading(f"{context.command_path} {' '.join(command.collect_usage_pieces(context))}")
    yield roff.prose(command.help or "")
    records = (option.get_help_record(context) for option in command.params)
    yield from (roff.item(record[0], roff.text(record[1])) for record in records if record and record[1])
    if isinstance(command, click.Group):
        for inner in command.list_commands(context):
            yield from _command(inner, command.get_command(context, inner), context)


def _setting(key: Key) -> str:
    default = key.shown.replace("`", "") or msgspec.json.encode(key.default).decode()
    choices = f" One of {', '.join(key.choices)}." if key.choices else ""
    bounds = f" {key.bounds.capitalize()}." if key.bounds else ""
    live = " Live." if key.live else ""
    told = f"{key.text.replace('`', '')}{choices}{bounds}{live} Default: {default}. Variable: {key.env}."
    return roff.item(key.name, roff.text(told))


def _completion(shell: str) -> str:
    kind = get_completion_class(shell)
    assert kind is not None, f"click knows no completions for {shell}"
    return kind(group, {}, "inferd", "_INFERD_COMPLETE").source()
