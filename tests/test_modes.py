"""Every mode of JAX, over the public functions.

What decides while a function is traced (strict promotion of dtypes and ranks, x64) is tried in the trace alone. The
slow tests run everything: `jax_debug_nans`, `jax_disable_jit`, transfer guards, two threads at once.
"""

import concurrent.futures
import contextlib
import functools
import importlib.util
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jxai import attribution, fewshot, lrp, metrics, models, training

_spec = importlib.util.spec_from_file_location("nan_cases", Path(__file__).with_name("test_nan.py"))
nan = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(nan)


@contextlib.contextmanager
def strict():
    """Both promotions refused in one trace: neither lets pass what the other would refuse."""
    with jax.numpy_rank_promotion("raise"), jax.numpy_dtype_promotion("strict"):
        yield


MODES = {"strict promotion": strict, "x64": lambda: jax.enable_x64(True)}
RUNNING = {"debug_nans": lambda: jax.debug_nans(True), "disable_jit": jax.disable_jit}
HEADS = (
    fewshot.RelationHead(features=4),
    fewshot.GraphHead(way=3, features=8, growth=4, widths=(6, 6)),
    fewshot.CrossAttentionHead(),
    fewshot.PrototypeHead(),
    fewshot.MatchingHead(),
    fewshot.FEATHead(),
)
FEATURES = jnp.asarray(np.random.default_rng(0).normal(size=(6, 5, 5, 4)), jnp.float32)
LABELS = jnp.repeat(jnp.arange(3, dtype=jnp.int32), 2)
EPISODE = fewshot.Episode(FEATURES, LABELS, FEATURES, LABELS, way=3)


def guided(head):
    variables = head.init(jax.random.key(0), EPISODE)
    return fewshot.head_loss(head, variables, EPISODE, guidance=fewshot.Guidance(1.0, 1.0))


def initial():
    """An encoder before a head whose layers are our own, and not Flax's."""
    encoder, head = models.encoder("conv4np", image_size=32), fewshot.RelationHead(features=4)
    return fewshot.init_variables(encoder, head, jax.random.key(0), image_size=32)


def transduced(head):
    variables = head.init(jax.random.key(0), EPISODE)
    few = fewshot.Transduction(counts=(1,))
    return fewshot.transductive_scores(head, variables, EPISODE, transduction=few)


def probed(name):
    given = {"center": jnp.zeros(4)} if name == "nearest_centroid" else {"num_steps": 3}
    return getattr(fewshot, name)(EPISODE, **given)


def encoded(name):
    encoder, x = models.encoder(name, image_size=32), jnp.zeros((2, 32, 32, 3), jnp.float32)
    variables = encoder.init(jax.random.key(0), x, train=False)
    return encoder.apply(variables, x, train=True, mutable=["batch_stats"])


def stepped():
    classifier = models.Classifier(models.encoder("conv4", image_size=32), num_classes=3)
    x, optimizer = jnp.zeros((2, 4, 32, 32, 3), jnp.float32), optax.sgd(0.1)
    variables = classifier.init(jax.random.key(0), x[0], train=False)
    state = training.TrainState.create(jax.random.key(1), variables, optimizer=optimizer)
    step = training.make_step(training.classification_loss(classifier, label_smoothing=0.1), optimizer)
    return step(state, {"image": x, "label": jnp.zeros((2, 4), jnp.int32)})


def network(x):
    return jax.nn.relu(x.reshape(len(x), -1) @ nan.WEIGHTS) + 1.0


CALLS = {
    **{name: lambda f=f: f(nan.HEATMAP) for name, f in nan.OF_HEATMAPS.items()},
    **{name: lambda f=f: f(nan.X, nan.HEATMAP) for name, f in nan.OF_BOTH.items()},
    **{
        name: lambda f=f: f(nan.X)
        for name, f in {**nan.OF_IMAGES, **nan.OF_NO_FUNCTION, **nan.ESTIMATORS}.items()
    },
    "uniform_baselines": lambda: attribution.uniform_baselines(
        nan.KEY, nan.X, count=2, low=jnp.zeros(3), high=1.0
    ),
    "feature_permutation": lambda: attribution.feature_permutation(
        nan.f, nan.KEY, nan.X, nan.TARGET, feature_mask=nan.HALVES, num_permutations=1
    ),
    "shuffled_parameters": lambda: metrics.shuffled_parameters(nan.KEY, {"a": nan.X}),
    **{f"guided {type(head).__name__}": lambda head=head: guided(head) for head in HEADS},
    **{f"transduced {type(head).__name__}": lambda head=head: transduced(head) for head in HEADS},
    **{name: lambda name=name: probed(name) for name in ("nearest_centroid", "linear_probe", "cosine_probe")},
    **{name: lambda name=name: encoded(name) for name in ("conv4", "conv4np", "resnet10")},
    "initial variables": initial,
    "training step": stepped,
    **{
        f"lrp {composite.__name__}": lambda composite=composite: lrp.relevance(
            network, nan.X, nan.TARGET, composite=composite()
        )
        for composite in (lrp.EpsilonPlus, lrp.GuidedBackprop)
    },
}
# Ended with the rewritten engine: a product of bool and float32 in rule.py.
UNMET = {("strict promotion", "lrp GuidedBackprop")}


COMPILED = ("guided", "transduced", "conv4", "resnet10", "initial variables", "training step")


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("mode", MODES)
def test_a_mode_of_tracing(mode, name):
    unmet = (mode, name) in UNMET
    with (
        MODES[mode](),
        pytest.raises((TypeError, ValueError), match="promotion") if unmet else contextlib.nullcontext(),
    ):
        jax.eval_shape(CALLS[name])


@pytest.mark.parametrize("dtype", ["float64", "bfloat16"])
@pytest.mark.parametrize("head", HEADS, ids=lambda head: type(head).__name__)
def test_features_of_another_dtype_than_the_parameters(head, dtype):
    """They promote, as in Flax's layers, plain and guided; parameters are of float32."""
    with jax.enable_x64(True):

        def guided(variables, features):
            episode = fewshot.Episode(features, LABELS, features, LABELS, way=3)
            return fewshot.head_loss(head, variables, episode, guidance=fewshot.Guidance(1.0, 1.0))[0]

        variables = jax.eval_shape(head.init, jax.random.key(0), EPISODE)
        features = jax.ShapeDtypeStruct(FEATURES.shape, dtype)
        slopes, of_features = jax.eval_shape(jax.grad(guided, argnums=(0, 1)), variables, features)
        assert of_features.dtype == dtype
        assert {leaf.dtype.name for leaf in jax.tree.leaves(slopes)} <= {"float32"}


def call(name):
    """A call of estimators and metrics as it is; of what is made for it, under `jit`."""
    compiled = name.startswith(COMPILED)
    return (jax.jit(lambda: CALLS[name]()) if compiled else CALLS[name])()


@functools.cache
def plain(name):
    """What a call gives in no mode: its arrays, as NumPy's."""
    return _arrays(call(name))


def _arrays(result):
    leaves = [
        leaf for leaf in jax.tree.leaves(result) if not jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    ]
    return [np.asarray(leaf) for leaf in leaves]


def _close(found, name):
    for one, right in zip(_arrays(found), plain(name), strict=True):
        np.testing.assert_allclose(one, right, rtol=2e-4, atol=1e-5)


@pytest.mark.long
@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("mode", RUNNING)
def test_a_mode_of_running(mode, name):
    right = plain(name)
    with RUNNING[mode]():
        found = call(name)
    assert right
    _close(found, name)


@pytest.mark.long
@pytest.mark.parametrize("name", CALLS)
def test_no_program_asks_the_host_for_anything(name):
    """Arrays on the device go in, and whatever is compiled around them transfers nothing by itself."""
    program = jax.jit(lambda x: (x.sum(), CALLS[name]()))
    x = jnp.ones(3)
    program(x)
    with jax.transfer_guard("disallow"):
        _, found = program(x)
    _close(found, name)


@pytest.mark.long
def test_two_threads_at_once():
    """Each in an order of its own, so that they meet the same and different functions."""
    for name in CALLS:
        plain(name)
    names = list(CALLS)
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        for order in (names[::-1], names):
            pairs = zip(names, order, strict=True)
            for one, other in pairs:
                running = [(name, pool.submit(call, name)) for name in (one, other)]
                for name, future in running:
                    _close(future.result(), name)
