"""What the trainings show: differences paired over seeds and episodes, as Markdown."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from experiments.seeds.trainings import DOMAINS, per_episode
from experiments.seeds.variants import HEADS, VARIANTS
from jxai import fewshot

FINDING_DOMAINS, FINDING_SEEDS = ("latin", "hebrew", "thai"), (100, 101)
"""Variants are found on these, and confirmed on the other domains and on other seeds."""
CONFIRMING_DOMAINS = tuple(name for name in DOMAINS if name not in FINDING_DOMAINS)

Records = Mapping[str, Mapping[str, Any]]


def key(head: str, variant: str, shot: int, seed: int) -> str:
    """A training's name in the log."""
    return f"{shot}-shot {head} {variant} {seed}"


def complete(records: Records, heads: Sequence[str], variants: Sequence[str], shot: int) -> list[int]:
    """Seeds of which there is every training that is asked for, those of the finding left out."""
    every = [int(name.split()[-1]) for name in records]
    return [
        seed
        for seed in sorted(set(every) - set(FINDING_SEEDS))
        if all(key(head, variant, shot, seed) in records for head in heads for variant in variants)
    ]


def percent(
    records: Records,
    heads: Sequence[str],
    variant: str,
    shot: int,
    seeds: Sequence[int],
    domains: Sequence[str],
) -> np.ndarray:
    """Accuracies of episodes, averaged over heads and domains.

    Args:
        records: of the log, by key.
        heads: whose.
        variant: one of `VARIANTS`.
        shot: labeled pictures a class.
        seeds: a row each.
        domains: some of those that were judged.

    Returns:
        Percent, (seeds, episodes).
    """
    found = [
        [records[key(head, variant, shot, seed)]["right"][domain] for head in heads for domain in domains]
        for seed in seeds
    ]
    return 100 / per_episode() * np.asarray(found, np.float64).mean(axis=1)


def difference(
    records: Records, heads: Sequence[str], pair: tuple[str, str], shot: int, domains: Sequence[str]
) -> str:
    """ "+1.2 [+0.3, +2.1]", bold where 0 lies outside: the first of the pair minus the second; or empty."""
    seeds = complete(records, heads, pair, shot)
    if not seeds:
        return ""
    first, second = (percent(records, heads, variant, shot, seeds, domains) for variant in pair)
    mean, low, high = fewshot.hierarchical_interval(first - second)
    if len(seeds) == 1:
        return f"{mean:+.1f}"
    text = f"{mean:+.1f} [{low:+.1f}, {high:+.1f}]"
    return f"**{text}**" if low > 0 or high < 0 else text


def guidance_table(records: Records, shot: int) -> str:
    """Plain and guided of every head, over the seeds that have both.

    Args:
        records: of the log, by key.
        shot: labeled pictures a class.

    Returns:
        Markdown; a last row holds the mean of the heads that have the most seeds.
    """
    pair = ("guided", "plain")
    lines = [f"| {shot}-shot | seeds | plain | guided | guided − plain | {' | '.join(DOMAINS)} |"]
    lines += ["| --- |" + " ---: |" * (4 + len(DOMAINS))]
    counts = {head: len(complete(records, (head,), pair, shot)) for head in HEADS}
    most = tuple(head for head in HEADS if counts[head] == max(counts.values()) > 0)
    of = [(head, (head,)) for head in HEADS] + [(f"mean of the {len(most)} with most seeds", most)]
    for name, heads in of:
        seeds = complete(records, heads, pair, shot)
        if not heads or not seeds:
            continue
        means = [
            percent(records, heads, one, shot, seeds, tuple(DOMAINS)).mean() for one in ("plain", "guided")
        ]
        cells = [f"{mean:.1f}" for mean in means] + [difference(records, heads, pair, shot, tuple(DOMAINS))]
        cells += [difference(records, heads, pair, shot, (domain,)) for domain in DOMAINS]
        lines.append(f"| {name} | {len(seeds)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def finding_table(records: Records) -> str:
    """Each variant minus plain, on the domains and seeds that variants are found on: each seed's difference.

    Args:
        records: of the log, by key.

    Returns:
        Markdown.
    """
    lines = [f"| − plain, 1-shot | {' | '.join(HEADS)} |", "| --- |" + " ---: |" * len(HEADS)]
    for name, variant in VARIANTS.items():
        cells = []
        for head in HEADS:
            both = [name, "plain"]
            seeds = [
                seed for seed in FINDING_SEEDS if all(key(head, one, 1, seed) in records for one in both)
            ]
            found = (
                [percent(records, (head,), one, 1, seeds, FINDING_DOMAINS).mean(axis=1) for one in both]
                if seeds
                else []
            )
            cells.append(", ".join(f"{value:+.1f}" for value in found[0] - found[1]) if found else "")
        if name != "plain" and any(cells):
            lines.append(f"| {variant.about} | {' | '.join(cells)} |")
    return "\n".join(lines)


def confirming_table(records: Records, proposed: str, shot: int) -> str:
    """A proposed variant against plain and against guided, on seeds and domains that did not find it.

    Args:
        records: of the log, by key.
        proposed: one of `VARIANTS`.
        shot: labeled pictures a class.

    Returns:
        Markdown.
    """
    about = VARIANTS[proposed].about
    lines = [f"| {shot}-shot, {about} | seeds | − plain | − guided |", "| --- | ---: | ---: | ---: |"]
    every = (proposed, "plain", "guided")
    heads = [head for head in VARIANTS[proposed].only if complete(records, (head,), every, shot)]
    for name, of in [*((head, (head,)) for head in heads), *[("mean of these", heads)] * (len(heads) > 1)]:
        seeds = complete(records, of, every, shot)
        if seeds:
            cells = [
                difference(records, of, (proposed, other), shot, CONFIRMING_DOMAINS)
                for other in ("plain", "guided")
            ]
            lines.append(f"| {name} | {len(seeds)} | {' | '.join(cells)} |")
    return "\n".join(lines) if len(lines) > 2 else ""
