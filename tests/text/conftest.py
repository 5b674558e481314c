"""The tiny model, whose scan compiles one block, and the same unrolled."""

import sys
from pathlib import Path

import numpy as np
import pytest

# What the tests of this folder share is the module `tiny` beside this file. Last in the list.
sys.path.append(str(Path(__file__).resolve().parent))

from tiny import tiny


@pytest.fixture(scope="session")
def model():
    return tiny(scan=True)


@pytest.fixture(scope="session")
def unrolled():
    return tiny()


@pytest.fixture(scope="session")
def ids():
    return np.array([[1, 2, 3, 4], [5, 6, 7, 8]])
