"""The `inferd` command: one module per subcommand, imported only when it is called, so that help is instant.

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 no daemon reachable, 4 not allowed, 5 no such model or it is not ready,
130 Ctrl-C. Expected errors are a line or two on standard error; a trace means a bug. A reader that left (`| head -1`)
is no error to talk about: click ends with 1 and says nothing.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from io import TextIOWrapper
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

EXIT_INTERRUPTED = 130

# name -> one line for `inferd --help`; the module of the same name holds a click command `command`.
COMMANDS = {
    "serve": "Run the daemon: load the models of a folder and answer requests.",
    "demo": "Serve the bundled INT8 model, send it real handwritten digits, show what came back.",
    "models": "Show models: state, engine and why, INT8 or not, inputs and outputs.",
    "explain": "Show how a model is run on this machine, what was measured for that, and why.",
    "plan": "Measure a model on this machine now, with progress, and serve with what is best.",
    "infer": "Send one inference from files (.npy, .json, images) and show the answer.",
    "bench": "Load a model with requests and report throughput and latency percentiles.",
    "probe": "Show what inferd sees of this machine: CPU, INT8 instructions, cores, memory, devices.",
    "gateway": "Balance calls over all trusted devices of the LAN with Envoy.",
    "doctor": "Check the installation: what is wrong, and how to mend it.",
    "discover": "Find the inferd devices of this LAN.",
    "trust": "Trust a device of the LAN by its fingerprint, or a fleet by its CA.",
    "tls": "Show this daemon's fingerprint; make certificates for a fleet with one CA.",
    "token": "Create, list, rotate and revoke the tokens that clients call with.",
    "config": "Show every setting, its value and where it came from.",
    "version": "Show versions of inferd, Python and the engines.",
}


class LazyGroup(click.Group):
    """A group whose subcommands are modules that are imported when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command = importlib.import_module(f"inferd_agent.cli.{cmd_name}").command
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does, but a typo gets the nearest command: click cannot know those that are not imported yet."""
        if args[0] not in COMMANDS and not args[0].startswith("-"):
            nearest = get_close_matches(args[0], COMMANDS, n=1)
            instead = f"did you mean '{nearest[0]}'?" if nearest else f"there are: {', '.join(COMMANDS)}"
            raise click.UsageError(f"no command '{args[0]}'; {instead}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """As click does, without importing every command for its one line of help."""
        from click.shell_completion import CompletionItem

        found = [CompletionItem(name, help=text) for name, text in COMMANDS.items() if name.startswith(incomplete)]
        return found + click.Command.shell_complete(self, ctx, incomplete)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
def group() -> None:
    """inferd serves INT8-quantised models on this machine.

    \b
    See it work:          inferd demo
    Serve a folder:       inferd serve --models ./models
    Ask it something:     inferd infer MODEL --input NAME=file.npy
    What is it doing?     inferd models
    Why this engine?      inferd explain MODEL

    Commands that call a daemon find the local one by themselves; --url and --token (or INFERD_URL, INFERD_TOKEN) point
    them elsewhere. Every command that prints a table also prints --json. `inferd COMMAND --help` says more.

    \b
    Exit codes: 0 done, 1 failed, 2 wrong usage, 3 no daemon reachable, 4 not allowed,
    5 no such model or it is not ready.
    """


def main(args: Sequence[str] | None = None) -> None:
    """Entry point: runs the command and turns every known error into readable lines and an exit code."""
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal without some character shows the rest
    try:
        code = group.main(args, prog_name="inferd", standalone_mode=False)
    except click.exceptions.Abort:
        raise SystemExit(EXIT_INTERRUPTED) from None
    except click.ClickException as error:
        error.show()
        raise SystemExit(error.exit_code) from None
    except Exception as error:
        from inferd_agent.cli.failures import explain

        found = explain(error)
        if found is None:
            raise
        for line in found.lines:
            click.echo(line, err=True)
        raise SystemExit(found.exit_code) from None
    raise SystemExit(code if isinstance(code, int) else 0)
