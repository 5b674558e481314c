"""Which classes of a domain train, validate and test: the papers' rule."""

import numpy as np

from jxai.checks import check_count
from jxai.errors import InputError

SPLITS = ("all", "base", "validation", "novel")


def class_rule(num_classes: int) -> tuple[str, ...]:
    """Returns the split of each class by the papers' rule on its place i in the stored order.

    Args:
        num_classes: number of classes of the domain.

    Returns:
        "base" where i % 2 = 0, "validation" where i % 4 = 1, "novel" where i % 4 = 3.
    """
    return tuple(("base", "validation", "base", "novel")[c % 4] for c in range(num_classes))


def split_classes(num_classes: int, split: str) -> np.ndarray:
    """Returns the classes of a split, by the papers' rule on the class's place in the stored order.

    Args:
        num_classes: number of classes of the domain.
        split: "all"; "base", i % 2 = 0; "validation", i % 4 = 1; or "novel", i % 4 = 3.

    Returns:
        The class indices in increasing order.

    Raises:
        ValueError: unknown split, or a number below 0.
    """
    check_split(split)
    check_count("num_classes", num_classes, least=0)
    return np.asarray([c for c, of in enumerate(class_rule(num_classes)) if split in ("all", of)], np.int64)


def check_split(split: str) -> None:
    """Checks the name of a split.

    Args:
        split: the name.

    Raises:
        ValueError: unknown split.
    """
    if not isinstance(split, str) or split not in SPLITS:
        raise InputError(f"expected a split, one of {', '.join(SPLITS)}, got {split!r}: name one of these")
