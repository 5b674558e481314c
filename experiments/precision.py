"""How much precision explanations need: relevance, attribution and guidance in four arithmetics, against float64.

    pip install 'jxai[demo]'
    python -m experiments.precision

float32; float32 whose products round their operands to TensorFloat-32 or to bfloat16, as a GPU's tensor cores and a
TPU do by default; and weights, inputs and activations in bfloat16. The products are emulated (`rounding.py`), so that
a CPU shows what the others do. The predicted class of four photographs is explained by a trained EfficientNet-Lite0
and, at half of their size, by ResNet18 with drawn weights; guided heads give their weights and gradients. Leaves
`precision.md` and `precision.json` in the folder of results. Each cell is logged when it is there, so that a run that
was stopped goes on. About twenty minutes on two cores, most of them compilation.
"""

import dataclasses
import functools
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.rounding import rounded
from jxai import attribution, fewshot, lrp, models
from jxai.cli.explaining.inputs import EFFICIENTNET_LITE0 as SPACE
from jxai.cli.explaining.picture_files import read_pictures
from jxai.cli.running import command_line, folders
from jxai.fewshot.heads.head import KEPT
from jxai.progress import Bar
from jxai.results_log import ResultsLog

_TOP = 0.05  # the share of pixels that counts as most relevant
_MEASURES = ("largest error", "1 - cosine", "top kept")


class Arithmetic(NamedTuple):
    """How numbers are held and multiplied; `mantissa_bits` of a product's operands, None for all."""

    label: str
    dtype: Any = jnp.float32
    mantissa_bits: int | None = None


ARITHMETICS = {
    "float32": Arithmetic("float32"),
    "tensorfloat32": Arithmetic("TensorFloat-32 products", mantissa_bits=10),
    "bfloat16-products": Arithmetic("bfloat16 products", mantissa_bits=7),
    "bfloat16": Arithmetic("bfloat16 throughout", dtype=jnp.bfloat16),
}


class Row(NamedTuple):
    """What is computed in each arithmetic.

    Attributes:
        subject: the network or head.
        label: the explanation.
        compute: from variables and inputs to an array (N, ...); each of the N is judged by itself.
        variables: of the subject, float32.
        x: inputs, float32.
    """

    subject: str
    label: str
    compute: Callable[[Any, jax.Array], jax.Array]
    variables: Any
    x: np.ndarray


@dataclasses.dataclass(frozen=True)
class Options:
    """How much is measured."""

    count: int = 4
    """Photographs, the first ones."""
    num_roots: int = 8
    """Of SmoothGrad and SmoothTaylor; the draws are the same in all arithmetics."""
    num_steps: int = 10
    """Of Integrated Gradients."""
    channels: int = 64
    """Of the heads' features."""
    out: Path = Path(__file__).parent / "results"
    """Folder of the tables."""
    log: Path = Path("runs/precision/precision.jsonl")
    progress: bool = True


def evaluate(row: Row, arithmetic: Arithmetic) -> np.ndarray:
    """A row in an arithmetic.

    Args:
        row: what is computed.
        arithmetic: how.

    Returns:
        float64, (N, ...).
    """
    with jax.enable_x64(arithmetic.dtype == jnp.float64):
        variables = jax.tree.map(lambda a: np.asarray(a).astype(arithmetic.dtype), row.variables)
        # The draws of noise depend on the inputs' type: float64 is for the network behind them alone.
        x = row.x if arithmetic.dtype == jnp.float64 else row.x.astype(arithmetic.dtype)
        bits = arithmetic.mantissa_bits
        compute = row.compute if bits is None else rounded(row.compute, mantissa_bits=bits)
        return np.asarray(jax.jit(compute)(variables, x)).astype(np.float64)


def errors(found: np.ndarray, reference: np.ndarray) -> dict[str, list[float]]:
    """How far arrays are from others, each by itself.

    Args:
        found: (N, ...).
        reference: what it should be.

    Returns:
        By measure, N numbers: the largest difference over the largest absolute value; 1 - cosine; of the 5 % of
        entries that are largest in absolute value, the share that stays among them.
    """
    found, reference = (a.reshape(len(a), -1) for a in (found, reference))
    largest = np.abs(found - reference).max(axis=1) / np.abs(reference).max(axis=1)
    # 1 - cosine from the difference of unit vectors: the product itself would round at 1e-16 and cancel.
    units = [a / np.linalg.norm(a, axis=1, keepdims=True) for a in (found, reference)]
    apart = ((units[0] - units[1]) ** 2).sum(axis=1) / 2
    count = max(1, round(_TOP * found.shape[1]))
    tops = [np.argsort(-np.abs(a), axis=1, kind="stable")[:, :count] for a in (found, reference)]
    kept = [len(np.intersect1d(*rows)) / count for rows in zip(*tops, strict=True)]
    return dict(zip(_MEASURES, (largest.tolist(), apart.tolist(), kept), strict=True))


def network_rows(
    subject: str, model: Any, variables: Any, x: np.ndarray, *, num_roots: int, num_steps: int
) -> list[Row]:
    """Heat maps of the predicted class by each method.

    Args:
        subject: the network's name.
        model: the network.
        variables: its variables.
        x: images, (N, H, W, 3).
        num_roots: of SmoothGrad and SmoothTaylor.
        num_steps: of Integrated Gradients.

    Returns:
        A row a method.
    """
    key = jax.random.key(0)
    target = jnp.argmax(jax.jit(functools.partial(model.apply, train=False))(variables, x), axis=1)
    composites = {
        "EpsilonPlus": lrp.EpsilonPlus(),
        "EpsilonAlpha2Beta1": lrp.EpsilonAlpha2Beta1(),
        "EpsilonGammaBox": lrp.EpsilonGammaBox(SPACE.low, SPACE.high),
        "sun2020": lrp.sun2020,
    }
    methods: dict[str, Callable[[Any, jax.Array], jax.Array]] = {
        "gradient": lambda f, x: attribution.gradient(f, x, target),
        "Integrated Gradients": lambda f, x: attribution.integrated_gradients(
            f, x, target, baseline=SPACE.low, num_steps=num_steps
        ),
        "SmoothGrad": lambda f, x: attribution.smooth_grad(f, key, x, target, num_roots=num_roots),
        "SmoothTaylor": lambda f, x: attribution.smooth_taylor(
            f, key, x, target, noise_scale=0.225, num_roots=num_roots
        ),
    }
    for name, composite in composites.items():
        methods[name] = functools.partial(_relevance, target=target, composite=composite)

    def compute(method: Callable, variables: Any, x: jax.Array) -> jax.Array:
        dtype = jax.tree.leaves(variables)[0].dtype
        return method(lambda x: model.apply(variables, x.astype(dtype), train=False), x).sum(axis=-1)

    return [
        Row(subject, name, functools.partial(compute, method), variables, x)
        for name, method in methods.items()
    ]


def _relevance(f: Any, x: jax.Array, *, target: jax.Array, composite: lrp.Composite) -> jax.Array:
    return lrp.relevance(f, x, target, composite=composite)


def head_rows(channels: int, *, way: int = 5, shot: int = 5, queries: int = 4) -> list[Row]:
    """Weights of the guided heads, less 1, and the gradients of the plain and the guided loss in all parameters.

    Args:
        channels: of the features.
        way: number of classes.
        shot: supports a class.
        queries: queries a class.

    Returns:
        Three rows a head.
    """
    heads = {
        "relation head": (fewshot.RelationHead(features=channels, nonnegative=True), (5, 5, channels)),
        "graph head": (fewshot.GraphHead(way=way), (channels,)),
        "cross attention": (fewshot.CrossAttentionHead(64), (6, 6, channels)),
    }
    labels = [jnp.repeat(jnp.arange(way), each) for each in (shot, queries)]
    keys, found = jax.random.split(jax.random.key(0)), []
    for subject, (head, shape) in heads.items():
        x = np.asarray(jax.nn.relu(jax.random.normal(keys[0], (way * (shot + queries), *shape))))
        episode = functools.partial(_episode, labels, way)
        variables = head.init(keys[1], episode(x))
        computes = {
            "weights": functools.partial(_weights, head, episode),
            "gradient, plain": functools.partial(_gradient, head, episode, fewshot.PLAIN),
            "gradient, guided": functools.partial(_gradient, head, episode, fewshot.Guidance()),
        }
        found += [Row(subject, label, compute, variables, x) for label, compute in computes.items()]
    return found


def _episode(labels: Any, way: int, x: Any) -> fewshot.Episode:
    support, query = x[: len(labels[0])], x[len(labels[0]) :]
    return fewshot.Episode(
        support, labels[0], query, labels[1], way=way, query_classes=jnp.arange(len(query))
    )


def _as(variables: Any, x: jax.Array) -> jax.Array:
    return x.astype(jax.tree.leaves(variables)[0].dtype)


def _weights(
    head: fewshot.Head, episode: Callable[[Any], fewshot.Episode], variables: Any, x: jax.Array
) -> jax.Array:
    given = episode(_as(variables, x))
    (explained, scores), updates = head.apply(
        variables, given, True, method="forward", mutable=["batch_stats", KEPT]
    )
    kept = {KEPT: updates[KEPT]} if KEPT in updates else {}
    return jnp.asarray(head.explain({**variables, **kept}, explained, scores).weights) - 1


def _gradient(
    head: fewshot.Head,
    episode: Callable[[Any], fewshot.Episode],
    guidance: fewshot.Guidance,
    variables: Any,
    x: jax.Array,
) -> jax.Array:
    given = episode(_as(variables, x))

    def loss(params: Any) -> jax.Array:
        return fewshot.head_loss(head, {**variables, "params": params}, given, guidance=guidance)[0]

    leaves = jax.tree.leaves(jax.grad(loss)(variables["params"]))
    return jnp.concatenate([leaf.ravel() for leaf in leaves])[None]


def table(records: Mapping[str, Mapping[str, Any]], rows: Sequence[tuple[str, str]]) -> str:
    """All rows by arithmetic.

    Args:
        records: measures by "subject, label, arithmetic".
        rows: subjects and labels.

    Returns:
        Markdown; a cell is the largest error, 1 - cosine and what stays of the top, each a mean over pictures.
    """
    labels = [arithmetic.label for arithmetic in ARITHMETICS.values()]
    lines = [["of", "explanation", *labels], ["---", "---", *["---:"] * len(labels)]]
    for subject, label in rows:
        cells = []
        for name in ARITHMETICS:
            largest, apart, kept = (np.mean(records[f"{subject}, {label}, {name}"][one]) for one in _MEASURES)
            cells.append(f"{largest:.0e} · {apart:.0e} · {100 * kept:.1f} %")
        lines.append([subject, label, *cells])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def rows_of(options: Options) -> list[Row]:
    """Every row.

    Args:
        options: sizes.

    Returns:
        Those of the networks, then those of the heads.
    """
    pictures = read_pictures((), count=options.count)
    x = SPACE(np.stack([picture.pixels for picture in pictures]))
    costs = {"num_roots": options.num_roots, "num_steps": options.num_steps}
    model, variables, _ = models.efficientnet_lite0()
    resnet, small = models.Classifier(models.ResNet18(), num_classes=1000), x[:, ::2, ::2]
    drawn = jax.jit(functools.partial(resnet.init, train=False))(jax.random.key(0), small)
    return [
        *network_rows("EfficientNet-Lite0", model, variables, x, **costs),
        *network_rows("ResNet18", resnet, drawn, small, **costs),
        *head_rows(options.channels),
    ]


def main(options: Options) -> None:
    """Measure what is missing; write and print the table."""
    with folders.in_use(options.log.parent):
        measure(options)


def measure(options: Options) -> None:
    """As `main`, with a log that nobody else writes."""
    sizes = {name: getattr(options, name) for name in ("count", "num_roots", "num_steps", "channels")}
    log = ResultsLog(options.log, sizes)
    rows = rows_of(options)
    keys = {
        (row.subject, row.label, name): f"{row.subject}, {row.label}, {name}"
        for row in rows
        for name in ARITHMETICS
    }
    with Bar(len(keys), unit="cell", progress=options.progress or "lines") as bar:
        for row in rows:
            bar.name(f"{row.subject}, {row.label}")
            missing = [name for name in ARITHMETICS if not log.done(keys[row.subject, row.label, name])]
            bar.update(len(ARITHMETICS) - len(missing))
            if not missing:
                continue
            reference = evaluate(row, Arithmetic("float64", dtype=jnp.float64))
            for name in missing:
                found = errors(evaluate(row, ARITHMETICS[name]), reference)
                log.append({"key": keys[row.subject, row.label, name], **found})
                bar.update()
    text = table(log.records, [(row.subject, row.label) for row in rows])
    with folders.writing(options.out):
        options.out.mkdir(parents=True, exist_ok=True)
    folders.write_whole(options.out / "precision.md", text + "\n")
    written = {"settings": log.settings, "errors": {key: dict(log.records[key]) for key in keys.values()}}
    folders.write_whole(options.out / "precision.json", json.dumps(written, indent=1) + "\n")
    print(f"{text}\n\n{options.out / 'precision.md'}")


if __name__ == "__main__":
    command_line.run(main, Options)
