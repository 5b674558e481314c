"""`Loaded` under jit: weights are arguments, the rest is static."""

import jax
import jax.numpy as jnp
import numpy as np

from jxai import models

CONFIG = models.DecoderConfig(7, 8, 6, 2, 2, 1, 4, 16)


def loaded(seed):
    module = models.Decoder(CONFIG)
    variables = jax.jit(module.init)(jax.random.key(seed), np.zeros((1, 3), np.int32))
    return models.Loaded(module, variables, object(), models.WeightsReport((("a", "b"),), (), ()))


def test_weights_are_arguments_of_a_compiled_function(compilations):
    first = loaded(0)
    second = jax.tree.map(lambda leaf: leaf + 1, first)
    assert second.tokenizer is first.tokenizer and second.report is first.report
    assert len(jax.tree.leaves(first)) == len(jax.tree.leaves(first.variables))
    ids = jnp.zeros((1, 3), jnp.int32)

    def scores_of_it(model, ids):
        return model(ids)

    step = jax.jit(scores_of_it)
    one, other = step(first, ids), step(second, ids)
    assert not np.allclose(one, other)
    assert sum("scores_of_it" in name for name in compilations) == 1
    np.testing.assert_allclose(one, first.unembed(first.encode(first.embed(ids))), rtol=1e-5, atol=1e-6)
    # Weights are no constants of the program.
    program = step.lower(first, ids).as_text()
    assert len(program) < 100_000 and "dense<" in program


def test_gradients_go_to_the_variables():
    model = loaded(0)
    ids = jnp.zeros((1, 3), jnp.int32)
    gradient = jax.jit(jax.grad(lambda model: model(ids).sum()))(model)
    assert isinstance(gradient, models.Loaded)
    assert jax.tree.structure(gradient.variables) == jax.tree.structure(model.variables)
