"""What the systems of the papers have in common, wherever they are trained."""

import dataclasses
from typing import Any

from jxai import fewshot
from jxai.cli.fewshot.configs.few_shot import Config
from jxai.training import OptimizerConfig

HEADS = ("relation", "graph", "cross-attention", "prototype", "matching", "feat")

# The cross-attention network's optimizer: epochs are of 300 steps of four episodes.
CROSS_ATTENTION_SGD = OptimizerConfig(
    "sgd",
    0.1,
    momentum=0.9,
    nesterov=True,
    weight_decay=5e-4,
    schedule="steps",
    boundaries=(60 * 300, 70 * 300),
    rates=(0.006, 0.0012),
)


def plain_and_guided(name: str, config: Config, **changes: Any) -> dict[str, Config]:
    """Two rows: a system, and the same guided by its explanations.

    Args:
        name: of the plain one; the guided one is NAME-guided.
        config: of the guided one, but for the changes.
        **changes: fields of both.

    Returns:
        {name: configuration}.
    """
    config = dataclasses.replace(config, **changes)
    return {name: dataclasses.replace(config, guidance=fewshot.PLAIN), f"{name}-guided": config}
