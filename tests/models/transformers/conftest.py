"""The models of the golden archives in float32, read once."""

import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from lxt_archives import Archive, load


@pytest.fixture(scope="session")
def archive(golden: Path) -> Callable[..., Archive]:
    """Of a name such as "llama" and `scan` and `remat` to the archive's model in float32."""
    return functools.cache(
        lambda name, **options: load(golden / f"lxt_{name}.npz", dtype=np.float32, **options)
    )
