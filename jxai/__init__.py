"""Explanations as pure functions in JAX, and training that uses them."""

import importlib
from typing import Any

from jxai.errors import InputError as InputError
from jxai.errors import InputTypeError as InputTypeError
from jxai.miscompiled import keep_sums_right

__version__ = "0.2.0"
# `import jxai` and `jxai.lrp` do: a package is loaded when it is first used.
_LAZY = (
    "attribution",
    "data",
    "depthwise",
    "fewshot",
    "guidance",
    "lrp",
    "metrics",
    "models",
    "text",
    "training",
    "viz",
)

keep_sums_right()


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return importlib.import_module(f"jxai.{name}")
    raise AttributeError(f"expected one of jxai's packages {', '.join(_LAZY)}, got {name}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_LAZY])
