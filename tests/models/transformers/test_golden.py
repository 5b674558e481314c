"""The scores of every golden archive `lxt_*` in the folder of reference values, whatever its sizes."""

import os
from pathlib import Path

import jax
import numpy as np
import pytest
from lxt_archives import load, names

pytestmark = pytest.mark.golden

FOLDER = Path(os.environ.get("JXAI_GOLDEN", Path(__file__).parents[2] / "golden"))


@pytest.mark.parametrize("archive", names(FOLDER))
def test_golden_scores_float64_scanned(golden, archive):
    with jax.enable_x64(True):
        found = load(golden / f"{archive}.npz")
        y = np.asarray(jax.jit(found.scores)(found.variables, found.x))
        np.testing.assert_allclose(y[0], found.arrays["y"], rtol=0, atol=1e-10 * abs(found.arrays["y"]).max())
        if "ids" in found.arrays:
            x = found.module.apply(found.variables, found.arrays["ids"], method="embed")
            np.testing.assert_allclose(np.asarray(x), found.x, rtol=0, atol=1e-12)


@pytest.mark.parametrize("archive", names(FOLDER))
def test_golden_scores_float32_unrolled(golden, archive):
    found = load(golden / f"{archive}.npz", dtype=np.float32, scan=False)
    y = np.asarray(jax.jit(found.scores)(found.variables, found.x.astype(np.float32)))
    assert y.dtype == np.float32
    np.testing.assert_allclose(y[0], found.arrays["y"], rtol=0, atol=1e-5 * abs(found.arrays["y"]).max())


def test_golden_archives_are_found():
    assert len(names(FOLDER)) >= 7
