"""NaN and infinity among measurements, by the names of pictures and methods."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from jxai.errors import InputError


def not_finite(arrays: Mapping[str, Any]) -> list[str]:
    """The names of the arrays that hold NaN or infinity."""
    return [name for name, array in arrays.items() if not np.isfinite(np.asarray(array)).all()]


def check_finite(what: str, arrays: Mapping[str, Any]) -> None:
    """Refuse NaN and infinity.

    Args:
        what: the arrays are, for the error.
        arrays: by the names that the error says.

    Raises:
        ValueError: one of them is not finite.
    """
    if bad := not_finite(arrays):
        raise InputError(
            f"expected finite {what}, got NaN or infinity for {', '.join(bad)}: look at the network's weights and "
            "scores there, or leave it out"
        )
