"""What holds for every head."""

import dataclasses
from typing import Any

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compiling import quick_jit

from jxai import fewshot
from jxai.fewshot import checks
from jxai.fewshot import episode as episodes
from jxai.fewshot.heads import head as heads


def loss_of(system, variables, episode):
    return fewshot.head_loss(system.head, variables, episode, guidance=fewshot.Guidance(guided_weight=0.8))


# RelationNet's is in test_guidance, and the graph network's has reference values too; through the cross-attention
# head's weights the gradient passes.
@pytest.mark.parametrize(
    "system", [pytest.param("graph", marks=pytest.mark.slow), "prototype", "matching", "FEAT"], indirect=True
)
def test_gradient_is_that_of_constant_weights(system):
    """Against differences of the loss whose weights stay what they are at the middle."""
    with jax.enable_x64(True):
        head, random = system.head, np.random.default_rng(3)
        variables = jax.tree.map(
            lambda leaf: np.asarray(leaf, np.float64), fewshot.part(system.variables, "head")
        )
        episode = system.features(dtype=np.float64)

        def of(support, query):
            return episode.replace(support=support, query=query)

        def forward(variables, *sets):
            return head.apply(variables, of(*sets), True, method="forward", mutable=["batch_stats"])[0]

        def frozen(weights, variables, support, query):
            explained, plain = forward(variables, support, query)
            weighted, _ = head.apply(
                variables, explained * weights, True, method="scores", mutable=["batch_stats"]
            )
            labels = episode.query_labels
            auxiliary = head.apply(variables, explained, of(support, query), method="auxiliary_loss")
            return (
                head.loss(plain, labels)
                + 0.8 * head.loss(weighted, labels)
                + (0.0 if auxiliary is None else auxiliary)
            )

        where = (variables, episode.support, episode.query)
        direction = jax.tree.map(lambda leaf: random.normal(size=leaf.shape), where)

        @quick_jit
        def slopes(where):
            def loss(variables, *sets):
                return loss_of(system, variables, of(*sets))

            (value, _), gradient = jax.value_and_grad(loss, argnums=(0, 1, 2), has_aux=True)(*where)
            weights = head.explain(variables, *forward(*where)).weights

            def along(t):
                return frozen(weights, *jax.tree.map(lambda a, d: a + t * d, where, direction))

            steps = jax.vmap(along)(jnp.array([0, 1e-6, -1e-6]))
            ours = sum(jax.tree.leaves(jax.tree.map(lambda g, d: (g * d).sum(), gradient, direction)))
            return (value, ours), (steps[0], (steps[1] - steps[2]) / 2e-6)

        for ours, expected in zip(*slopes(where), strict=True):
            np.testing.assert_allclose(ours, expected, rtol=1e-5)


@pytest.mark.parametrize(
    "system",
    [
        "prototype",
        "matching",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("relation", "cross attention")),
    ],
    indirect=True,
)
def test_guidance_says_whether_the_gradient_passes_through_the_weights(system):
    """Against differences of the loss with weights that follow the features, and with weights that stay."""
    with jax.enable_x64(True):
        head, episode = system.head, system.features(dtype=np.float64)
        variables = jax.tree.map(
            lambda leaf: np.asarray(leaf, np.float64), fewshot.part(system.variables, "head")
        )
        # Positions without features stay so: what normalizes them jumps there.
        direction = np.random.default_rng(3).normal(size=episode.query.shape) * (episode.query != 0)

        def scores(explained):
            return head.apply(variables, explained, True, method="scores", mutable=["batch_stats"])[0]

        def weights(query):
            given = episode.replace(query=query)
            (explained, plain), _ = head.apply(
                variables, given, True, method="forward", mutable=["batch_stats"]
            )
            return explained, head.explain(variables, explained, plain).weights

        def moved(t):
            query = episode.query + t * direction
            explained, own = weights(query)
            return [
                head.loss(scores(explained * w), episode.query_labels)
                for w in (own, weights(episode.query)[1])
            ]

        def slope(through):
            guidance = fewshot.Guidance(0.0, 1.0, through=through)

            def loss(query):
                return fewshot.head_loss(head, variables, episode.replace(query=query), guidance=guidance)[0]

            return jnp.vdot(jax.grad(loss)(episode.query), direction)

        @quick_jit
        def found():
            ahead, behind = (jnp.array(moved(t)) for t in (1e-6, -1e-6))
            return [slope(through) for through in (True, False, None)], (ahead - behind) / 2e-6

        (through, held, released), expected = found()
        np.testing.assert_allclose([through, held], expected, rtol=1e-5)
        assert released == (through if head.through else held) and abs(through / held - 1) > 1e-3


@pytest.mark.parametrize(
    "system", ["graph", "prototype", "matching", "cross attention", "FEAT"], indirect=True
)
def test_episodes_at_once_and_alone_in_any_order_of_supports_have_the_same_loss(system):
    variables = fewshot.part(system.variables, "head")
    episodes = [system.features(seed=n) for n in (0, 1)]
    order = np.random.default_rng(0).permutation(len(episodes[1].support))
    support, labels = episodes[1].support[order], episodes[1].support_labels[order]
    permuted = episodes[1].replace(support=support, support_labels=labels)

    @quick_jit
    def both(episodes, permuted):
        def loss(episode):
            value, (_, metrics) = loss_of(system, variables, episode)
            return value, metrics

        return jax.tree.map(lambda leaf: leaf[1], jax.vmap(loss)(episodes)), loss(permuted)

    at_once, alone = both(jax.tree.map(lambda *leaves: np.stack(leaves), *episodes), permuted)
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
            for name in ("relation", "prototype", "matching", "cross attention", "FEAT")
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
    episode = system.features()
    features, count = np.concatenate([episode.support, episode.query]), len(episode.support)
    episodes = np.arange(count)[None], np.arange(count, len(features))[None]

    def accuracy(variables, features):
        given = (system.head, variables, features, *episodes)
        return fewshot.episode_accuracies(*given, way=system.way).item()

    assert accuracy(system.variables, features) > 0
    nan = jax.tree.map(lambda leaf: np.full_like(leaf, np.nan), system.variables)
    if jax.tree.leaves(nan["params"].get("head", {})):
        assert accuracy(nan, features) == 0
    assert accuracy(system.variables, np.full_like(features, np.nan)) == 0


# Whatever the head, its base class calls it; the release's own head asked three times.
ONE = pytest.mark.parametrize(
    "system",
    [
        "relation",
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in ("graph", "prototype", "matching", "cross attention", "FEAT")
        ),
    ],
    indirect=True,
)


@ONE
def test_an_episode_is_looked_at_once(system, monkeypatch):
    """By whatever public function gets it; what that calls in turn trusts it."""
    looks = []
    check = checks.check_task
    for module in (episodes, heads):
        monkeypatch.setattr(module, "check_task", lambda *given: (looks.append(given), check(*given)))
    images, features = system.episode(), system.features()
    rows = np.arange(len(features.query))[None]
    of_head = fewshot.part(system.variables, "head")
    both, few = (system.encoder, system.head, system.variables), fewshot.Transduction(counts=(1, 2))
    calls = {
        "head": lambda: system.head.apply(of_head, features, mutable=["batch_stats"]),
        "forward": lambda: system.head.apply(of_head, features, method="forward", mutable=["batch_stats"]),
        "init": lambda: system.head.init(jax.random.key(0), features),
        "head_loss": lambda: fewshot.head_loss(system.head, of_head, features),
        "guided_loss": lambda: fewshot.guided_loss(*both, images),
        "transformed_loss": lambda: fewshot.transformed_loss(*both[:2], transformation={})(
            system.variables, images, jax.random.key(0), np.int32(0)
        ),
        "pixel_relevance": lambda: fewshot.pixel_relevance(*both, images)[0],
        "transductive_scores": lambda: fewshot.transductive_scores(
            system.head, of_head, features, transduction=few
        ),
    }
    for name, call in calls.items():
        looks.clear()
        jax.eval_shape(call)
        assert len(looks) == 1, name
    for transduction in (None, few):
        looks.clear()
        fewshot.episode_accuracies(
            system.head, system.variables, features.query, rows, rows, way=3, transduction=transduction
        )
        assert len(looks) <= 1  # none where it was traced before


def test_a_result_of_an_encoder_that_is_none_is_refused(tiny):
    class Wrong(nn.Module):
        gives: Any

        def __call__(self, x, *, train):
            return self.gives(x)

    episode = tiny.episode()
    for gives, message in {
        "a number an image": (lambda x: x.mean((1, 2, 3)), r"encoder's features of shape \(N, ...\)"),
        "integers": (lambda x: x.astype(int), "encoder's features of floats"),
        "fewer": (lambda x: x[:2], "encoder's features of 12 images, got"),
    }.values():
        with pytest.raises((TypeError, ValueError), match=message):
            jax.eval_shape(
                lambda gives=gives: fewshot.guided_loss(
                    Wrong(gives), tiny.head, tiny.variables, episode, guidance=fewshot.PLAIN
                )
            )


@ONE
def test_queries_without_labels_have_scores_and_no_loss(system):
    of_head, features = fewshot.part(system.variables, "head"), system.features()
    nameless = features.replace(query_labels=None)
    ours, expected = (
        system.head.apply(of_head, one, mutable=["batch_stats"])[0] for one in (nameless, features)
    )
    np.testing.assert_array_equal(ours, expected)
    with pytest.raises(TypeError, match="expected query_labels of integers, got None"):
        fewshot.head_loss(system.head, of_head, nameless)
