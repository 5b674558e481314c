"""Shares of a logit, block by block: what is conserved by construction, and the table."""

import jax.numpy as jnp
import numpy as np
import pytest
from languages import language_model

from experiments.text import conservation
from jxai import lrp, text

PROMPTS = (("a", "The capital of France"), ("b", "The capital of France is <b>"))


@pytest.mark.slow
def test_shares_are_those_of_the_prompts_alone():
    model = language_model()
    found = conservation.measure(model, PROMPTS, progress=False)
    layers = model.module.config.num_hidden_layers
    for name, shares in found.items():
        assert shares.stream.shape == (2, layers) and shares.positions.shape == (2,)
        # Nothing stands between the last block and the logit but a norm and a product.
        np.testing.assert_allclose(shares.stream[:, -1], 1, atol=1e-4)
        # With positions as an input nothing is lost that had reached the tokens.
        both = shares.with_positions + shares.positions
        np.testing.assert_allclose(both, shares.tokens, atol=2e-3, err_msg=name)
    np.testing.assert_allclose(found["CP-LRP"].tokens, 1, atol=1e-3)
    np.testing.assert_allclose(found["CP-LRP"].positions, 0, atol=1e-6)
    ids = jnp.asarray(conservation.padded(model, PROMPTS)[0][:1, :4])
    alone = np.asarray(text.explain(model, ids, None, method=lrp.AttnLRP(epsilon=0)))[0]
    score = np.asarray(model(ids))[0, -1].max()
    np.testing.assert_allclose(found["AttnLRP"].first[0], alone[0] / score, rtol=1e-3, atol=1e-4)


def test_a_table_has_blocks_and_intervals():
    shares = conservation.Shares(
        np.array([[0.25, 0.5], [0.25, 1.0]]), *(np.array([0.5, 1.0]) for _ in range(5))
    )
    told = conservation.table({"AttnLRP": shares})
    assert "| behind block 2 of 2 | 0.75 ± " in told and "| behind block 1 of 2 | 0.25 ± 0.00 |" in told
    assert "mean over 2 prompts" in told
