"""Configurations of experiments: every row of every table."""

from collections.abc import Callable, Mapping

from jxai.cli.fewshot.configs.few_shot import Config, Pretraining, from_json
from jxai.cli.fewshot.configs.letters import letters, letters_conditions, letters_domains, letters_quick
from jxai.cli.fewshot.configs.paper import cross_domain, multi_domain
from jxai.cli.fewshot.configs.systems import HEADS
from jxai.cli.fewshot.configs.table import Inference, Table

TABLES: dict[str, Callable[[], Table]] = {
    "letters": letters,
    "letters-quick": letters_quick,
    "letters-conditions": letters_conditions,
    "letters-domains": letters_domains,
    "cross-domain": cross_domain,
    "multi-domain": multi_domain,
}


def configs() -> Mapping[str, Config]:
    """Every row by "TABLE/SYSTEM", as `jxai train` takes it.

    Returns:
        {name: configuration}.
    """
    return {
        f"{name}/{system}": config
        for name, table in TABLES.items()
        for system, config in table().systems.items()
    }


__all__ = ["HEADS", "TABLES", "Config", "Inference", "Pretraining", "Table", "configs", "from_json"]
