"""Losses of multi-domain training: their values, the second-order gradient, and the step that takes them."""

import dataclasses

import chex
import jax
import numpy as np
import optax
import pytest

from jxai import fewshot, training

RATE, CLASSES = 0.1, 7
FIRST = np.int32(0)  # the number of the step
GUIDANCES = {"plain": fewshot.PLAIN, "guided": fewshot.Guidance()}


def with_all(system):
    """The system with a transformation to learn, whose gammas differ, and a classifier."""
    transformation = jax.device_get(fewshot.init_transformation(system.encoder, image_size=system.side))
    random = np.random.default_rng(1)
    transformation = jax.tree.map(
        lambda leaf: (leaf + 0.3 * random.normal(size=leaf.shape)).astype(np.float32), transformation
    )
    drawn = jax.device_get(
        jax.jit(
            lambda key: fewshot.init_multi_domain(
                system.encoder,
                system.head,
                key,
                image_size=system.side,
                num_classes=CLASSES,
                transformation=transformation,
            )
        )(jax.random.key(0))
    )
    variables = {kind: {**drawn[kind], **system.variables[kind]} for kind in drawn}
    return dataclasses.replace(system, variables=variables)


@pytest.fixture(scope="module")
def domains(tiny):
    """Behind `tiny`'s encoder a head that compiles in no time."""
    variables = {kind: {**tree, "head": {}} for kind, tree in tiny.variables.items()}
    return with_all(dataclasses.replace(tiny, head=fewshot.PrototypeHead(), variables=variables))


def episode(system, seed, classes=True):
    found = system.episode(seed=seed)
    return dataclasses.replace(found, query_classes=found.query_labels + 2) if classes else found


def pair(system, classes=True):
    return episode(system, 0, classes), episode(system, 1, classes)


def without(variables, *names):
    return {
        kind: {name: tree[name] for name in tree if name not in names} for kind, tree in variables.items()
    }


def test_variables_beside_those_of_the_system(domains):
    def init(**options):
        return jax.eval_shape(
            lambda key: fewshot.init_multi_domain(
                domains.encoder, domains.head, key, image_size=domains.side, **options
            ),
            jax.random.key(0),
        )

    assert {kind: set(tree) for kind, tree in init().items()} == {
        "params": {"encoder", "head"},
        "batch_stats": {"encoder", "head"},
    }
    variables = domains.variables
    assert set(variables["params"]) == {"encoder", "head", "classifier", "transformation"}
    assert variables["params"]["classifier"]["kernel"].shape == (4, CLASSES)
    assert variables["params"]["transformation"].keys() == {"bn0"}
    assert set(variables["batch_stats"]) == {"encoder", "head"}


@pytest.mark.parametrize("kind", GUIDANCES)
def test_fixed_transformation_is_the_guided_loss_of_the_transformed_encoder(domains, kind):
    variables = without(domains.variables, "classifier", "transformation")
    transformation = domains.variables["params"]["transformation"]
    guidance, key = GUIDANCES[kind], jax.random.key(5)
    loss_fn = fewshot.transformed_loss(
        domains.encoder, domains.head, transformation=transformation, guidance=guidance
    )
    noisy = fewshot.Transformed(domains.encoder, key, transformation)
    example = episode(domains, 0, classes=False)
    ours, expected, plain = jax.jit(
        lambda: (
            loss_fn(variables, example, key, FIRST),
            fewshot.guided_loss(noisy, domains.head, variables, example, guidance=guidance),
            fewshot.guided_loss(domains.encoder, domains.head, variables, example, guidance=guidance),
        )
    )()
    chex.assert_trees_all_close(ours, expected, rtol=1e-5)
    assert abs(float(ours[0] - plain[0])) > 1e-4


def test_auxiliary_classifier(domains):
    """Cross-entropy of a dense layer on the queries' pooled features, with a weight that decays by the step."""
    variables = without(domains.variables, "transformation")
    loss_fn = fewshot.transformed_loss(
        domains.encoder, domains.head, transformation={}, guidance=fewshot.PLAIN, num_steps=50
    )
    example = episode(domains, 0)
    images = np.concatenate([example.support, example.query])
    features, _ = jax.jit(
        lambda: domains.encoder.apply(
            fewshot.part(variables, "encoder"), images, train=True, mutable=["batch_stats"]
        )
    )()
    dense = variables["params"]["classifier"]
    pooled = np.asarray(features)[len(example.support) :].mean((1, 2))
    logits = pooled @ np.asarray(dense["kernel"]) + np.asarray(dense["bias"])
    log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    expected = -np.mean(log_p[np.arange(len(pooled)), example.query_classes])

    at = jax.jit(lambda step: loss_fn(variables, example, jax.random.key(0), step))
    for step in (0, 1, 2, 49):
        loss, (statistics, metrics) = at(np.int32(step))
        weight = 0.9 ** (20 * step / 50)
        np.testing.assert_allclose(metrics["loss_classifier"], expected, rtol=1e-5)
        np.testing.assert_allclose(loss, metrics["loss_plain"] + weight * expected, rtol=1e-5)
        np.testing.assert_allclose(metrics["loss"], loss)
        chex.assert_trees_all_equal_structs(statistics, variables["batch_stats"])
    held, _ = jax.jit(
        lambda: fewshot.guided_loss(
            domains.encoder,
            domains.head,
            variables,
            example,
            guidance=fewshot.PLAIN,
            classifier_weight=0.25,
        )
    )()
    np.testing.assert_allclose(held, metrics["loss_plain"] + 0.25 * expected, rtol=1e-5)


def test_a_classifier_without_classes(domains):
    loss_fn = fewshot.transformed_loss(domains.encoder, domains.head, transformation={})
    with pytest.raises(ValueError, match=r"expected episodes with `query_classes`.*data\.episode_dataset"):
        jax.eval_shape(
            lambda: loss_fn(domains.variables, episode(domains, 0, classes=False), jax.random.key(0), FIRST)
        )


def in_float64(tree):
    return jax.tree.map(lambda x: x.astype(np.float64) if x.dtype == np.float32 else x, jax.device_get(tree))


def with_weights(head, explanation):
    """The head with an explanation that stays what it is, whatever is explained."""

    class Held(type(head)):
        def explain(self, variables, explained, scores, *, strength=1.0):
            return explanation

    fields = {field.name: getattr(head, field.name) for field in dataclasses.fields(head)}
    return Held(**{name: value for name, value in fields.items() if name != "parent"})


def explanation_of(encoder, head, variables, episode):
    """Of the plain pass on an episode."""
    features, _ = encoder.apply(
        fewshot.part(variables, "encoder"),
        np.concatenate([episode.support, episode.query]),
        train=True,
        mutable=["batch_stats"],
    )
    of_head, count = fewshot.part(variables, "head"), len(episode.support)
    (explained, scores), kept = head.apply(
        of_head,
        episode.replace(support=features[:count], query=features[count:]),
        True,
        method="forward",
        mutable=["batch_stats", "explanation"],
    )
    return head.explain({**of_head, "explanation": kept.get("explanation", {})}, explained, scores)


class ByHand:
    """The quantities of one pair of episodes, composed without the surrogate."""

    def __init__(self, system, guidance):
        self.system, self.guidance, self.key = system, guidance, jax.random.key(5)
        self.variables = in_float64(system.variables)
        self.seen, self.unseen = in_float64(pair(system))
        self.model = {name: self.variables["params"][name] for name in ("encoder", "head", "classifier")}
        self.transformation = self.variables["params"]["transformation"]

    def of(self, params):
        return {"params": params, "batch_stats": self.variables["batch_stats"]}

    def step(self, transformation, head=None):
        """Seen loss with what comes beside it, its gradient, and the model after a step along it."""
        loss_fn = fewshot.transformed_loss(
            self.system.encoder,
            self.system.head if head is None else head,
            transformation=transformation,
            guidance=self.guidance,
        )
        found, gradient = jax.value_and_grad(
            lambda model: loss_fn(self.of(model), self.seen, self.key, FIRST), has_aux=True
        )(self.model)
        return found, gradient, jax.tree.map(lambda p, g: p - RATE * g, self.model, gradient)

    def unseen_loss(self, model, head=None):
        head = self.system.head if head is None else head
        model = {name: tree for name, tree in model.items() if name != "classifier"}
        return fewshot.guided_loss(
            self.system.encoder, head, self.of(model), self.unseen, guidance=self.guidance
        )

    def explanations(self):
        """Of the two losses, for the transformation as it stands."""
        encoder, head = self.system.encoder, self.system.head
        noisy = fewshot.Transformed(encoder, self.key, self.transformation)
        *_, stepped = self.step(self.transformation)
        return (
            explanation_of(noisy, head, self.of(self.model), self.seen),
            explanation_of(encoder, head, self.of(stepped), self.unseen),
        )


@pytest.mark.slow
def test_learned_transformation_in_float64(domains):
    check_learned_transformation(domains, fewshot.Guidance())


@pytest.mark.slow
@pytest.mark.parametrize("kind", GUIDANCES)
@pytest.mark.parametrize(
    "system",
    [
        *("relation", "graph", "prototype", "matching", "cross attention"),
        pytest.param("FEAT", marks=pytest.mark.long),
    ],
    indirect=True,
)
def test_learned_transformation_of_every_head(system, kind):
    check_learned_transformation(with_all(system), GUIDANCES[kind])


@pytest.mark.slow
@pytest.mark.parametrize("kind", GUIDANCES)
def test_learned_transformation_where_gradients_pass_through_explanations(tiny, kind):
    head = fewshot.CrossAttentionHead(num_classes=CLASSES, hidden=3, temperature=1.0)
    variables = jax.jit(
        lambda: fewshot.init_variables(tiny.encoder, head, jax.random.key(0), image_size=tiny.side)
    )()
    check_learned_transformation(
        with_all(dataclasses.replace(tiny, head=head, variables=jax.device_get(variables))), GUIDANCES[kind]
    )


def check_learned_transformation(system, guidance):
    """The model's gradient is the seen loss's; the transformation's is a finite difference of the unseen one's.

    Where no gradient passes through explanations, they are held constant while the transformation moves.
    """
    with jax.enable_x64(True):
        by_hand = ByHand(system, guidance)
        loss_fn = fewshot.learned_transformation_loss(
            system.encoder, system.head, learning_rate=RATE, guidance=guidance
        )

        @jax.jit
        def ours(params):
            def loss(params):
                loss, aux = loss_fn(by_hand.of(params), (by_hand.seen, by_hand.unseen), by_hand.key, FIRST)
                return loss, (loss, aux)

            return jax.grad(loss, has_aux=True)(params)

        gradient, (loss, (statistics, metrics)) = ours(by_hand.variables["params"])
        (seen_loss, (seen_statistics, _)), seen_gradient, stepped = jax.jit(by_hand.step)(
            by_hand.transformation
        )
        unseen_loss, (_, unseen_metrics) = jax.jit(by_hand.unseen_loss)(stepped)
        np.testing.assert_allclose([loss, metrics["loss"]], [seen_loss, seen_loss], rtol=1e-12)
        np.testing.assert_allclose(metrics["loss_unseen"], unseen_loss, rtol=1e-10)
        assert metrics["accuracy_unseen"] == unseen_metrics["accuracy"]
        chex.assert_trees_all_close(statistics, seen_statistics, rtol=1e-10)
        of_model = {name: gradient[name] for name in by_hand.model}
        chex.assert_trees_all_close(of_model, seen_gradient, rtol=1e-8, atol=1e-12)

        heads = [None, None]
        if guidance.guided_weight != 0 and not isinstance(system.head, fewshot.CrossAttentionHead):
            heads = [with_weights(system.head, one) for one in jax.jit(by_hand.explanations)()]

        @jax.jit
        def after(transformation):
            *_, stepped = by_hand.step(transformation, heads[0])
            return by_hand.unseen_loss(stepped, heads[1])[0]

        np.testing.assert_allclose(after(by_hand.transformation), unseen_loss, rtol=1e-10)
        random = np.random.default_rng(0)
        for _ in range(3):
            direction = jax.tree.map(lambda x: random.normal(size=x.shape), by_hand.transformation)
            ahead, behind = (
                after(optax.tree.add_scale(by_hand.transformation, distance, direction))
                for distance in (1e-5, -1e-5)
            )
            slope = (ahead - behind) / 2e-5
            assert abs(slope) > 1e-5
            found = optax.tree.vdot(gradient["transformation"], direction)
            np.testing.assert_allclose(found, slope, rtol=1e-4, atol=1e-9)


def train(system, num_devices, deterministic, steps=2):
    """Parameters before and after some steps of 8 pairs, with the statistics and metrics."""
    optimizer = training.make_optimizer(
        training.OptimizerConfig("sgd", RATE),
        num_steps=10,
        parts={"transformation": training.OptimizerConfig(weight_decay=1e-8)},
    )
    loss_fn = fewshot.learned_transformation_loss(
        system.encoder, system.head, learning_rate=RATE, num_steps=10
    )
    devices = jax.local_devices()[:num_devices]
    step = training.pmap_step(
        chex.assert_max_traces(training.make_step(loss_fn, optimizer, deterministic=deterministic), n=1),
        devices=devices,
    )
    state = training.TrainState.create(jax.random.key(0), system.variables, optimizer=optimizer)
    replicated = training.replicate(state, devices=devices)
    metrics = {}
    chex.clear_trace_counter()
    for number in range(steps):
        pairs = [(episode(system, 16 * number + n), episode(system, 16 * number + 8 + n)) for n in range(8)]
        batch = jax.tree.map(lambda *leaves: np.stack(leaves), *pairs)
        replicated, metrics = step(replicated, training.shard(batch, num_devices))
    return state, *jax.device_get((training.unreplicate(replicated), training.unreplicate(metrics)))


@pytest.mark.slow
def test_the_step_trains_model_transformation_and_classifier(domains):
    before, after, metrics = train(domains, 2, deterministic=False)
    moved = jax.tree.map(lambda a, b: bool(np.any(a != b)), before.params, after.params)
    learnt = {name for name, tree in moved.items() if any(jax.tree.leaves(tree))}
    assert learnt == {"encoder", "classifier", "transformation"}  # the head has no parameters
    # Two updates of Adam at 1e-3, whatever the gradient: no further.
    change = jax.tree.map(
        lambda a, b: np.abs(a - b).max(), before.params["transformation"], after.params["transformation"]
    )
    assert max(jax.tree.leaves(change)) < 2.1e-3
    # After one of ten steps the classifier's loss counts 0.9^2.
    guided = fewshot.released_weight(domains.shot)
    parts = metrics["loss_plain"] + guided * metrics["loss_guided"] + 0.9**2 * metrics["loss_classifier"]
    np.testing.assert_allclose(metrics["loss"], parts, rtol=1e-5)
    assert {"loss", "loss_unseen", "accuracy_unseen", "loss_classifier", "grad_norm"} <= set(metrics)
    assert all(np.isfinite(value) for value in metrics.values())


@pytest.mark.slow
def test_the_step_is_bit_identical_on_one_and_two_devices(domains):
    (_, one, _), (_, two, _) = (train(domains, devices, deterministic=True) for devices in (1, 2))
    jax.tree.map(np.testing.assert_array_equal, (one.params, one.batch_stats), (two.params, two.batch_stats))


def test_a_checkpoint_with_the_weight_among_its_statistics_is_refused(domains, tmp_path):
    """As they were before losses got the step: the weight would be lost without a word."""
    optimizer = optax.sgd(RATE)
    state = training.TrainState.create(jax.random.key(0), domains.variables, optimizer=optimizer)
    weight = {"weight": np.float32(0.5)}
    former = dataclasses.replace(state, batch_stats={**state.batch_stats, "classifier": weight})
    with training.Checkpoints(tmp_path / "run") as checkpoints:
        checkpoints.save(former)
        with pytest.raises(
            ValueError, match=r"arrays of `state`, got .*batch_stats/classifier/weight.*build the model"
        ):
            checkpoints.restore(state)


def test_checkpoints_keep_transformation(domains, tmp_path):
    optimizer = training.make_optimizer(
        training.OptimizerConfig(),
        num_steps=10,
        parts={"transformation": training.OptimizerConfig(weight_decay=1e-8)},
    )
    state = training.TrainState.create(jax.random.key(0), domains.variables, optimizer=optimizer)
    with training.Checkpoints(tmp_path / "run") as checkpoints:
        checkpoints.save(state)
        restored = checkpoints.restore(jax.tree.map(lambda leaf: leaf, state)).state
    chex.assert_trees_all_equal(restored.variables, state.variables)
    chex.assert_trees_all_equal_structs(restored.opt_state, state.opt_state)
    loaded = training.load_variables(tmp_path / "run", which="latest")
    chex.assert_trees_all_equal(loaded["params"]["transformation"], state.params["transformation"])
