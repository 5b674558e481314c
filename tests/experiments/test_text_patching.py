"""Activation patching by running, beside what relevance patching estimates."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from languages import language_model

from experiments.text import patching
from jxai import lrp


@pytest.fixture(scope="module")
def given():
    model = language_model(scan=False)
    ids = jnp.array([[3, 4, 5, 6]])
    other = ids.at[0, 1].set(7)
    return model, model.embed(ids), model.embed(other), jnp.array([5, 2])


@pytest.mark.slow
def test_the_last_state_carries_the_whole_change(given):
    model, x, other, answers = given
    change = patching.difference(model, other, answers)[0] - patching.difference(model, x, answers)[0]
    found = np.asarray(jax.jit(patching.patched)(*given))
    assert found.shape == (3, model.module.config.num_hidden_layers, 4)
    np.testing.assert_allclose(found[0, -1, -1], change, rtol=1e-4, atol=1e-5)
    assert np.abs(found[:, :, 0]).max() < 1e-5  # before the token that differs


@pytest.mark.slow
def test_estimates_have_the_sites_of_the_truth(given):
    found = patching.estimated(*given, composite=lrp.CPLRP(epsilon=0))
    assert found.shape == (3, given[0].module.config.num_hidden_layers, 4)
    assert np.abs(np.asarray(found[:, :, 0])).max() < 1e-5


def test_a_table_has_every_kind_and_template():
    rows = {"gradient": np.array([[0.5, 0.25, 1.0], [0.5, 0.75, 1.0]])}
    told = patching.table({"capital": rows})
    assert "| capital (2) | gradient | 0.500 ± 0.000 | 0.500 ± " in told
    assert {pair[0] for pair in patching.pairs(count=1)["capital"]} == {"The capital of France is"}


def test_prompts_of_other_lengths_are_refused():
    pairs = {"capital": [("a b", " c", "a", " d")]}
    with pytest.raises(ValueError, match="prompts of as many tokens"):
        patching.correlations(language_model(scan=False), pairs, progress=False)
