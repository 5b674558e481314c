"""What holds for every head."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compiling import quick_jit

from jxai import fewshot


def loss_of(system, support_labels, query_labels):
    def loss(variables, support, query):
        return fewshot.head_loss(
            system.head,
            variables,
            support,
            support_labels,
            query,
            query_labels,
            way=system.way,
            shot=system.shot,
            guidance=fewshot.Guidance(guided_weight=0.8),
        )

    return loss


# RelationNet's is in test_guidance, and the graph network's has reference values too; through the cross-attention
# head's weights the gradient passes.
@pytest.mark.parametrize(
    "system", [pytest.param("graph", marks=pytest.mark.slow), "prototype", "matching"], indirect=True
)
def test_gradient_is_that_of_constant_weights(system):
    """Against differences of the loss whose weights stay what they are at the middle."""
    with jax.enable_x64(True):
        head, random = system.head, np.random.default_rng(3)
        variables = jax.tree.map(
            lambda leaf: np.asarray(leaf, np.float64), fewshot.part(system.variables, "head")
        )
        support, support_labels, query, query_labels = system.features(dtype=np.float64)

        def forward(variables, support, query):
            return head.apply(
                variables,
                support,
                support_labels,
                query,
                system.way,
                True,
                method="forward",
                mutable=["batch_stats"],
            )[0]

        def frozen(weights, variables, support, query):
            explained, plain = forward(variables, support, query)
            weighted, _ = head.apply(
                variables, explained * weights, True, method="scores", mutable=["batch_stats"]
            )
            return head.loss(plain, query_labels) + 0.8 * head.loss(weighted, query_labels)

        where = (variables, support, query)
        direction = jax.tree.map(lambda leaf: random.normal(size=leaf.shape), where)

        @quick_jit
        def slopes(where):
            loss = loss_of(system, support_labels, query_labels)
            (value, _), gradient = jax.value_and_grad(loss, argnums=(0, 1, 2), has_aux=True)(*where)
            weights = head.explain(variables, *forward(*where)).weights

            def along(t):
                return frozen(weights, *jax.tree.map(lambda a, d: a + t * d, where, direction))

            steps = jax.vmap(along)(jnp.array([0, 1e-6, -1e-6]))
            ours = sum(jax.tree.leaves(jax.tree.map(lambda g, d: (g * d).sum(), gradient, direction)))
            return (value, ours), (steps[0], (steps[1] - steps[2]) / 2e-6)

        for ours, expected in zip(*slopes(where), strict=True):
            np.testing.assert_allclose(ours, expected, rtol=1e-5)


@pytest.mark.parametrize("system", ["graph", "prototype", "matching", "cross attention"], indirect=True)
def test_episodes_at_once_and_alone_in_any_order_of_supports_have_the_same_loss(system):
    variables = fewshot.part(system.variables, "head")
    support, support_labels, query, query_labels = map(
        np.stack, zip(*(system.features(seed=n) for n in (0, 1)), strict=True)
    )
    order = np.random.default_rng(0).permutation(support.shape[1])

    @quick_jit
    def both(support, support_labels, query, query_labels):
        def loss(support, support_labels, query, query_labels):
            value, (_, metrics) = loss_of(system, support_labels, query_labels)(variables, support, query)
            return value, metrics

        given = (support, support_labels, query, query_labels)
        permuted = (support[1, order], support_labels[1, order], query[1], query_labels[1])
        return jax.tree.map(lambda leaf: leaf[1], jax.vmap(loss)(*given)), loss(*permuted)

    at_once, alone = both(support, support_labels, query, query_labels)
    chex.assert_trees_all_close(at_once, alone, rtol=1e-4, atol=1e-6)
    assert {"loss_plain", "loss_guided"} <= set(at_once[1])


@pytest.mark.parametrize("shot", [1, 2])
def test_the_whole_system_keeps_the_structure_of_its_statistics(system, shot):
    loss, (statistics, metrics) = jax.eval_shape(
        lambda variables, episode: fewshot.guided_loss(system.encoder, system.head, variables, episode),
        system.variables,
        jax.tree.map(jnp.asarray, system.episode(shot=shot)),
    )
    assert loss.shape == () and metrics["loss_guided"].shape == ()
    chex.assert_trees_all_equal_shapes_and_dtypes(
        statistics, jax.tree.map(jnp.asarray, system.variables["batch_stats"])
    )


@pytest.mark.parametrize(
    "system",
    [
        "graph",
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in ("relation", "prototype", "matching", "cross attention")
        ),
    ],
    indirect=True,
)
def test_nan_is_no_low_loss_and_no_right_answer(system):
    """Of a picture or of weights, at one place: the guided loss is not finite, nor are the answers right."""
    variables, episode = system.variables, system.episode()

    @quick_jit
    def measured(variables, episode):
        loss, (_, metrics) = fewshot.guided_loss(system.encoder, system.head, variables, episode)
        return loss, metrics["accuracy"]

    def spoil(leaf):
        spoilt = np.array(leaf)
        spoilt.flat[spoilt.size // 2] = np.nan
        return spoilt

    def spoil_first(part):
        tree, seen = variables["params"].get(part, {}), []

        def first(leaf):
            seen.append(leaf)
            return spoil(leaf) if len(seen) == 1 else leaf

        params = {**variables["params"], part: jax.tree.map(first, tree)}
        return {**variables, "params": params}, bool(seen)

    loss, accuracy = measured(variables, episode)
    assert np.isfinite(loss)
    for name, (found_variables, found_episode, accuracy_of_none) in {
        "a support picture": (variables, dataclasses.replace(episode, support=spoil(episode.support)), False),
        "a query picture": (variables, dataclasses.replace(episode, query=spoil(episode.query)), False),
        "all support pictures": (
            variables,
            dataclasses.replace(episode, support=np.full_like(episode.support, np.nan)),
            True,
        ),
        "the encoder's weights": (spoil_first("encoder")[0], episode, True),
        **({"the head's weights": (spoil_first("head")[0], episode, True)} if spoil_first("head")[1] else {}),
    }.items():
        loss, accuracy = measured(found_variables, found_episode)
        assert not np.isfinite(loss), name
        assert accuracy == 0 if accuracy_of_none else accuracy < 1, name


def test_features_and_weights_of_nan_answer_no_query(system):
    support, _, query, _ = system.features()
    features, count = np.concatenate([support, query]), len(support)
    episodes = np.arange(count)[None], np.arange(count, len(features))[None]

    def accuracy(variables, features):
        given = (system.head, variables, features, *episodes)
        return fewshot.episode_accuracies(*given, way=system.way).item()

    assert accuracy(system.variables, features) > 0
    nan = jax.tree.map(lambda leaf: np.full_like(leaf, np.nan), system.variables)
    if jax.tree.leaves(nan["params"].get("head", {})):
        assert accuracy(nan, features) == 0
    assert accuracy(system.variables, np.full_like(features, np.nan)) == 0
