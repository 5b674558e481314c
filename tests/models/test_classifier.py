"""The pretraining classifier."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jxai import models

X = np.random.default_rng(5).normal(size=(3, 16, 16, 3)).astype(np.float32)


def test_scores_are_a_dense_layer_of_the_mean_features(draw_variables):
    encoder = models.ConvNet(depth=2, width=6, num_pools=1)
    module = models.Classifier(encoder, num_classes=7)
    variables = draw_variables(module, X, train=False)
    assert set(variables["params"]) == {"encoder", "head"} and set(variables["batch_stats"]) == {"encoder"}
    inner = {name: variables[name]["encoder"] for name in ("params", "batch_stats")}
    got, maps = jax.jit(
        lambda x: (module.apply(variables, x, train=False), encoder.apply(inner, x, train=False))
    )(X)
    head = variables["params"]["head"]
    want = np.mean(maps, axis=(1, 2)) @ head["kernel"] + head["bias"]
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


def test_training_updates_the_encoders_statistics_and_gradients_reach_it(draw_variables):
    module = models.Classifier(models.ResNet((1, 1), widths=(4, 4), stem="32", stem_width=4), num_classes=2)
    variables = draw_variables(module, X, train=False, noise=0.0)

    @jax.jit
    @partial(jax.grad, has_aux=True)
    def gradient(params):
        scores, new = module.apply({**variables, "params": params}, X, train=True, mutable=["batch_stats"])
        return (scores**2).sum(), new

    grads, new = gradient(variables["params"])
    assert np.abs(grads["encoder"]["conv1"]["kernel"]).max() > 0
    assert not np.allclose(new["batch_stats"]["encoder"]["bn1"]["var"], 1)


def test_no_classes():
    with pytest.raises(ValueError, match="num_classes of at least 1, got 0"):
        models.Classifier(models.Conv4(), num_classes=0).init(
            jax.random.key(0), jnp.zeros((1, 16, 16, 3)), train=False
        )
