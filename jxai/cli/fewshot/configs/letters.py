"""Tables of the embedded benchmark: small pictures, mostly letters, for a laptop."""

import dataclasses
from collections.abc import Iterable
from typing import Any

from jxai import data, fewshot
from jxai.cli.fewshot.configs.few_shot import Config, Pretraining
from jxai.cli.fewshot.configs.systems import HEADS, plain_and_guided
from jxai.cli.fewshot.configs.table import Table, guided_pairs

_ALL = tuple(data.DOMAINS)
_HEADS = tuple(head for head in HEADS if head != "feat")  # which experiments/baselines compares

# Half the released queries a class: a step costs half, and so few pictures are seen often enough.
_BASE = Config(sources=("latin",), queries=8, pretraining=Pretraining(steps=1500), steps=1200, eval_every=200)
_QUICK = dataclasses.replace(
    _BASE, pretraining=Pretraining(steps=500), steps=250, eval_every=125, validation_episodes=100
)


def letters() -> Table:
    """Every head, plain and guided, trained on Latin letters alone."""
    systems = {name: row for head in _HEADS for name, row in plain_and_guided(head, _BASE, head=head).items()}
    return Table(
        "Five heads, plain and guided, trained on Latin letters",
        systems,
        targets=_ALL,
        pairs=guided_pairs(systems),
        **_judged(systems),
    )


def _judged(systems: Iterable[str]) -> dict[str, Any]:
    """Episodes of evaluation, as `Table` takes them."""
    # A transductive one takes the graph network two seconds: a graph of a hundred nodes for each query of a class.
    return {"episodes": 600, "transductive": {name: 30 if "graph" in name else 600 for name in systems}}


def letters_quick() -> Table:
    """The quickstart takes two of its rows: a minute each."""
    systems = plain_and_guided("relation", _QUICK)
    systems |= plain_and_guided("cross-attention", _QUICK, head="cross-attention")
    return Table(
        "RelationNet and cross attention, plain and guided, trained on Latin letters for minutes",
        systems,
        targets=_ALL,
        pairs=guided_pairs(systems),
        episodes=300,
    )


def letters_conditions() -> Table:
    """Under which conditions guidance helps RelationNet: less weight, less strength, a frozen encoder."""
    frozen = dataclasses.replace(_BASE, train_encoder=False)
    systems = {
        **plain_and_guided("relation", _BASE),
        "lambda-0.25": dataclasses.replace(_BASE, guidance=fewshot.Guidance(guided_weight=0.25)),
        "strength-0.5": dataclasses.replace(_BASE, guidance=fewshot.Guidance(strength=0.5)),
        **plain_and_guided("frozen", frozen),
    }
    others = {"lambda-0.25": "relation", "strength-0.5": "relation"}
    return Table(
        "RelationNet trained on Latin letters under other conditions",
        systems,
        targets=_ALL,
        shots=(5,),
        pairs=guided_pairs(systems) | others,
        episodes=1000,
    )


def letters_domains() -> Table:
    """Several domains to learn from, the target never seen: with and without feature-wise transformation."""
    base = dataclasses.replace(
        _BASE,
        sources=("latin", "hebrew", "thai", "arabic", "georgian"),
        pretraining=Pretraining(steps=1500, sources=("latin",)),
        steps=400,
        domain_epoch=20,  # twenty epochs, so that every pair of domains is likely to meet
    )
    systems = {}
    for head in _HEADS:
        of_head = dataclasses.replace(base, head=head)
        systems |= plain_and_guided(head, of_head)
        systems |= plain_and_guided(f"{head}-FT", of_head, transformation="fixed")
        systems |= plain_and_guided(f"{head}-LFT", of_head, transformation="learned", auxiliary=True)
    return Table(
        "Five heads trained on latin and three of the four other alphabets, judged on the one left out",
        systems,
        targets=("hebrew", "thai", "arabic", "georgian"),
        pairs=guided_pairs(systems),
        leave_out=True,
        **_judged(systems),
    )
