"""Configurations of experiments; the docstring of each gives command, time and expected number."""

from collections.abc import Callable

from configs.few_shot import Config, Pretraining, from_json
from configs.latin import latin, latin_quick
from configs.mini_imagenet import mini_imagenet

CONFIGS: dict[str, Callable[[], Config]] = {
    "latin": latin,
    "latin-quick": latin_quick,
    "mini-imagenet": mini_imagenet,
}


def describe(config: Callable[[], Config]) -> str:
    """The first line of a configuration's docstring, for the command line's help."""
    return (config.__doc__ or "").splitlines()[0]


__all__ = [
    "CONFIGS",
    "Config",
    "Pretraining",
    "describe",
    "from_json",
    "latin",
    "latin_quick",
    "mini_imagenet",
]
