"""The embedded benchmark: training on Latin letters, evaluation on seven domains."""

import dataclasses

from configs.few_shot import Config, Pretraining


def latin() -> Config:
    """RelationNet on the embedded Latin letters, long enough to compare plain and guided training.

    Command: python experiments/compare.py
    Time: 66 minutes on two busy cores for twelve runs (two systems, three seeds, 1-shot and 5-shot) and their
    evaluation on 1000 episodes a domain.
    Expected: 5-way 5-shot accuracy of plain training 86.9 % on novel Latin letters, 91.4 % on Hebrew ones;
    all in experiments/results/latin/table.md.
    """
    # Half the released queries a class: a step costs half, and so few pictures are seen often enough.
    return Config(
        sources=("latin",), queries=8, pretraining=Pretraining(steps=1500), steps=1200, eval_every=200
    )


def latin_quick() -> Config:
    """The quickstart's: as `latin`, a few minutes in all.

    Command: make demo
    Time: about seven minutes on two cores.
    Expected: 5-way 5-shot accuracy of plain training on Hebrew about 89 %.
    """
    return dataclasses.replace(latin(), pretraining=Pretraining(steps=600), steps=300, eval_every=100)
