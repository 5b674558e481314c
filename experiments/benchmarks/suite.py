"""Every benchmark, one after the other, each beside its rival: results by machine, and one table of what has a goal.

    python -m experiments.benchmarks.suite                   # an hour on two cores; nothing else should run
    python -m experiments.benchmarks.suite --only lrp heads
    python -m experiments.benchmarks.suite --table           # of what is stored, nothing is run
    python -m experiments.benchmarks.suite --quick           # tiny sizes: shows that they run, stores nothing

Each benchmark runs in a process of its own and leaves `results/benchmarks/MACHINE/NAME.json`; a benchmark that fails,
as for want of PyTorch, is named and the others go on. The table is written beside the JSON files.
"""

import dataclasses
import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import tyro

from jxai.errors import InputError

HERE = Path(__file__).resolve().parent
_PICTURE = HERE.parents[1] / "docs" / "pictures" / "growth.png"

# Arguments of the full measurement, and of one that is over in seconds.
BENCHMARKS: dict[str, tuple[str, str]] = {
    "lrp": ("", "--resnet-batch 1 --vgg-batch 1 --side 32 --repeats 1 --memory-batches 1"),
    "attribution": (
        "--repeats 2 --stride 15",
        "--sections cost memory --images 1 --side 32 --repeats 1 --num-steps 2 --taylor-roots 2 --stride 8 "
        "--memory-chunks 2 --memory-roots 2",
    ),
    "guided_step": ("--encoder", "--side 4 --channels 4 --repeats 1 --task.shot 1 --task.queries 1"),
    "heads": ("", "--sections heads --channels 8 --repeats 1 --task.shot 1 --task.queries 1"),
    "evaluation": (
        "--seconds 2",
        "--features conv4np --heads prototype graph --images 100 --episodes 8 --seconds 0 --queries 1 --shot 1",
    ),
    "input_pipeline": (
        "--step-seconds 0.1",
        "--sizes 16 --augment crop-erase --threads 1 --workers --seconds 0.01 --steps 0",
    ),
    "growth": (
        f"--figure {shlex.quote(str(_PICTURE))}",
        "--roots 1 --classes 2 --sides 32 --ways 2 --shots 1 --queries 1 --devices 1 2 --images 1 --side 32 "
        "--num-steps 2 --in-flight 2 --channels 4 --repeats 1",
    ),
    "together": ("", "--seeds 2 --steps 2"),
    "language_model": ("", "--tokens 8 --remat-tokens 16 --repeats 1"),
    "guidance": ("", "--images 2 --side 32 --part 1 --repeats 1"),
    "methods": ("", "--images 1 --repeats 1 --only input-x-gradient"),
    "convolutions": ("", "--sides 4 --channels 4 --images 1 --repeats 1"),
    "planning": ("", "--depth 1 --chain 2 --no-resnet --repeats 1"),
    "quantus": (
        "",
        "--images 2 --side 32 --num-steps 2 --num-samples 1 --num-sets 2 --patch 16 --methods gradient --metrics "
        "pixel_flipping sparseness",
    ),
    "start_up": ("", "--repeats 1 --no-guided-step"),
}


@dataclasses.dataclass(frozen=True)
class Options:
    """What to run."""

    only: tuple[str, ...] = ()
    """Some benchmarks; all by default."""
    quick: bool = False
    """Tiny sizes, in a folder that is thrown away."""
    table: bool = False
    """Run nothing and print the table of what is stored."""
    results: Path = HERE.parent / "results" / "benchmarks"
    """Where the results go, in a folder of the machine's name."""


def run(name: str, arguments: str, path: Path) -> bool:
    """Run a benchmark in a process of its own; whether it came to its end."""
    command = [
        sys.executable,
        "-m",
        f"experiments.benchmarks.{name}",
        *shlex.split(arguments),
        "--json",
        str(path),
    ]
    print(f"\n== {name}: python -m experiments.benchmarks.{name} {arguments}".rstrip(), flush=True)
    paths = [str(HERE.parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}  # started from any folder
    status = subprocess.run(command, check=False, env=environment).returncode
    if status:
        print(f"== {name} ended with status {status}", file=sys.stderr)
    return status == 0


def store(path: Path, results: Path) -> Path:
    """Move a report into the folder of its machine; the folder."""
    report = json.loads(path.read_text())
    # Versions come after the machine, and are the file's, not the folder's.
    machine = re.sub(r"[^a-z0-9]+", "-", report["machine"].split(", jax")[0].lower()).strip("-")
    folder = results / machine
    folder.mkdir(parents=True, exist_ok=True)
    (folder / path.name).write_text(path.read_text())
    return folder


def table(folder: Path) -> str:
    """What has a goal, of every stored benchmark of a machine, as Markdown.

    Args:
        folder: of JSON files.

    Returns:
        A table: benchmark, what, measured, goal, and by how much it is met (more than 1 is better) or missed.
    """
    reports = {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}
    lines = ["| benchmark | what | measured | goal | goal reached |", "| --- | --- | ---: | --- | ---: |"]
    for name, report in reports.items():
        for result in report["results"]:
            if result["goal"] is None:
                continue
            share = reached(result["value"], result["goal"])
            verdict = "" if share is None else f"{share:.2f}" if share >= 1 else f"**{share:.2f}**"
            value = f"{result['value']:.4g} {result['unit']}".strip()
            lines.append(f"| {name} | {result['name']} | {value} | {result['goal']} | {verdict} |")
    machines = sorted({report["machine"] for report in reports.values()})
    return "\n".join([*(f"{machine}  " for machine in machines), "", *lines])


def reached(value: float, goal: str) -> float | None:
    """The share of a goal that a value reaches, 1 or more if it is met; None where the goal has no number."""
    found = re.match(r"(at most|at least|more than) ([0-9.e+-]+)", goal)
    if found is None or not value:
        return None
    wanted = float(found[2])
    return wanted / value if found[1] == "at most" else value / wanted


def main(options: Options) -> None:
    """Run, store, print the table."""
    if unknown := set(options.only) - BENCHMARKS.keys():
        raise InputError(
            f"expected benchmarks among {', '.join(BENCHMARKS)}, got {', '.join(sorted(unknown))}: choose of these"
        )
    names: Sequence[str] = () if options.table else options.only or tuple(BENCHMARKS)
    failed = []
    with tempfile.TemporaryDirectory() as temporary:
        results = Path(temporary) if options.quick else options.results
        for name in names:
            path = Path(temporary, f"{name}.json")
            if run(name, BENCHMARKS[name][options.quick], path):
                store(path, results)
            else:
                failed.append(name)
        # A new folder of results is not there yet where nothing came to its end.
        machines = [path for path in results.iterdir() if path.is_dir()] if results.is_dir() else []
        for folder in sorted(machines):
            text = table(folder)
            (folder / "table.md").write_text(text + "\n")
            print(f"\n{text}")
    if options.table and not machines:
        sys.exit(f"expected results below {results}, got none: run the benchmarks first")
    if failed:
        sys.exit(f"expected every benchmark to end well, these did not: {', '.join(failed)}: see above")


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
