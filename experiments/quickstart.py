"""Explanation-guided few-shot training in a few minutes on a laptop's CPU.

    make demo

Pretrains an encoder on embedded Latin letters, trains RelationNet behind it plainly and guided by its own
explanations, compares both on seven domains, and draws what they look at. Ends with photographs: what a network with
ImageNet's weights looks at, by several methods. Everything goes to `runs/quickstart/`; what is there already is not
done again.
"""

import contextlib
import dataclasses
import time
from pathlib import Path

import jax

from jxai import data
from jxai.cli.explaining import explain
from jxai.cli.explaining.methods import Settings
from jxai.cli.explaining.network import load_network
from jxai.cli.explaining.picture_files import read_pictures
from jxai.cli.explaining.results import draw_sheet
from jxai.cli.fewshot import reproduce
from jxai.cli.fewshot.configs import TABLES
from jxai.cli.fewshot.pictures import draw_sheets, ink_table
from jxai.cli.running import command_line, folders

# Of the twenty photographs: a bull mastiff, strawberries, a yurt, a bald eagle.
_PHOTOGRAPHS = (0, 4, 8, 17)
_METHODS = (
    "integrated-gradients",
    "smooth-grad",
    "smooth-taylor",
    "grad-cam",
    "epsilon-plus",
    "epsilon-gamma-box",
)
_SETTINGS = Settings(num_roots=20, num_steps=20)  # a glance, not a measurement


@dataclasses.dataclass(frozen=True)
class Options:
    """Where results go, and how much is done."""

    folder: Path = Path("runs/quickstart")
    table: str = "letters-quick"
    """One of the tables."""
    episodes: int = 600
    """Of the evaluation, a domain."""
    domains: tuple[str, ...] = tuple(data.DOMAINS)
    photographs: bool = True
    """Whether photographs are explained too."""
    progress: bool = True


def _all_bits() -> contextlib.AbstractContextManager[None]:
    """Products of float32, as in `command_line.run(explains=True)`, but not for what is trained before."""
    if jax.config.jax_default_matmul_precision is not None:  # pyright: ignore[reportAttributeAccessIssue]
        return contextlib.nullcontext()
    return jax.default_matmul_precision("highest")


def draw_photographs(path: Path, *, progress: bool = True) -> None:
    """Draw four photographs explained by six methods, or say why there are none.

    Args:
        path: where the PNG goes; one that is there stays.
        progress: whether to show a progress bar.
    """
    if not path.exists():
        try:
            pictures = read_pictures(())
            network = load_network()
        except FileNotFoundError as error:
            print(f"no photographs: {error}")
            return
        chosen = explain.choose(_METHODS, _SETTINGS, network)
        shown = [pictures[index] for index in _PHOTOGRAPHS]
        with _all_bits():
            found = explain.explain(network, jax.random.key(0), shown, chosen, progress=progress)
        draw_sheet(found, chosen, path, class_names=network.class_names)
    print(f"photographs: {path}")


def main(options: Options) -> None:
    """Train, compare, draw; print the table and where everything is."""
    with folders.in_use(options.folder):
        demonstrate(options)


def demonstrate(options: Options) -> None:
    """As `main`, in a folder that nobody else writes in."""
    start = time.perf_counter()
    print(
        "Training RelationNet on Latin letters: plain and guided, 1-shot and 5-shot, with the same encoder."
    )
    chosen = reproduce.Options(
        table=options.table,
        episodes=options.episodes,
        targets=options.domains,
        runs=options.folder / "runs",
        results=options.folder,
        name="table",
        progress=options.progress,
    )
    table = TABLES[options.table]()
    text = reproduce.reproduce(table, chosen)
    runs = [job.folder(chosen) for job in reproduce.jobs(table, chosen) if job.config.shot == 5]
    sheets = [options.folder / "sheets" / folder.name for folder in runs]
    with _all_bits():
        for folder, out in zip(runs, sheets, strict=True):
            draw_sheets(folder, out, domains=options.domains, progress=options.progress)
        ink = ink_table(runs, domains=options.domains, episodes=2, progress=options.progress)
    text = (
        f"5-way accuracy in percent, mean ± 95 % interval; {options.episodes} episodes a domain, 15 queries a class:"
        f"\n\n{text}\n\nShare of absolute pixel relevance on ink, percent (5-shot):\n\n{ink}\n"
    )
    folders.write_whole(options.folder / "table.md", text)
    curves = options.folder / options.table / "table-curves-5shot.png"
    print(f"\n{text}\ntable:  {options.folder / 'table.md'}\ncurves: {curves}")
    for out in sheets:
        print(f"sheets: {out}/")
    if options.photographs:
        draw_photographs(options.folder / "photographs.png", progress=options.progress)
    print(f"{time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    command_line.run(main, Options)
