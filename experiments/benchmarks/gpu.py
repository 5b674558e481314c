"""Everything that is to be known of an accelerator, in one command: eight minutes on one H100.

    python -m experiments.benchmarks.gpu                   # or: make gpu
    python -m experiments.benchmarks.gpu --only right lrp
    python -m experiments.benchmarks.gpu --dry             # tiny sizes on any device: shows that all of it runs
    python -m experiments.benchmarks.gpu --table           # of what is stored, nothing is run

Each section (`sections/`) runs in a process of its own within its own time limit, and writes its JSON row by row into
a folder of the card's name, so that being cut off loses the part under way. Parts that are there already, measured
with this code, are not run again: several short leases add up. What fails, runs out of memory or time, or lacks its
rival (docs/pods.md says how to bring torch, zennit and captum) is named in the table, and the rest goes on.

Needs JAX, Flax and optax; no package of the command line's or the data's.
"""

import argparse
import contextlib
import dataclasses
import hashlib
import importlib.metadata
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments.benchmarks.sections import SECTIONS, parts
from experiments.benchmarks.sections.table import DONE, complete, slug, table, text

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
STORED = HERE.parent / "results" / "gpu"
_LEAST_SECONDS = 15  # under which a section is not begun
_CUT_OFF = "cut off"


@dataclasses.dataclass(frozen=True)
class Options:
    """What is run."""

    only: Sequence[str] = ()
    """Some sections by name, in this order; all by default."""
    minutes: float = 8.0
    """Of the whole run; what has no time left is named."""
    dry: bool = False
    """Tiny sizes, on whatever device there is, into a folder that is thrown away unless `results` is given."""
    again: bool = False
    """Run also what is stored."""
    older: bool = False
    """Count as stored what older code measured."""
    table: bool = False
    """Run nothing and print the tables of what is stored."""
    results: Path | None = None
    """Where the folders of cards are; experiments/results/gpu by default, from which other folders begin."""


def code_digest() -> str:
    """A checksum of the sources that are measured and that measure."""
    total = hashlib.sha256()
    for folder in (ROOT / "jxai", HERE):
        for path in sorted(folder.rglob("*.py")):
            total.update(path.relative_to(ROOT).as_posix().encode() + b"\0" + path.read_bytes())
    return total.hexdigest()[:12]


# In a section's process.


def machine() -> dict[str, Any]:
    """The device and the versions, as JAX sees them; card and driver as NVIDIA's tool has them."""
    import jax

    device = jax.devices()[0]
    found = {
        "platform": device.platform,
        "device": device.device_kind,
        "count": jax.device_count(),
        "jax": jax.__version__,
        "jaxlib": importlib.metadata.version("jaxlib"),
        "python": sys.version.split()[0],
        "cores": os.cpu_count(),
    }
    if shutil.which("nvidia-smi"):
        query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
        told = subprocess.run(query, capture_output=True, text=True, check=False).stdout.strip().splitlines()
        if told:
            found["card"], found["driver"], found["memory"] = (part.strip() for part in told[0].split(","))
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        found["torch"] = importlib.metadata.version("torch")
    return found


def measure(name: str, path: Path, *, dry: bool) -> None:
    """Run the parts of a section that are not in its report yet, and write it after every row.

    Args:
        name: of the section.
        path: of its JSON, begun by the driver.
        dry: tiny sizes.
    """
    report = json.loads(path.read_text())
    report["machine"] = machine()
    chosen = parts(name, dry=dry)
    # In the parts' order, without what this code no longer has.
    report["parts"] = {part: report["parts"].get(part, "not run") for part in chosen}
    for part, run in chosen.items():
        if report["parts"][part] == DONE:
            continue
        report["results"] = [one for one in report["results"] if one["part"] != part]
        report["parts"][part] = _CUT_OFF
        start = time.perf_counter()
        try:
            for one in run():
                numbers = {key: one.get(key) for key in ("value", "rival_value", "ratio")}
                one |= {key: None for key, x in numbers.items() if x is not None and not math.isfinite(x)}
                report["results"].append({**one, "part": part})
                print(f"  {text(one)}", flush=True)
                write(path, report)
        except ModuleNotFoundError as error:
            report["parts"][part] = f"skipped: {error.name or error} is not installed"
        except Exception as error:
            report["parts"][part] = f"failed: {type(error).__name__}: {error}"[:400]
        else:
            report["parts"][part] = DONE
        if report["parts"][part] != DONE:
            print(f"  {part}: {report['parts'][part]}", flush=True)
        report["seconds"][part] = round(time.perf_counter() - start, 1)
        write(path, report)


def write(path: Path, report: dict[str, Any]) -> None:
    """Put a report where it is whole at every moment."""
    new = path.with_suffix(".new")
    new.write_text(json.dumps(report, indent=1) + "\n")
    new.replace(path)


# The driver, which touches no device.


def child(*arguments: str) -> list[str]:
    """The command of a process of this script."""
    return [sys.executable, "-m", "experiments.benchmarks.gpu", *arguments]


def environment(*, dry: bool = False) -> dict[str, str]:
    """Of a section's process: this working tree, and memory taken as it is needed, since rivals share the card."""
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    defaults = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false", "TF_CPP_MIN_LOG_LEVEL": "2"}
    if dry:  # does it run: programs compiled quickly; PyTorch's threads wait for one another on busy cores
        defaults |= {"OMP_NUM_THREADS": "1", "XLA_FLAGS": "--xla_backend_optimization_level=0"}
    return defaults | os.environ | {"PYTHONPATH": os.pathsep.join(paths), "PYTHONUNBUFFERED": "1"}


def probe() -> dict[str, Any]:
    """What `machine` says, from a process of its own."""
    asked = subprocess.run(child("--machine"), env=environment(), capture_output=True, text=True, check=False)
    if asked.returncode:
        raise SystemExit(f"expected JAX to find a device, got:\n{asked.stderr.strip()[-2000:]}")
    return json.loads(asked.stdout.splitlines()[-1])


def begin(path: Path, name: str, options: Options) -> dict[str, Any]:
    """A section's report as it is stored; a new one where it is missing, of other code, or unwanted."""
    report: dict[str, Any] = {
        "section": name,
        "code": code_digest(),
        "parts": {},
        "seconds": {},
        "results": [],
    }
    known = STORED / path.parent.name / path.name
    found = path if path.exists() or options.dry else known
    if found.exists() and not options.again:
        stored = json.loads(found.read_text())
        if stored["code"] == report["code"] or options.older:
            report = stored
    write(path, report)
    return report


class Running:
    """A section in a process of its own.

    Attributes:
        name: of the section.
        limit: seconds that it may take.
    """

    def __init__(self, name: str, path: Path, *, limit: float, dry: bool) -> None:
        self.name, self.limit = name, limit
        self._end = time.monotonic() + limit
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115  (closed in `end`)
        arguments = ["--section", name, "--json", str(path), *(["--dry"] if dry else [])]
        self._process = subprocess.Popen(
            child(*arguments), env=environment(dry=dry), stderr=self._errors, start_new_session=True
        )

    @property
    def over(self) -> bool:
        """Whether it has ended or must."""
        return self._process.poll() is not None or time.monotonic() > self._end

    def end(self) -> str:
        """End it if it has not; why it did not come to its end, or nothing."""
        status = self._process.poll()
        # Its own processes too, as pytest's.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        with self._errors:
            self._errors.seek(0)
            said = self._errors.read().strip()
        if status == 0:
            return ""
        if status is None:
            return f"{_CUT_OFF} after {self.limit:.0f} s"
        print(said[-3000:], file=sys.stderr)
        how = signal.Signals(-status).name if status < 0 else f"status {status}"
        return f"ended with {how}: {said.splitlines()[-1][:300] if said else 'no message'}"


def round_of(names: Sequence[str], folder: Path, options: Options, end: float, *, whole: bool) -> None:
    """Run sections one after the other, two at once with `dry`.

    Args:
        names: of the sections.
        folder: of their reports.
        options: of the run.
        end: moment of the monotonic clock.
        whole: a section may take what is left, not its own time alone.
    """
    waiting, running = list(names), []
    try:
        while waiting or running:
            while waiting and len(running) < (2 if options.dry else 1):
                name, left = waiting.pop(0), end - time.monotonic()
                path, section = folder / f"{name}.json", SECTIONS[name]
                if left < _LEAST_SECONDS:
                    note(path, "no time left")
                    continue
                print(f"\n== {section.title} ({name})", flush=True)
                limit = left if whole else min(section.seconds, left)
                running.append(Running(name, path, limit=limit, dry=options.dry))
            time.sleep(0.1)
            for one in [one for one in running if one.over]:
                running.remove(one)
                note(folder / f"{one.name}.json", one.end())
                (folder / "table.md").write_text(table(folder, code_digest()) + "\n")
    finally:
        for one in running:
            one.end()


def note(path: Path, ended: str) -> None:
    """Write why a section did not come to its end into its report, or that it did."""
    report = json.loads(path.read_text())
    report.pop("ended", None)
    if ended:
        print(f"== {path.stem}: {ended}", flush=True)
        report["ended"] = ended
    write(path, report)


def measured(names: Sequence[str], folder: Path, options: Options, end: float) -> list[str]:
    """Run sections until a moment of the monotonic clock; those that are not complete then."""
    for name in names:
        begin(folder / f"{name}.json", name, options)

    def missing(state: str = "") -> list[str]:
        reports = {name: json.loads((folder / f"{name}.json").read_text()) for name in names}
        return [
            name
            for name, report in reports.items()
            if not complete(report) and report.get("ended", "").startswith(state)
        ]

    round_of(missing(), folder, options, end, whole=options.dry)
    # What was cut off has what the others left.
    round_of(missing(_CUT_OFF), folder, options, end, whole=True)
    return missing()


def main(options: Options) -> None:
    """Run, store, print the table; ends with status 1 where a section did not come to its end."""
    if unknown := set(options.only) - SECTIONS.keys():
        raise SystemExit(
            f"expected sections among {', '.join(SECTIONS)}, got {', '.join(sorted(unknown))}: choose of these"
        )
    stored = options.results or STORED
    if options.table:
        folders = sorted(path.parent for path in stored.glob("*/table.md"))
        if not folders:
            raise SystemExit(f"expected results below {stored}, got none: run gpu.py first")
        print("\n\n".join(table(folder, code_digest()) for folder in folders))
        return
    end = time.monotonic() + 60 * options.minutes
    found = probe()
    if found["platform"] == "cpu" and not options.dry:
        raise SystemExit(
            f"expected an accelerator, got {found['device']} alone (jax {found['jax']}): run this where JAX sees "
            "a GPU (pip install 'jax[cuda13]'), or with --dry, which runs tiny sizes on any device"
        )
    # A job that is ended ends the section's process too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    with tempfile.TemporaryDirectory() as temporary:
        if options.dry and options.results is None:
            stored = Path(temporary)
        folder = stored / slug(found.get("card", found["device"]))
        folder.mkdir(parents=True, exist_ok=True)
        missing = measured(list(dict.fromkeys(options.only or SECTIONS)), folder, options, end)
        words = table(folder, code_digest())
        (folder / "table.md").write_text(words + "\n")
        print(f"\n{words}")
    if missing:
        sys.exit(f"\nexpected every part to end well, see the lines below the tables of {', '.join(missing)}")


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line; `argparse`, since the machines that lend accelerators have little else."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--only", nargs="+", default=(), metavar="SECTION", help=", ".join(SECTIONS))
    parser.add_argument("--minutes", type=float, default=8.0, help="of the whole run (8)")
    parser.add_argument("--dry", action="store_true", help="tiny sizes on any device, thrown away")
    parser.add_argument("--again", action="store_true", help="run also what is stored")
    parser.add_argument("--older", action="store_true", help="count as stored what older code measured")
    parser.add_argument("--table", action="store_true", help="run nothing, print what is stored")
    parser.add_argument("--results", type=Path, help="folder of the cards' folders")
    # Of the driver's own processes.
    parser.add_argument("--section", choices=SECTIONS, help=argparse.SUPPRESS)
    parser.add_argument("--json", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--machine", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    given = parse()
    if given.machine:
        print(json.dumps(machine()))
    elif given.section:
        measure(given.section, given.json, dry=given.dry)
    else:
        fields = [field.name for field in dataclasses.fields(Options)]
        main(Options(**{name: getattr(given, name) for name in fields}))
