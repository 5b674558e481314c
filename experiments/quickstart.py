"""What jxai is for, in a few minutes on a laptop's CPU.

    make demo

First photographs: what a network with ImageNet's weights looks at, by three methods, as a page. Then few-shot
learning: an encoder is trained on embedded Latin letters, cross attention behind it learns to tell five classes apart
by one example each, plainly and guided by its own explanations, and both are compared on seven domains. Everything
goes to `runs/quickstart/`; what is there already is not done again.
"""

import contextlib
import dataclasses
import time
from pathlib import Path

import jax

from jxai import data
from jxai.checks import printable
from jxai.cli.explaining import explain
from jxai.cli.explaining.methods import Settings
from jxai.cli.explaining.network import load_network
from jxai.cli.explaining.picture_files import read_pictures
from jxai.cli.explaining.results import names_of_files, write
from jxai.cli.fewshot import reproduce
from jxai.cli.fewshot.configs import TABLES, Table
from jxai.cli.fewshot.pictures import draw_sheets
from jxai.cli.fewshot.tables import Scores
from jxai.cli.running import command_line, folders
from jxai.intervals import mean_and_interval

# Of the twenty photographs: a bull mastiff, strawberries, a yurt, a bald eagle.
_PHOTOGRAPHS = (0, 4, 8, 17)
_METHODS = ("smooth-taylor", "grad-cam", "epsilon-plus")
_SETTINGS = Settings(num_roots=10)  # a glance, not a measurement


@dataclasses.dataclass(frozen=True)
class Options:
    """Where results go, and how much is done."""

    folder: Path = Path("runs/quickstart")
    table: str = "letters-quick"
    """One of the tables."""
    plain: str = "cross-attention"
    """The row that is trained plainly, and guided."""
    shot: int = 1
    """Labeled pictures a class."""
    episodes: int = 200
    """Of the evaluation, a domain."""
    domains: tuple[str, ...] = tuple(data.DOMAINS)
    photographs: bool = True
    """Whether photographs are explained too."""
    progress: bool = True


def explain_photographs(folder: Path, *, progress: bool = True) -> None:
    """Explain four photographs by three methods, or say why there are none; print where the page is.

    Args:
        folder: where the page, a sheet and the arrays go; those that are there stay.
        progress: whether to show a progress bar.
    """
    names = names_of_files(len(_PHOTOGRAPHS))
    if not all((folder / name).exists() for name in names):
        print("Photographs: what EfficientNet-Lite0 looks at, by three methods.")
        try:
            pictures = read_pictures(())
            network = load_network()
        except FileNotFoundError as error:
            print(f"no photographs: {error}")
            return
        chosen = explain.choose(_METHODS, _SETTINGS, network)
        shown = [pictures[index] for index in _PHOTOGRAPHS]
        key = jax.random.key(0)
        with _all_bits():
            found = explain.explain(network, key, shown, chosen, progress=progress or "lines")
        write(network, found, chosen, folder, on_page=len(shown))
    page = (folder / "index.html").resolve().as_uri()
    print(f"Photographs: {page} (a page for a browser), {folder / 'sheet-1.png'}")


def _all_bits() -> contextlib.AbstractContextManager[None]:
    """Products of float32, as in `command_line.run(explains=True)`, but not for what is trained before."""
    if jax.config.jax_default_matmul_precision is not None:  # pyright: ignore[reportAttributeAccessIssue]
        return contextlib.nullcontext()
    return jax.default_matmul_precision("highest")


def main(options: Options) -> None:
    """Explain, train, compare, draw; print the table and where everything is."""
    start = time.perf_counter()
    with folders.in_use(options.folder):
        if options.photographs:
            explain_photographs(options.folder / "photographs", progress=options.progress)
        train_and_compare(options)
    print(f"{time.perf_counter() - start:.0f} s")


def train_and_compare(options: Options) -> None:
    """Train plainly and guided, compare on every domain, draw what both look at; print what it shows."""
    table = TABLES[options.table]()
    chosen = reproduce.Options(
        table=options.table,
        systems=(options.plain, f"{options.plain}-guided"),
        shots=(options.shot,),
        episodes=options.episodes,
        targets=options.domains,
        runs=options.folder / "runs",
        results=options.folder,
        name="table",
        progress=options.progress,
    )
    print(
        f"Few-shot learning: {options.plain}, plain and guided, {options.shot}-shot, on Latin letters, seed 0.",
        flush=True,
    )
    text = reproduce.reproduce(table, chosen)
    runs = [job.folder(chosen) for job in reproduce.jobs(table, chosen)]
    sheets = [options.folder / "sheets" / run.name for run in runs]
    with _all_bits():
        for run, out in zip(runs, sheets, strict=True):
            if not all((out / f"{name}.png").exists() for name in options.domains[1:3]):
                draw_sheets(run, out, domains=options.domains[1:3], progress=options.progress or "lines")
    text = (
        "Accuracy in percent, mean ± 95 % interval over "
        f"{options.episodes} episodes a domain, 15 queries a class:\n\n{text}\n\n{verdict(table, chosen)}\n\n"
        "An episode is a task of five classes that training has not seen (5-way), each with "
        f"{options.shot} labeled pictures ({options.shot}-shot); queries are to be told apart. Guided: features are "
        "re-weighted by their own relevance (LRP) while the network learns. All were trained on Latin letters; the "
        "other domains are never trained on.\n"
    )
    folders.write_whole(options.folder / "table.md", text)
    print(f"\n{text}\nTable:  {options.folder / 'table.md'}")
    curves = options.folder / options.table / f"table-curves-{options.shot}shot.png"
    print(f"Curves: {curves}")
    for out in sheets:
        print(f"Sheets, the relevance of pixels for each class: {printable(out)}/")


def verdict(table: Table, options: reproduce.Options) -> str:
    """One sentence: on how many domains guidance gains or loses beyond the interval of its paired difference.

    Args:
        table: the table.
        options: where its results are.

    Returns:
        The sentence, with what it does not show.
    """
    found = [
        (job, reproduce.finished_result(job, table, options) or {}) for job in reproduce.jobs(table, options)
    ]
    plain, guided = (
        {domain: Scores.from_json(result["inductive"][domain]).percent for domain in job.targets}
        for job, result in found
    )
    gains = losses = 0
    for domain, values in guided.items():
        mean, half = mean_and_interval(values - plain[domain])
        gains, losses = gains + (mean > half), losses + (mean < -half)
    undecided = len(guided) - gains - losses
    return (
        f"Guided by its explanations, the network is better on {gains} of {len(guided)} domains, worse on {losses}, "
        f"and on {undecided} the {options.episodes} episodes do not decide. This is one seed, trained for minutes: "
        "another seed may differ; docs/results.md has longer trainings, other heads and seeds."
    )


if __name__ == "__main__":
    command_line.run(main, Options, about=__doc__)
