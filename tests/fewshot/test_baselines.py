"""SimpleShot and probes against loops, scikit-learn and gradients that vanish."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jxai import fewshot

FUNCTIONS = {
    "UN": functools.partial(fewshot.nearest_centroid, normalize=False),
    "L2N": fewshot.nearest_centroid,
    "linear": fewshot.linear_probe,
    "cosine": fewshot.cosine_probe,
}


def draw(way=3, shot=4, queries=5, shape=(6,), seed=0):
    random = np.random.default_rng(seed)
    support, query = (np.maximum(random.normal(size=(way * n, *shape)), 0) for n in (shot, queries))
    labels = random.permutation(np.repeat(np.arange(way), shot))
    return fewshot.Episode(support, labels, query, way=way)


def unit(x):
    return x / max(np.linalg.norm(x), 1e-6)  # a ReLU may leave nothing


@pytest.mark.parametrize("centered", [False, True])
@pytest.mark.parametrize("normalize", [False, True])
def test_nearest_centroid_by_loops(centered, normalize):
    episode = draw()
    center = np.full(6, 0.4) if centered else None
    with jax.enable_x64(True):
        found = fewshot.nearest_centroid(episode, center=center, normalize=normalize)

    def transformed(x):
        x = x - 0.4 if centered else x
        return unit(x) if normalize else x

    for i, q in enumerate(episode.query):
        for k in range(3):
            members = [
                transformed(x) for x, c in zip(episode.support, episode.support_labels, strict=True) if c == k
            ]
            expected = -np.sum((transformed(q) - np.mean(members, axis=0)) ** 2)
            np.testing.assert_allclose(found[i, k], expected, rtol=1e-10)


def test_what_is_not_normalized_is_the_prototypical_network():
    episode = draw()
    with jax.enable_x64(True):
        found = jax.nn.softmax(fewshot.nearest_centroid(episode, normalize=False))
        expected = jax.nn.softmax(fewshot.PrototypeHead().apply({}, episode))
    np.testing.assert_allclose(found, expected, rtol=1e-10)


@pytest.mark.parametrize("shot", [1, 4])
def test_linear_probe_is_scikit_learns_logistic_regression(shot):
    linear_model = pytest.importorskip("sklearn.linear_model")
    episode = draw(shot=shot)
    model = linear_model.LogisticRegression(C=1 / 0.3, tol=1e-10, max_iter=10000)
    model.fit(episode.support, episode.support_labels)
    expected = model.decision_function(episode.query)
    with jax.enable_x64(True):
        found = np.asarray(fewshot.linear_probe(episode, penalty=0.3, num_steps=3000))
        few = np.asarray(fewshot.linear_probe(episode, penalty=0.3))
    # Softmax's scores are known up to a number for each query.
    expected, found, few = (x - x.mean(-1, keepdims=True) for x in (expected, found, few))
    np.testing.assert_allclose(found, expected, atol=1e-5)
    np.testing.assert_allclose(few, expected, atol=0.05)
    np.testing.assert_array_equal(few.argmax(-1), expected.argmax(-1))


def test_linear_probe_of_one_support_a_class_by_its_optimality():
    """Queries are the supports and the origin, so that W·x + b is known at each, and W = Σ (y − p)·x / penalty."""
    episode = draw(way=4, shot=1, shape=(3,))
    x, y = episode.support, np.eye(4)[episode.support_labels]
    with jax.enable_x64(True):
        given = episode.replace(query=np.concatenate([x, np.zeros((1, 3))]))
        scores = np.asarray(fewshot.linear_probe(given, penalty=0.5, num_steps=3000))
    residual = y - np.asarray(jax.nn.softmax(scores[:-1]))
    weights = x.T @ residual / 0.5
    np.testing.assert_allclose(scores[:-1] - scores[-1:], x @ weights, atol=1e-5)
    np.testing.assert_allclose(residual.sum(0), 0, atol=1e-5)  # the bias has no penalty


def test_cosine_probe_by_steps_in_numpy():
    episode, scale, rate, steps = draw(), 3.0, 0.7, 4
    with jax.enable_x64(True):
        found = fewshot.cosine_probe(episode, scale=scale, learning_rate=rate, num_steps=steps)
    x, y = np.array([unit(x) for x in episode.support]), np.eye(3)[episode.support_labels]
    weights = np.array([unit(x[episode.support_labels == k].mean(0)) for k in range(3)])
    for _ in range(steps):
        scores = scale * x @ weights.T
        p = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
        gradient = scale * (p - y).T @ x / len(x)
        # Of a normalized vector: what is along it changes nothing.
        gradient -= np.sum(gradient * weights, -1, keepdims=True) * weights
        weights = np.array([unit(w) for w in weights - rate * gradient])
    expected = scale * np.array([unit(q) for q in episode.query]) @ weights.T
    np.testing.assert_allclose(found, expected, rtol=1e-10)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_maps_episodes_at_once_and_gradients(name):
    """Maps are averaged, `vmap` gives what one call gives, and the gradient is a finite difference."""
    function, episode = FUNCTIONS[name], draw(shape=(2, 2, 6))
    with jax.enable_x64(True):
        pooled = episode.replace(support=episode.support.mean((1, 2)), query=episode.query.mean((1, 2)))
        direction = np.random.default_rng(1).normal(size=pooled.support.shape)

        @jax.jit
        def all_of(maps, pooled):
            def moved(t):
                return function(pooled.replace(support=pooled.support + t * direction)).std()

            steps = jax.vmap(moved)(np.array([1e-5, -1e-5]))
            at_once = jax.vmap(function)(jax.tree.map(lambda *leaves: jnp.stack(leaves), pooled, pooled))
            return function(maps), function(pooled), at_once, jax.grad(moved)(0.0), steps

        of_maps, found, at_once, slope, steps = all_of(episode, pooled)
        np.testing.assert_allclose(of_maps, found, rtol=1e-10)
        np.testing.assert_allclose(at_once, np.stack([found, found]), rtol=1e-8, atol=1e-12)
        np.testing.assert_allclose(slope, (steps[0] - steps[1]) / 2e-5, rtol=1e-5)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_nan_and_zeros(name):
    episode = draw()
    of = jax.jit(FUNCTIONS[name])
    spoilt = episode.query.copy()
    spoilt[1, 2] = np.nan
    assert np.isnan(of(episode.replace(query=spoilt))).all(-1).tolist() == [i == 1 for i in range(15)]
    assert np.isnan(of(episode.replace(support=np.full_like(episode.support, np.nan)))).all()
    nothing = episode.replace(support=episode.support * 0, query=episode.query * 0)
    assert np.isfinite(of(nothing)).all()


def test_wrong_input_is_told():
    episode = draw()
    for message, call in {
        "expected an Episode, got 3": lambda: fewshot.linear_probe(3),
        "expected support of each of 3 classes, got labels \\[0\\]": lambda: fewshot.cosine_probe(
            episode.replace(support_labels=episode.support_labels * 0)
        ),
        "expected a center of shape \\(6,\\), got \\(5,\\)": lambda: fewshot.nearest_centroid(
            episode, center=np.zeros(5)
        ),
        "expected finite center, got 6 of 6": lambda: fewshot.nearest_centroid(
            episode, center=np.full(6, np.nan)
        ),
        "expected normalize as True or False, got 1": lambda: fewshot.nearest_centroid(episode, normalize=1),
        "expected penalty above 0, got 0": lambda: fewshot.linear_probe(episode, penalty=0),
        "expected num_steps of at least 1, got 0": lambda: fewshot.linear_probe(episode, num_steps=0),
        "expected scale above 0, got 0": lambda: fewshot.cosine_probe(episode, scale=0),
        "expected learning_rate above 0, got -1": lambda: fewshot.cosine_probe(episode, learning_rate=-1),
    }.items():
        with pytest.raises((TypeError, ValueError), match=message):
            call()
