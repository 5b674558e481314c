"""Prepared data of the tests' own, and a small source that needs none."""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

# The tests' own module is imported as a neighbor; last in the list.
sys.path.append(str(Path(__file__).resolve().parent))

from made_data import MADE, Made

from jxai import data
from jxai.data import loading


@pytest.fixture(scope="session")
def prepared_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("prepared")


@pytest.fixture(autouse=True)
def _own_data_root(monkeypatch: pytest.MonkeyPatch, prepared_root: Path) -> None:
    # Never the user's cache; one place for all tests, so that a domain is prepared once.
    monkeypatch.setenv("JXAI_DATA", str(prepared_root))


def make_source(*, name: str = "toy", num_classes: int = 8, per_class: int = 6, seed: int = 0) -> data.Source:
    """Random pictures, none twice, labels in an order that is not sorted."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat(np.arange(num_classes), per_class))
    images = rng.integers(0, 256, (len(labels), 10, 10, 3), np.uint8)
    return data.from_arrays(name, images, labels, class_names=[f"class {c}" for c in range(num_classes)])


@pytest.fixture(scope="session")
def source() -> data.Source:
    return make_source()


@pytest.fixture
def made() -> Callable[[str], Made]:
    return lambda name: MADE[name]()


@pytest.fixture
def small_cub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> tuple[Made, Path]:
    """CUB with four classes as the registry's, its files in place, and prepared data of this test's own."""
    monkeypatch.setenv("JXAI_DATA", str(tmp_path))
    small = MADE["CUB"]()
    monkeypatch.setattr(loading, "PAPER_DOMAINS", {"CUB": small.domain})
    loading._whole.cache_clear()
    return small, small.write(tmp_path / "manual/CUB")
