"""Manual pages, completions and the packaged configurations say what the program does."""

from __future__ import annotations

import gzip
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest

from inferd_agent.cli import COMMANDS, group
from inferd_agent.config import load
from inferd_agent.config.schema import keys

_ROOT = Path(__file__).resolve().parents[2]
_WRITE = """
import json, sys
sys.path.insert(0, "packaging/build")
import pages
files = {path: content.hex() for path, content in pages.written().items()}
print(json.dumps(files))
"""


@pytest.fixture(scope="module")
def pages() -> dict[str, bytes]:
    """Every page by its path, as a build writes it."""
    done = subprocess.run([sys.executable, "-c", _WRITE], check=True, capture_output=True, text=True, cwd=_ROOT)
    return {path: bytes.fromhex(content) for path, content in json.loads(done.stdout).items()}


def _page(pages: dict[str, bytes], name: str) -> str:
    return gzip.decompress(pages[f"usr/share/man/{name}.gz"]).decode()


def test_every_command_and_option_is_in_the_manual(pages: dict[str, bytes]) -> None:
    """Nothing that `inferd --help` leads to is missing from inferd(1)."""
    page = _page(pages, "man1/inferd.1").replace("\\-", "-")
    root = click.Context(group, info_name="inferd")
    for name in COMMANDS:
        command = group.get_command(root, name)
        assert command is not None
        assert f".SS inferd {name}" in page
        for option in command.params:
            assert all(word in page for word in option.opts if word.startswith("--")), f"{name}: {option.opts}"


def test_every_setting_is_in_the_manual(pages: dict[str, bytes]) -> None:
    """inferd.toml(5) has every key with its variable."""
    page = _page(pages, "man5/inferd.toml.5")
    for key in keys():
        assert f".B {key.name}\n" in page
        assert key.env in page


@pytest.mark.skipif(shutil.which("mandoc") is None, reason="mandoc is not installed")
def test_manual_pages_are_sound(pages: dict[str, bytes], tmp_path: Path) -> None:
    """A checker of manual pages finds nothing to warn of."""
    for name in ("man1/inferd.1", "man5/inferd.toml.5"):
        path = tmp_path / Path(name).name
        path.write_text(_page(pages, name))
        done = subprocess.run(["mandoc", "-T", "lint", "-W", "warning", path], capture_output=True, text=True)
        assert done.stdout == ""


def test_a_line_that_looks_like_a_request_stays_text(pages: dict[str, bytes]) -> None:
    """No line of a help text begins a request of roff's by chance."""
    known = {"TH", "SH", "SS", "TP", "PP", "B", "nf", "fi"}
    for name in ("man1/inferd.1", "man5/inferd.toml.5"):
        requests = set(re.findall(r"^[.'](\w*)", _page(pages, name), re.MULTILINE))
        assert requests <= known


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
def test_bash_completes_commands(pages: dict[str, bytes], tmp_path: Path) -> None:
    """The packaged script asks the program, which answers."""
    script = tmp_path / "completion"
    script.write_bytes(pages["usr/share/bash-completion/completions/inferd"])
    asks = f". {script}; COMP_WORDS=(inferd tok); COMP_CWORD=1; _inferd_completion inferd; echo ${{COMPREPLY[*]}}"
    path = {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin"}
    done = subprocess.run(["bash", "-c", asks], check=True, capture_output=True, text=True, env=path)
    assert done.stdout == "token\n"


@pytest.mark.parametrize("file", ["packaging/etc/inferd.toml", "packaging/container/inferd.toml"])
def test_packaged_configurations_are_right(file: str, tmp_path: Path) -> None:
    """The file as it is installed, and with every example in it taken."""
    text = (_ROOT / file).read_text()
    taken = tmp_path / "inferd.toml"
    for content in (text, re.sub(r"^#(?=[a-z_]+ = )", "", text, flags=re.MULTILINE)):
        taken.write_text(content)
        loaded = load(file=taken, env={}, uid=0)
        assert str(loaded.listeners[0].path) == "/run/inferd/inferd.sock"


def test_the_group_may_infer_and_read_and_no_more() -> None:
    """Callers in the group inferd administer nothing."""
    (rule,) = load(file=_ROOT / "packaging/etc/inferd.toml", env={}, uid=0).config.auth.peers
    assert (rule.group, rule.scopes, rule.user, rule.models) == ("inferd", ("infer", "read"), "", ("*",))
