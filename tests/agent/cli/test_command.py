"""The command as a whole: help, typos, exit codes, pipes, completion."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from inferd_agent.cli import COMMANDS
from tests.agent.cli.conftest import Run

INFERD = str(Path(sys.executable).with_name("inferd"))


def test_help_names_every_command_and_its_exit_codes(inferd: Run) -> None:
    """`inferd --help` is enough to find the way."""
    done = inferd("--help")
    assert done.exit_code == 0
    assert all(f"\n  {name} " in done.out for name in COMMANDS)
    assert "Exit codes: 0 done" in done.out


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(inferd: Run, name: str) -> None:
    """`inferd COMMAND --help` works for each and says what it is for."""
    done = inferd(name, "--help")
    assert done.exit_code == 0
    assert f"Usage: inferd {name}" in done.out
    assert re.search(r"\n\n  [A-Z]", done.out)
    assert "\nOptions:\n" in done.out


def test_a_terminal_that_lacks_characters_gets_the_rest(tmp_path: Path) -> None:
    """What cannot be said in its encoding is a question mark, and no trace."""
    (tmp_path / "inferd.toml").write_text('[lan]\nname = "☃ camera"\n')
    env = {**os.environ, "PYTHONIOENCODING": "latin-1", "CONFIGURATION_DIRECTORY": str(tmp_path)}
    done = subprocess.run([INFERD, "config"], capture_output=True, text=True, timeout=60, env=env, check=False)
    assert done.returncode == 0, done.stderr
    assert "? camera" in done.stdout


@pytest.mark.parametrize(
    ("typed", "meant"), [("modles", "models"), ("tokn", "token"), ("sevre", "serve"), ("benchmark", "bench")]
)
def test_a_typo_gets_the_nearest_command(inferd: Run, typed: str, meant: str) -> None:
    """Wrong usage is exit code 2 and names the command that was meant."""
    done = inferd(typed)
    assert done.exit_code == 2
    assert f"did you mean '{meant}'?" in done.err


def test_a_word_like_no_command_gets_them_all(inferd: Run) -> None:
    """Where nothing is near, the error lists what there is."""
    assert ", ".join(COMMANDS) in inferd("qqqq").err


def test_an_option_typo_gets_the_nearest_option(inferd: Run) -> None:
    """Options are suggested, too."""
    done = inferd("infer", "digits", "--inptu", "x=y.npy")
    assert done.exit_code == 2
    assert "--input" in done.err


def test_help_loads_nothing_heavy() -> None:
    """Help answers at once: neither numpy nor rich nor any room of ours is imported for it."""
    code = (
        "import sys; from inferd_agent.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: print([m for m in sys.modules if m.split('.')[0] in ('numpy', 'rich', 'inferd_runtime')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_a_reader_that_left_is_no_trace() -> None:
    """`inferd version | true` says nothing on standard error."""
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [INFERD, "version"], stdout=writing, stderr=subprocess.PIPE, text=True, timeout=30, check=False
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (1, "")


def test_a_full_disk_is_one_line() -> None:
    """What cannot be written is told, without a trace."""
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [INFERD, "version"], stdout=full, stderr=subprocess.PIPE, text=True, timeout=30, check=False
        )
    assert (done.returncode, done.stderr) == (1, "inferd: No space left on device\n")


def test_no_standard_output_is_no_trace(tmp_path: Path) -> None:
    """A closed standard output, as some service managers give, harms no table."""
    command = f"'{INFERD}' config --state '{tmp_path}' >&-"
    done = subprocess.run(command, shell=True, stderr=subprocess.PIPE, text=True, timeout=30, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_without_a_terminal_there_are_no_colours(inferd: Run, tmp_path: Path) -> None:
    """Tables in a pipe are plain text on whole lines without trailing blanks."""
    out = inferd("config", "--state", tmp_path / ("long" * 50)).out
    assert "\x1b" not in out
    assert str(tmp_path / ("long" * 50)) in out
    assert all(line == line.rstrip() for line in out.splitlines())


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("inferd m", "models"),
        ("inferd token ro", "rotate"),
        ("inferd bench --ra", "--rate"),
        ("inferd -", "--help"),
    ],
)
def test_shells_complete(words: str, found: str) -> None:
    """Commands, subcommands and options complete through click."""
    env = {**os.environ, "_INFERD_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
    done = subprocess.run([INFERD], env=env, capture_output=True, text=True, timeout=30, check=True)
    assert f"plain,{found}" in done.stdout.splitlines()


def test_ctrl_c_is_130_without_a_trace() -> None:
    """A command that is interrupted ends as shells expect."""
    waiting = "import inferd_agent.cli.version as v, signal, os; v.metadata.version = lambda _: os.kill(os.getpid(), 2)"
    heard = "signal.signal(signal.SIGINT, signal.default_int_handler)"  # shells ignore it for what runs behind them
    code = f"{waiting}\n{heard}\nfrom inferd_agent.cli import main; main(['version'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 128 + signal.SIGINT
    assert "Traceback" not in done.stderr


def test_a_bug_shows_its_trace(inferd: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """What nobody expected is not dressed up as a user's mistake."""
    monkeypatch.setattr("inferd_agent.cli.version.PARTS", None)
    with pytest.raises(TypeError):
        inferd("version")


def test_version_needs_no_engine(inferd: Run) -> None:
    """Versions come from the packages' metadata."""
    out = inferd("version").out
    assert out.startswith("inferd ")
    assert f"python {sys.version.split()[0]}" in out
    assert '"inferd": "' in inferd("version", "--json").out
