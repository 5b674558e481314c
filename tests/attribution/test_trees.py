"""Inputs that are trees, several arrays, token ids: as estimators explain the one array of all floats."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jxai import attribution, compiled, lrp

KEY = jax.random.key(3)
RANDOM = np.random.default_rng(7)
X = jnp.asarray(RANDOM.normal(size=(3, 6)), jnp.float32)
FIRST, SECOND = (jnp.asarray(RANDOM.normal(size=shape), jnp.float32) for shape in ((6, 5), (5, 3)))
TARGET = jnp.array([2, 0, 1])
GROUPS = np.array([0, 1, 1, 2, 0, 2])
CLOSE = {"rtol": 2e-5, "atol": 2e-6}


def f(x):
    return jnp.tanh(x @ FIRST) ** 2 @ SECOND


def split(x):
    return {"a": x[..., :3], "b": x[..., 3:]}


def of_tree(tree):
    return f(jnp.concatenate([tree["a"], tree["b"]], axis=-1))


def one(function, **options):
    return lambda f, key, x, target, of, **more: function(f, x, target, **options, **more)


def drawn(function, **options):
    return lambda f, key, x, target, of, **more: function(f, key, x, target, **options, **more)


def layered(function, **options):
    """Of a model's two parts: `f` is what is below the head."""
    return lambda f, key, x, target, of, **more: function(f, jnp.sin, x, target, **options, **more)


# Of (f, key, x, target, of): `of` makes of an array what x is made of.
ESTIMATORS = {
    "gradient": one(attribution.gradient),
    "input x gradient": one(attribution.input_x_gradient),
    "IG": lambda f, key, x, target, of, **o: attribution.integrated_gradients(
        f, x, target, num_steps=3, baseline=of(jnp.stack([X / 2, -X])), **o
    ),
    "IG from a number": one(attribution.integrated_gradients, num_steps=3, baseline=0.5),
    "IG of LRP": one(
        attribution.integrated_gradients,
        num_steps=3,
        explain=functools.partial(lrp.relevance, composite=lrp.AttnLRP()),
    ),
    "SmoothGrad": drawn(attribution.smooth_grad, num_roots=3),
    "VarGrad": drawn(attribution.smooth_grad, num_roots=3, statistic="variance"),
    "SmoothGrad of IG": drawn(
        attribution.smooth_grad,
        num_roots=2,
        explain=functools.partial(attribution.integrated_gradients, num_steps=3),
    ),
    "SmoothTaylor": drawn(attribution.smooth_taylor, num_roots=3),
    "Taylor at roots": lambda f, key, x, target, of, **o: attribution.taylor_at_roots(
        f, x, of(jnp.stack([X / 2, -X])), target, **o
    ),
    "expected gradients": lambda f, key, x, target, of, **o: attribution.expected_gradients(
        f, key, x, target, references=of(X[:2] / 2), num_samples=3, **o
    ),
    "DeepLIFT": lambda f, key, x, target, of, **o: attribution.deep_lift(
        f, x, target, baseline=of(X / 2), **o
    ),
    "DeepLIFT SHAP": lambda f, key, x, target, of, **o: attribution.deep_lift_shap(
        f, x, target, references=of(X[:2] / 2), **o
    ),
    "guided IG": one(attribution.guided_ig, num_steps=5, max_distance=0.3),
    "ablation": one(attribution.feature_ablation),
    "ablation of groups": lambda f, key, x, target, of, **o: attribution.feature_ablation(
        f, x, target, feature_mask=of(GROUPS), baseline=of(X / 2), **o
    ),
    "permutation": drawn(attribution.feature_permutation, num_permutations=2),
    "Shapley sampling": lambda f, key, x, target, of, **o: attribution.shapley_sampling(
        f, key, x, target, feature_mask=of(GROUPS), num_permutations=2, **o
    ),
    "KernelSHAP": drawn(attribution.kernel_shap, num_samples=20),
    "LIME": drawn(attribution.lime, num_samples=20),
    "conductance": layered(attribution.conductance, num_steps=3),
    "internal influence": layered(attribution.internal_influence, num_steps=3),
    "neuron conductance": layered(attribution.neuron_conductance, num_steps=3, neurons=[1.0, 0.0, 1.0]),
}
WITHOUT_CHUNKS = ("gradient", "input x gradient")
SOME = ("gradient", "IG", "ablation of groups", "neuron conductance")


def whole(found):
    """What was found of a tree, as of the array."""
    return jnp.concatenate([found["a"], found["b"]], axis=-1) if isinstance(found, dict) else found


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in SOME else pytest.mark.slow) for name in ESTIMATORS]
)
def test_a_tree_is_the_array_of_its_floats(name):
    expected = jax.jit(lambda x: ESTIMATORS[name](f, KEY, x, TARGET, lambda x: x))(X)
    found = jax.jit(lambda x: ESTIMATORS[name](of_tree, KEY, x, TARGET, split))(split(X))
    np.testing.assert_allclose(whole(found), expected, **CLOSE)
    assert np.abs(expected).max() > 0
    # In chunks, without jit.
    options = {} if name in WITHOUT_CHUNKS else {"chunk_size": 2}
    chunked = ESTIMATORS[name](of_tree, KEY, split(X), TARGET, split, **options)
    np.testing.assert_allclose(whole(chunked), expected, **CLOSE)
    assert not isinstance(found, dict) or jax.tree.structure(found) == jax.tree.structure(split(X))


def test_a_tuple_is_the_arguments_of_f():
    a, b = X[:, :3], X[:, 3:]
    found = attribution.integrated_gradients(
        lambda a, b: f(jnp.concatenate([a, b], axis=1)), (a, b), TARGET, num_steps=3
    )
    expected = attribution.integrated_gradients(f, X, TARGET, num_steps=3)
    assert isinstance(found, tuple)
    np.testing.assert_allclose(jnp.concatenate(found, axis=1), expected, **CLOSE)
    delta = attribution.convergence_delta(
        lambda a, b: f(jnp.concatenate([a, b], axis=1)), (a, b), TARGET, found
    )
    np.testing.assert_allclose(delta, attribution.convergence_delta(f, X, TARGET, expected), **CLOSE)


@pytest.mark.parametrize("chunk_size", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_integers_go_along_with_their_rows(chunk_size):
    scale, valid = jnp.array([[1], [2], [3]]), jnp.array([True, False, True])

    def scaled(tree):
        return f(tree["x"] * tree["scale"]) * jnp.where(tree["valid"], 1.0, -1.0)[:, None]

    tree = {"x": X.astype(jnp.bfloat16), "y": X[:, :1], "scale": scale, "valid": valid}
    found = attribution.smooth_taylor(scaled, KEY, tree, TARGET, num_roots=5, chunk_size=chunk_size)
    assert [found[name].dtype for name in tree] == [jnp.bfloat16, *[jnp.float32] * 3]
    assert (found["scale"] == 0).all() and (found["valid"] == 0).all() and (found["y"] == 0).all()
    tree["x"] = X
    found = attribution.feature_ablation(scaled, tree, TARGET, chunk_size=chunk_size)["x"]
    sign = jnp.array([1.0, -1.0, 1.0])[:, None]
    expected = attribution.feature_ablation(lambda x: f(x), X * scale, TARGET) * sign
    np.testing.assert_allclose(found, expected, **CLOSE)


# Tokens.

TABLE = jnp.asarray(RANDOM.normal(size=(9, 6)), jnp.float32)
IDS = jnp.array([[1, 2, 3, 3], [4, 1, 8, 0], [7, 7, 7, 2]])


def of_embeddings(e):
    return f(e.mean(axis=1) + e[:, 0] * e[:, -1])


LOOKUPS = {
    "index": lambda ids: TABLE[ids],
    "take": lambda ids: jnp.take(TABLE, ids, axis=0),
    "vmap": jax.vmap(lambda ids: TABLE[ids]),
    "jit": jax.jit(lambda ids: TABLE[ids]),
    "Linen": lambda ids: nn.Embed(9, 6).apply({"params": {"embedding": TABLE}}, ids),
    "in pieces": lambda ids: jnp.concatenate([TABLE[ids[:, :2]], TABLE[ids[:, 2:]]], axis=1),
    "shifted": lambda ids: jnp.concatenate([TABLE[:1], TABLE])[ids + 1],
    "reversed": lambda ids: TABLE[ids[:, ::-1]][:, ::-1],
    "checkpoint": jax.checkpoint(lambda ids: TABLE[ids]),
}


@pytest.mark.parametrize(
    "lookup",
    [
        pytest.param(name, marks=() if name in ("index", "Linen", "reversed") else pytest.mark.slow)
        for name in LOOKUPS
    ],
)
def test_tokens_have_what_their_embeddings_have(lookup):
    found = attribution.integrated_gradients(
        lambda ids: of_embeddings(LOOKUPS[lookup](ids)), IDS, TARGET, num_steps=3, chunk_size=4
    )
    expected = attribution.integrated_gradients(of_embeddings, TABLE[IDS], TARGET, num_steps=3)
    np.testing.assert_allclose(found, expected.sum(axis=-1), **CLOSE)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name == "gradient" else pytest.mark.slow)
        for name in (
            "gradient",
            "input x gradient",
            "IG from a number",
            "IG of LRP",
            "SmoothGrad",
            "SmoothTaylor",
        )
    ],
)
def test_every_way_of_tokens(name):
    def from_ids(ids):
        return of_embeddings(TABLE[ids])

    found = jax.jit(lambda ids: ESTIMATORS[name](from_ids, KEY, ids, TARGET, None))(IDS)
    # Noise is drawn of the flat embeddings.
    flat = jax.jit(
        lambda e: ESTIMATORS[name](lambda e: of_embeddings(e.reshape(len(e), 4, 6)), KEY, e, TARGET, None)
    )(TABLE[IDS].reshape(3, -1))
    np.testing.assert_allclose(found, flat.reshape(3, 4, 6).sum(axis=-1), **CLOSE)


def test_a_token_is_one_feature_and_baselines_may_be_tokens():
    def from_ids(ids):
        return of_embeddings(TABLE[ids])

    found = attribution.feature_ablation(from_ids, IDS, TARGET, baseline=jnp.array([0]))
    drops = [
        from_ids(IDS)[jnp.arange(3), TARGET] - from_ids(IDS.at[:, k].set(0))[jnp.arange(3), TARGET]
        for k in range(4)
    ]
    np.testing.assert_allclose(found, jnp.stack(drops, axis=1), **CLOSE)
    words = np.array([0, 0, 1, 1])
    found = attribution.kernel_shap(from_ids, KEY, IDS, TARGET, feature_mask=words)
    expected = attribution.kernel_shap(
        of_embeddings, KEY, TABLE[IDS], TARGET, feature_mask=np.broadcast_to(words[:, None], (4, 6))
    )
    np.testing.assert_allclose(found, expected.sum(axis=-1), rtol=1e-4, atol=1e-5)
    path = attribution.integrated_gradients(from_ids, IDS, TARGET, baseline=jnp.array([0]), num_steps=400)
    delta = attribution.convergence_delta(from_ids, IDS, TARGET, path, baseline=jnp.array([0]))
    assert np.abs(delta).max() < 0.05


def test_constants_and_masks_are_not_perturbed():
    """A class token in front, and which tokens count: what is not the ids' own stays; drops are exact."""

    def from_tree(tree):
        ids = jnp.pad(tree["ids"], ((0, 0), (1, 0)), constant_values=5)
        e = TABLE[ids] * jnp.pad(tree["mask"], ((0, 0), (1, 0)), constant_values=1)[..., None]
        return of_embeddings(e)

    mask = jnp.array([[1, 1, 1, 0]] * 3)
    found = attribution.feature_ablation(from_tree, {"ids": IDS, "mask": mask}, TARGET)

    def without(k):
        e = jnp.concatenate([jnp.broadcast_to(TABLE[5], (3, 1, 6)), TABLE[IDS] * mask[..., None]], axis=1)
        return of_embeddings(e if k is None else e.at[:, 1 + k].set(0))[jnp.arange(3), TARGET]

    expected = jnp.stack([without(None) - without(k) for k in range(4)], axis=1)
    np.testing.assert_allclose(found["ids"], expected, **CLOSE)
    assert (found["mask"] == 0).all()
    np.testing.assert_allclose(found["ids"][:, 3], 0, atol=1e-6)


def test_nothing_is_promoted_or_compiled_twice():
    """Under strict promotion; and an eager call with other weights of the same shapes compiles nothing anew."""

    def run(scale):
        table, mask = TABLE * scale, jnp.ones((3, 4), jnp.int32)

        def from_tree(tree):
            return of_embeddings(table[tree["ids"]] * tree["mask"][..., None].astype(jnp.float32))

        x = {"ids": IDS, "mask": mask}
        return [
            attribution.integrated_gradients(from_tree, x, TARGET, num_steps=2)["ids"],
            attribution.feature_ablation(from_tree, x, TARGET)["ids"],
        ]

    with jax.numpy_dtype_promotion("strict"):
        first = run(1.0)
        programs = set(compiled._programs)
        second = run(2.0)
    assert set(compiled._programs) == programs
    assert all(np.abs(a - b).max() > 0.1 for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize(
    ("x", "message"),
    [
        ({}, "got an empty one"),
        ((), "got an empty one"),
        ({"a": X, "b": None}, r"got None at x\['b'\]"),
        ({"a": X, "b": X[:2]}, r"of one batch \(N, ...\), got \(2, 6\) at x\['b'\]"),
        ({"a": X, "b": 1.0}, r"got \(\) at x\['b'\]"),
        ({"a": X, "b": X.at[0, 0].set(jnp.nan)}, r"finite `x\['b'\]`"),
        ({"a": X, "b": X * 1j}, r"`x\['b'\]` of floats, got complex64"),
        ({"a": X, "b": "text"}, "expected an array of numbers"),
        ({"a": IDS}, "expected `x` of floats, got int32: .* looks them up in an embedding"),
        ({"a": IDS, "b": IDS > 2}, r"got int32 at x\['a'\], bool at x\['b'\]"),
    ],
)
def test_wrong_trees_are_named(x, message):
    for run in (
        lambda: attribution.gradient(lambda *_: f(X), x, TARGET),
        lambda: attribution.kernel_shap(lambda *_: f(X), KEY, x, TARGET),
    ):
        with pytest.raises((ValueError, TypeError), match=message):
            run()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"baseline": {"a": X[:, :3]}}, "baseline as a number or a tree of x's structure"),
        ({"baseline": X}, "baseline as a number or a tree of x's structure"),
        ({"baseline": {"a": X[:, :2], "b": 0.0}}, r"baseline that broadcasts to \(3, 3\)"),
        (
            {"baseline": split(jnp.stack([X, X])) | {"b": jnp.stack([X[:, 3:]] * 3)}},
            "as many of baseline in each leaf",
        ),
    ],
)
def test_wrong_options_of_trees_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        attribution.integrated_gradients(of_tree, split(X), TARGET, **options)


def test_what_takes_no_tree_says_so():
    tree = split(X)
    for run in (
        lambda: attribution.occlusion(of_tree, tree, TARGET),
        lambda: attribution.blur_ig(of_tree, tree, TARGET),
        lambda: attribution.rise(of_tree, KEY, tree, TARGET),
        lambda: attribution.grad_cam(of_tree, f, tree, TARGET),
        lambda: attribution.eigen_cam(of_tree, tree),
    ):
        with pytest.raises(ValueError, match=r"expected one array of .*, got a tree of 2"):
            run()
    with pytest.raises(ValueError, match="without gaps"):
        attribution.feature_ablation(of_tree, tree, TARGET, feature_mask={"a": [0, 1, 2], "b": [4, 5, 6]})
    with pytest.raises(ValueError, match="references"):
        attribution.deep_lift_shap(of_tree, tree, TARGET, references={"a": X[:, :3], "b": X})


def test_ids_in_loops_or_behind_another_axis_are_refused():
    def looped(ids):
        return f(jax.lax.scan(lambda c, i: (c + TABLE[i], None), jnp.zeros((len(ids), 6)), ids.T)[0])

    with pytest.raises(ValueError, match="outside of loops, got some in a scan"):
        attribution.gradient(looped, IDS, TARGET)
    with pytest.raises(ValueError, match="keep the axis of inputs in front"):
        attribution.gradient(lambda ids: of_embeddings(jnp.swapaxes(TABLE[ids.T], 0, 1)), IDS, TARGET)
    with pytest.raises(ValueError, match="keep the axis of inputs in front"):  # as many tokens as inputs
        attribution.gradient(lambda ids: of_embeddings(jnp.swapaxes(TABLE[ids.T], 0, 1)), IDS[:, :3], TARGET)
    with pytest.raises(ValueError, match="keep the axis of inputs in front"):
        attribution.gradient(lambda ids: of_embeddings(TABLE[ids.reshape(-1)].reshape(-1, 4, 6)), IDS, TARGET)
    with pytest.raises(ValueError, match="take the 3 rows that it is given"):
        attribution.smooth_grad(
            lambda ids: of_embeddings(TABLE[ids]),
            KEY,
            IDS,
            TARGET,
            num_roots=1,
            explain=functools.partial(attribution.integrated_gradients, num_steps=3),
        )


@pytest.mark.parametrize("size", [6, 1])
def test_occlusion_of_a_table(size):
    x = X[:, :size]
    found = attribution.occlusion(lambda x: x @ FIRST[:size], x, TARGET)
    np.testing.assert_allclose(found, x * FIRST[:size, TARGET].T, **CLOSE)


def test_occlusion_of_channels_first():
    x = jnp.asarray(RANDOM.normal(size=(3, 2, 5, 6)), jnp.float32)
    kernel = jnp.asarray(RANDOM.normal(size=(5 * 6 * 2, 3)), jnp.float32)

    def last(x):
        return jnp.tanh(x.reshape(len(x), -1) @ kernel)

    options = {"window": 3, "stride": 2}
    found = attribution.occlusion(
        lambda x: last(jnp.moveaxis(x, 1, -1)), x, TARGET, channel_axis=1, **options
    )
    expected = attribution.occlusion(last, jnp.moveaxis(x, 1, -1), TARGET, **options)
    np.testing.assert_allclose(found, jnp.moveaxis(expected, -1, 1), **CLOSE)
