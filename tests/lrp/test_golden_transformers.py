"""Transformers against the values of LXT: every mode, contrast and inside value of the archives `lxt_*`."""

import os
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jxai import lrp

# The archives' models, which the tests of `jxai.models` share. Last in the list.
sys.path.append(str(Path(__file__).resolve().parents[1] / "models"))
from lxt_archives import load, names

pytestmark = pytest.mark.golden

FOLDER = Path(os.environ.get("JXAI_GOLDEN", Path(__file__).parents[1] / "golden"))
# What the archives' modes are. zennit's γ rules, stabilized by 1e-6, meet modules, and attention's layers are none.
MODES = {
    "attnlrp": lrp.AttnLRP(epsilon=0.0),
    "cplrp": lrp.CPLRP(epsilon=0.0),
    "cplrp_gamma": lrp.Composite((("*attention/*", lrp.Epsilon(0.0)),))
    | lrp.CPLRP(gamma=0.05, convolution_gamma=0.25),
}
# LXT's explicit mode has stabilizers of its own.
EXPLICIT = {"explicit_attnlrp": "attnlrp", "explicit_cplrp": "cplrp"}
PLACES = {"stream": "", "context": "/attention/context", "neurons": "/mlp/neurons"}


def relevances(archive, scan):
    """By key of the archive, what we find in its place; and the scores and gradient x input."""
    arrays, x = archive.arrays, archive.x
    modes = [mode for mode in MODES if f"{mode}:R" in arrays]
    assert modes and {key.split(":")[0] for key in arrays if ":" in key} <= {*modes, *EXPLICIT, "grad"}

    @jax.jit
    def explain(variables, x):
        found = {}

        def scores(x):
            return archive.scores(variables, x)

        y, gradient = jax.vjp(scores, x)
        t, s = arrays["target"], arrays["contrast"]
        of_target = jnp.zeros_like(y).at[0, t].set(y[0, t])
        starts = jnp.stack([of_target, of_target.at[0, s].set(-y[0, s])])
        found["grad:R"] = x * gradient(jnp.zeros_like(y).at[0, t].set(1))[0]
        for mode in modes:
            inside = [key.split(":")[1] for key in arrays if key.startswith(mode + ":") and ":R" not in key]
            paths = {key: _path(key, scan) for key in inside}
            _, pullback = lrp.vjp(scores, x, composite=MODES[mode], watch=[*dict.fromkeys(paths.values())])
            (both,), watched = jax.vmap(pullback)(starts)
            found |= {f"{mode}:R": both[0], f"{mode}:R_contrast": both[1]}
            for key, path in paths.items():
                found[f"{mode}:{key}"] = watched[path][0][int(_split(key)[1])] if scan else watched[path][0]
        return y, found

    y, found = explain(archive.variables, x)
    found |= {f"{mode}:R": found[f"{same}:R"] for mode, same in EXPLICIT.items() if f"{mode}:R" in arrays}
    return np.asarray(y), {key: np.asarray(one[0]) for key, one in found.items()}


def _split(key):
    name = key.rstrip("0123456789")
    return name, key[len(name) :]


def _path(key, scan):
    name, number = _split(key)
    return f"{'layers' if scan else f'layer{number}'}{PLACES[name]}"


@pytest.mark.parametrize(
    "scan", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["unrolled", "scanned"]
)
@pytest.mark.parametrize("name", names(FOLDER))
def test_golden_relevance_of_transformers(golden, name, scan):
    # Layers in a loop are looked at in float32, unrolled ones in float64.
    with jax.enable_x64(not scan):
        dtype = np.float32 if scan else np.float64
        archive = load(golden / f"{name}.npz", dtype=dtype, scan=scan)
        archive = archive._replace(arrays=archive.arrays | {"x": archive.arrays["x"].astype(dtype)})
        y, found = relevances(archive, scan)
    reference = {key: value for key, value in archive.arrays.items() if ":" in key}
    assert y.dtype == dtype
    assert not set(reference) - set(found)
    errors = {}
    for key, expected in reference.items():
        ours = found[key].transpose(2, 0, 1) if found[key].shape != expected.shape else found[key]
        errors[key] = np.abs(ours - expected).max() / np.abs(expected).max()
    loose = {key: error for key, error in errors.items() if key.split(":")[0] in EXPLICIT}
    assert all(error <= (1e-3 if scan else 1e-5) for key, error in errors.items() if key not in loose), errors
    assert all(error <= 1e-3 for error in loose.values()), errors
