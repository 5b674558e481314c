"""Prepare a data set once: check its files, and write its pictures as array records that are read at random.

    jxai prepare CUB --manual-dir /data/cub
    jxai prepare tfds:oxford_flowers102 --short-side 256

Minutes to an hour, most of it to decode every picture once; docs/data.md says what each data set needs and where to
put it. Called again, it says what is there. The result is in $JXAI_DATA, or in the user's cache.
"""

import dataclasses
from pathlib import Path
from typing import Annotated

import tyro

from jxai import data
from jxai.checks import printable
from jxai.cli.running import command_line


@dataclasses.dataclass(frozen=True)
class Options:
    """What to prepare."""

    name: Annotated[str, tyro.conf.Positional]
    """A domain: miniImageNet, CUB, Cars, Places, Plantae, or tfds: and a data set of TensorFlow Datasets."""
    manual_dir: Path | None = None
    """Where its files are; by default manual/NAME in $JXAI_DATA."""
    short_side: int | None = None
    """Store larger pictures with the shorter side of this many pixels, as JPEG; by default as they are."""
    skip_corrupt: bool = False
    """Leave out pictures that cannot be decoded, and say how many and which."""
    progress: bool = True


def main(options: Options) -> None:
    """Prepare a data set, and print what it holds."""
    where = {"manual_dir": options.manual_dir, "short_side": options.short_side}
    prepared = data.prepare(
        options.name, **where, skip_corrupt=options.skip_corrupt, progress=options.progress or "lines"
    )
    source = data.load(options.name, **where)
    splits = {split: source.restrict(split) for split in data.SPLITS}
    print(f"{options.name} in {prepared.directory}")
    for split, part in splits.items():
        print(f"  {split:<12}{len(part.class_names):>6} classes{len(part):>10} pictures")
    print(f"  fingerprint {source.fingerprint}")
    if prepared.skipped:
        print(f"  left out, for they cannot be decoded: {len(prepared.skipped)} pictures")
        for name in prepared.skipped:
            print(f"    {printable(name)}")


def command() -> None:
    """Read the command line, then `main`."""
    command_line.run(main, Options, about=__doc__)
