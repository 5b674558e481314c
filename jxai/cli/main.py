"""Finds a command by its name, and imports nothing of the others."""

import importlib
import os
import sys

from jxai import __version__, extras

COMMANDS = {
    "explain": (
        "explaining.explain",
        "pictures in, heat maps out: a page, sheets and arrays, by several methods",
    ),
    "explain-text": (
        "explaining.explain_text",
        "a prompt in, the words behind its next token out: in the terminal and as a page",
    ),
    "judge": ("judging.judge", "which explanation to trust: methods by metrics, with intervals"),
    "prepare": ("fewshot.prepare", "check a data set's files and store its pictures for quick reading"),
    "train": ("fewshot.train", "train a few-shot system, plain or guided by its explanations"),
    "evaluate": ("fewshot.evaluate", "accuracy of trained systems on episodes of any domain or folder"),
    "pictures": ("fewshot.pictures", "what a trained system looks at, episode by episode"),
    "reproduce": ("fewshot.reproduce", "train, evaluate and print a table of the papers or of the benchmark"),
}
"""Name of a command: its module in `jxai.cli`, and what it does."""


def main() -> None:
    """Run the command that `sys.argv` names, with the arguments after it."""
    try:
        _run()
        sys.stdout.flush()
    except BrokenPipeError:  # whoever reads has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(1) from None


def _run() -> None:
    name, *arguments = sys.argv[1:] or ["--help"]
    if name in ("-h", "--help"):
        print(_help())
    elif name == "--version":
        print(f"jxai {__version__}")
    elif name in COMMANDS:
        sys.argv = [f"jxai {name}", *arguments]
        try:
            with extras.named():
                importlib.import_module(f"jxai.cli.{COMMANDS[name][0]}").command()
        except ModuleNotFoundError as error:
            if error.name not in extras.EXTRAS:
                raise
            print(error, file=sys.stderr)
            raise SystemExit(2) from error
    else:
        print(
            f"expected a command among {', '.join(COMMANDS)}, got {name!r}: `jxai --help` says what each does",
            file=sys.stderr,
        )
        raise SystemExit(2)


def _help() -> str:
    lines = [f"  {name:<14}{about}" for name, (_, about) in COMMANDS.items()]
    return "\n".join(
        [
            "Explanations as pure functions in JAX, and training that uses them.",
            "",
            "  jxai explain cat.jpg --out heatmaps",
            "",
            "Commands (`jxai COMMAND --help` lists what can be chosen):",
            *lines,
        ]
    )
