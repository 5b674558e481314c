"""Everything that is to be known of an accelerator, in one command: eight minutes on one H100.

    python experiments/benchmarks/gpu.py                   # or: make gpu
    python experiments/benchmarks/gpu.py --only right lrp
    python experiments/benchmarks/gpu.py --dry             # tiny sizes on any device: shows that all of it runs
    python experiments/benchmarks/gpu.py --table           # of what is stored, nothing is run

Each section (`sections/`) runs in a process of its own within its own time limit, and writes its JSON row by row into
a folder of the card's name, so that being cut off loses the part under way. Parts that are there already, measured
with this code, are not run again: several short leases add up. What fails, runs out of memory or time, or lacks its
rival (docs/pods.md says how to bring torch, zennit and captum) is named in the table, and the rest goes on.

Needs JAX, Flax and optax; no package of the command line's or the data's.
"""

import argparse
import dataclasses
import hashlib
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sections import SECTIONS, Row, parts

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
STORED = HERE.parent / "results" / "gpu"
_LEAST_SECONDS = 15  # under which a section is not begun
_DONE = "done"


@dataclasses.dataclass(frozen=True)
class Options:
    """What is run."""

    only: tuple[str, ...] = ()
    """Some sections, by name; all by default."""
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


def code() -> str:
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
    import jaxlib

    device = jax.devices()[0]
    found = {
        "platform": device.platform,
        "device": device.device_kind,
        "count": jax.device_count(),
        "jax": jax.__version__,
        "jaxlib": jaxlib.__version__,
        "python": sys.version.split()[0],
        "cores": os.cpu_count(),
    }
    if shutil.which("nvidia-smi"):
        query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
        told = subprocess.run(query, capture_output=True, text=True, check=False).stdout.strip().splitlines()
        if told:
            found["card"], found["driver"], found["memory"] = (part.strip() for part in told[0].split(","))
    try:
        import torch  # pyright: ignore[reportMissingImports]
    except ImportError:
        pass
    else:
        found["torch"] = torch.__version__
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
        if report["parts"][part] == _DONE:
            continue
        report["results"] = [one for one in report["results"] if one["part"] != part]
        report["parts"][part] = "cut off"
        start = time.perf_counter()
        try:
            for one in run():
                if not math.isfinite(one["value"]):
                    one |= {"value": None, "ratio": None}
                report["results"].append({**one, "part": part})
                print(f"  {text(one)}", flush=True)
                write(path, report)
        except ModuleNotFoundError as error:
            report["parts"][part] = f"skipped: {error.name or error} is not installed"
        except Exception as error:
            report["parts"][part] = f"failed: {type(error).__name__}: {error}"[:400]
        else:
            report["parts"][part] = _DONE
        if report["parts"][part] != _DONE:
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
    return [sys.executable, str(HERE / "gpu.py"), *arguments]


def environment() -> dict[str, str]:
    """Of a section's process: this working tree, and memory taken as it is needed, since rivals share the card."""
    paths = [str(ROOT), str(HERE.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    defaults = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false", "TF_CPP_MIN_LOG_LEVEL": "2"}
    return defaults | os.environ | {"PYTHONPATH": os.pathsep.join(paths), "PYTHONUNBUFFERED": "1"}


def probe() -> dict[str, Any]:
    """What `machine` says, from a process of its own."""
    asked = subprocess.run(child("--machine"), env=environment(), capture_output=True, text=True, check=False)
    if asked.returncode:
        raise SystemExit(f"expected JAX to find a device, got:\n{asked.stderr.strip()[-2000:]}")
    return json.loads(asked.stdout.splitlines()[-1])


def begin(path: Path, name: str, options: Options) -> dict[str, Any]:
    """A section's report, as it is stored, or a new one where it is missing, of other code, or unwanted."""
    report: dict[str, Any] = {"section": name, "code": code(), "parts": {}, "seconds": {}, "results": []}
    if path.exists() and not options.again:
        stored = json.loads(path.read_text())
        if stored["code"] == report["code"] or options.older:
            stored.pop("ended", None)
            return stored
    return report


def complete(report: dict[str, Any]) -> bool:
    """Whether all parts have come to their ends."""
    return bool(report["parts"]) and all(state == _DONE for state in report["parts"].values())


def run(name: str, path: Path, *, limit: float, dry: bool) -> str | None:
    """Run a section in a process of its own.

    Args:
        name: of the section.
        path: of its JSON.
        limit: seconds.
        dry: tiny sizes.

    Returns:
        Why it did not come to its end, or None.
    """
    arguments = ["--section", name, "--json", str(path), *(["--dry"] if dry else [])]
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            child(*arguments), env=environment(), stderr=errors, start_new_session=True
        )
        try:
            status = process.wait(limit)
        except subprocess.TimeoutExpired:
            return f"cut off after {limit:.0f} s"
        finally:
            # Its own processes too, as of compilers; also when this one is ended.
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        if status == 0:
            return None
        errors.seek(0)
        said = errors.read().strip()
        print(said[-3000:], file=sys.stderr)
        ended = signal.Signals(-status).name if status < 0 else f"status {status}"
        return f"ended with {ended}: {said.splitlines()[-1][:300] if said else 'no message'}"


def main(options: Options) -> int:
    """Run, store, print the table; the number of sections that did not come to their ends."""
    if unknown := set(options.only) - SECTIONS.keys():
        raise SystemExit(
            f"expected sections among {', '.join(SECTIONS)}, got {', '.join(sorted(unknown))}: choose of these"
        )
    if options.table:
        folders = sorted(path.parent for path in (options.results or STORED).glob("*/table.md"))
        if not folders:
            raise SystemExit(
                f"expected results below {options.results or STORED}, got none: run gpu.py first"
            )
        print("\n\n".join(table(folder) for folder in folders))
        return 0
    start, found = time.monotonic(), probe()
    if found["platform"] == "cpu" and not options.dry:
        raise SystemExit(
            f"expected an accelerator, got {found['device']} alone (jax {found['jax']}): run this where JAX sees a GPU "
            "(pip install 'jax[cuda13]'), or with --dry, which runs tiny sizes on any device"
        )
    with tempfile.TemporaryDirectory() as temporary:
        results = options.results or (Path(temporary) if options.dry else STORED)
        folder = results / slug(found.get("card", found["device"]))
        folder.mkdir(parents=True, exist_ok=True)
        failed = 0
        for name in [name for name in SECTIONS if name in (options.only or SECTIONS)]:
            path = folder / f"{name}.json"
            known = STORED / folder.name / path.name
            if not path.exists() and not options.dry and known.exists():
                shutil.copy(known, path)
            report = begin(path, name, options)
            section = SECTIONS[name]
            if complete(report):
                print(f"\n== {section.title}: stored, of this code", flush=True)
                continue
            left = 60 * options.minutes - (time.monotonic() - start)
            print(f"\n== {section.title} ({name})", flush=True)
            write(path, report)
            if left < _LEAST_SECONDS:
                ended = "no time left"
            else:
                limit = left if options.dry else min(section.seconds, left)
                ended = run(name, path, limit=limit, dry=options.dry)
            report = json.loads(path.read_text())
            if ended is not None:
                print(f"== {name}: {ended}", flush=True)
                report["ended"] = ended
                write(path, report)
            failed += not complete(report)
            (folder / "table.md").write_text(table(folder) + "\n")
        text = table(folder)
        (folder / "table.md").write_text(text + "\n")
        print(f"\n{text}")
    return failed


# What is read.


def slug(words: str) -> str:
    """Words as a folder's name."""
    return re.sub(r"[^a-z0-9]+", "-", words.lower()).strip("-")


def reached(one: Row) -> bool | None:
    """Whether a row's goal is; None where it has none or no number."""
    value = one["ratio"] if "ratio" in one else one["value"]
    if one["goal"] is None or value is None:
        return None
    bound = float(one["goal"].rsplit(maxsplit=1)[1])
    return value <= bound if one["goal"].startswith("at most") else value >= bound


def quantity(value: float | None, unit: str) -> str:
    """A number with its unit; seconds below one as milliseconds."""
    if value is None:
        return "not finite"
    if unit.split(" ")[0] == "s" and value < 1:
        value, unit = 1e3 * value, f"m{unit}"
    return f"{value:.3g} {unit}".rstrip()


def cells(one: Row) -> list[str]:
    """What, measured, rival, ratio, goal, reached."""
    what = one["name"] if one["precision"] is None else f"{one['name']} ({one['precision']})"
    rival = f"{one['rival']} {quantity(one['rival_value'], one['unit'])}" if "rival" in one else ""
    ratio = f"{one['ratio']:.2f}" if one.get("ratio") is not None else ""
    verdict = {None: "", True: "yes", False: "**no**"}[reached(one)]
    return [what, quantity(one["value"], one["unit"]), rival, ratio, one["goal"] or "", verdict]


def text(one: Row) -> str:
    """A row on a line of a terminal."""
    return " | ".join(cell for cell in cells(one) if cell)


def table(folder: Path) -> str:
    """All that is stored of a card.

    Args:
        folder: of its JSON files.

    Returns:
        Markdown.
    """
    lines: list[str] = []
    reports = {name: folder / f"{name}.json" for name in SECTIONS}
    stored = {name: json.loads(path.read_text()) for name, path in reports.items() if path.exists()}
    current = code()
    for name, report in stored.items():
        lines += ["", f"**{SECTIONS[name].title}**" + (f" ({where(report)})" if "machine" in report else "")]
        if report["code"] != current:
            lines[-1] += ", measured with older code"
        if report["results"]:
            lines += ["", "| what | measured | rival, same run | times | goal | reached |"]
            lines.append("| --- | ---: | ---: | ---: | --- | --- |")
            lines += ["| " + " | ".join(cells(one)) + " |" for one in report["results"]]
        missing = [f"{part}: {state}" for part, state in report["parts"].items() if state != _DONE]
        if "ended" in report:
            missing.append(report["ended"])
        lines += ["", *(f"- {one}" for one in missing)] if missing else []
    goals = [reached(one) for report in stored.values() for one in report["results"]]
    known = [one for one in goals if one is not None]
    return "\n".join([f"{sum(known)} of {len(known)} goals reached on {folder.name}.", *lines])


def where(report: dict[str, Any]) -> str:
    """The machine of a report, in words."""
    told = report["machine"]
    words = [told.get("card", told["device"])]
    words += [f"driver {told['driver']}"] if "driver" in told else []
    words += [f"jax {told['jax']}"] + ([f"torch {told['torch']}"] if "torch" in told else [])
    return ", ".join([*words, f"code {report['code']}"])


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
        names = [field.name for field in dataclasses.fields(Options)]
        chosen = {name: getattr(given, name) for name in names}
        sys.exit(1 if main(Options(**{**chosen, "only": tuple(given.only)})) else 0)
