"""Wrong input of the estimators is named at the boundary."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jxai import attribution

KEY = jax.random.key(0)
X = jnp.ones((2, 6, 6, 3))
TARGET = jnp.array([0, 1])
BAD = X * jnp.nan


def f(x):
    return x.mean(axis=(1, 2))


# Every estimator with the arguments given; what is not given is right.
ESTIMATORS = {
    "gradient": lambda f, x, target: attribution.gradient(f, x, target),
    "input_x_gradient": lambda f, x, target: attribution.input_x_gradient(f, x, target),
    "integrated_gradients": lambda f, x, target: attribution.integrated_gradients(f, x, target),
    "convergence_delta": lambda f, x, target: attribution.convergence_delta(f, x, target, x),
    "smooth_grad": lambda f, x, target: attribution.smooth_grad(f, KEY, x, target),
    "smooth_taylor": lambda f, x, target: attribution.smooth_taylor(f, KEY, x, target),
    "taylor_at_roots": lambda f, x, target: attribution.taylor_at_roots(f, x, x[None], target),
    "expected_gradients": lambda f, x, target: attribution.expected_gradients(
        f, KEY, x, target, references=X
    ),
    "occlusion": lambda f, x, target: attribution.occlusion(f, x, target, window=3, stride=3),
    "deep_lift": lambda f, x, target: attribution.deep_lift(f, x, target),
    "deep_lift_shap": lambda f, x, target: attribution.deep_lift_shap(f, x, target, references=X),
    "guided_ig": lambda f, x, target: attribution.guided_ig(f, x, target, num_steps=3),
    "blur_ig": lambda f, x, target: attribution.blur_ig(f, x, target, max_sigma=2.0),
    "rise": lambda f, x, target: attribution.rise(f, KEY, x, target, cells=3),
    "conductance": lambda f, x, target: attribution.conductance(jnp.tanh, f, x, target),
    "internal_influence": lambda f, x, target: attribution.internal_influence(jnp.tanh, f, x, target),
    "neuron_conductance": lambda f, x, target: attribution.neuron_conductance(
        jnp.tanh, f, x, target, neurons=1.0
    ),
    "grad_cam_plus_plus": lambda f, x, target: attribution.grad_cam_plus_plus(lambda x: x, f, x, target),
    "layer_cam": lambda f, x, target: attribution.layer_cam(lambda x: x, f, x, target),
    "score_cam": lambda f, x, target: attribution.score_cam(lambda x: x, f, x, target),
    "guided_grad_cam": lambda f, x, target: attribution.guided_grad_cam(
        lambda x: x, f, x, target, explain=attribution.gradient
    ),
    "feature_ablation": lambda f, x, target: attribution.feature_ablation(f, x, target),
    "feature_permutation": lambda f, x, target: attribution.feature_permutation(f, KEY, x, target),
    "shapley_sampling": lambda f, x, target: attribution.shapley_sampling(f, KEY, x, target),
    "kernel_shap": lambda f, x, target: attribution.kernel_shap(f, KEY, x, target),
    "lime": lambda f, x, target: attribution.lime(f, KEY, x, target),
    "grad_cam": lambda f, x, target: attribution.grad_cam(lambda x: x, f, x, target),
}


@pytest.mark.parametrize("name", ESTIMATORS)
def test_wrong_targets_and_images(name):
    run = ESTIMATORS[name]
    for target in ([0, 3], [-1, 0]):
        with pytest.raises(ValueError, match=r"expected `target` in \[0, 3\)"):
            run(f, X, jnp.array(target))
    for target in (jnp.array([0]), jnp.array(0), jnp.zeros((2, 1), int)):
        with pytest.raises(ValueError, match=r"expected `target` of shape \(2,\)"):
            run(f, X, target)
    with pytest.raises(TypeError, match="expected `target` of integers"):
        run(f, X, TARGET / 2)
    for bad in (jnp.nan, jnp.inf):
        with pytest.raises(ValueError, match="expected finite `x`, got 1 of 216 values"):
            run(f, X.at[1, 2, 3, 0].set(bad), TARGET)
    with pytest.raises(TypeError, match="expected `x` of floats, got int32"):
        run(f, X.astype(jnp.int32), TARGET)
    with pytest.raises(ValueError, match=r"expected `f` to give scores of shape \(2, K\)"):
        run(lambda x: x.mean(axis=(0, 1, 2)), X, TARGET)
    # Under jit shapes are seen, values are not.
    with pytest.raises(ValueError, match="expected `target` of shape"):
        jax.jit(lambda x: run(f, x, TARGET[:1]))(X)


@pytest.mark.parametrize(
    ("run", "message"),
    [
        (lambda: attribution.integrated_gradients(f, X, TARGET, num_steps=0), "num_steps of at least 1"),
        (lambda: attribution.integrated_gradients(f, X, TARGET, chunk_size=0), "chunk_size of at least 1"),
        (lambda: attribution.integrated_gradients(f, X, TARGET, method="left"), "method among right"),
        (
            lambda: attribution.integrated_gradients(f, X, TARGET, baseline=jnp.ones(4)),
            "baseline that broadcasts",
        ),
        (lambda: attribution.integrated_gradients(f, X, TARGET, baseline=jnp.nan), "finite baseline"),
        (
            lambda: attribution.integrated_gradients(f, X, TARGET, baseline=jnp.ones((5, 1, 6, 6, 3))),
            r"baselines of shape \(B, \*\(2, 6, 6, 3\)\)",
        ),
        (lambda: attribution.convergence_delta(f, X, TARGET, X[..., 0]), "keep the channels"),
        (lambda: attribution.uniform_baselines(KEY, X, count=0, low=0.0, high=1.0), "count of at least 1"),
        (lambda: attribution.blurred_baseline(X, sigma=0.0), r"sigma in \(0, 600\]"),
        (lambda: attribution.blurred_baseline(X[0], sigma=1.0), r"shape \(N, H, W, C\)"),
        (lambda: attribution.smooth_grad(f, KEY, X, TARGET, num_roots=0), "num_roots of at least 1"),
        (lambda: attribution.smooth_grad(f, KEY, X, TARGET, statistic="median"), "statistic among mean"),
        (lambda: attribution.smooth_grad(f, KEY, X, TARGET, noise_scale=-0.1), "noise_scale above 0"),
        (lambda: attribution.smooth_taylor(f, KEY, X, TARGET, noise_scale=0.0), "noise_scale above 0"),
        (
            lambda: attribution.smooth_taylor(f, KEY, X, TARGET, noise_scale=jnp.array([0.5, 0])),
            "above 0 and finite, got 0",
        ),
        (lambda: attribution.smooth_taylor(f, KEY, X, TARGET, noise_scale=jnp.ones(3)), "one an image"),
        (lambda: attribution.smooth_taylor(f, KEY, X, TARGET, num_roots=0), "num_roots of at least 1"),
        (lambda: attribution.smooth_taylor(f, KEY, X, TARGET, chunk_size=-1), "chunk_size of at least 1"),
        (lambda: attribution.taylor_at_roots(f, X, X, TARGET), r"roots of shape \(R, "),
        (lambda: attribution.taylor_at_roots(f, X, X[None] * jnp.inf, TARGET), "finite `roots`"),
        (lambda: attribution.expected_gradients(f, KEY, X, TARGET, references=X[..., :1]), "resize them"),
        (lambda: attribution.occlusion(f, X, TARGET, window=7), "at most 6 pixels"),
        (lambda: attribution.occlusion(f, X, TARGET, window=2, stride=3), "from 1 to the window"),
        (lambda: attribution.grad_cam(f, lambda y: y, X, TARGET), "before its pooling"),
    ],
)
def test_wrong_options_are_named(run, message):
    with pytest.raises(ValueError, match=message):
        run()


@pytest.mark.parametrize(
    ("run", "message"),
    [
        (lambda x: attribution.gradient(f, x, [0, 7]), r"in \[0, 3\)"),
        (lambda x: attribution.smooth_taylor(f, KEY, x, [0, 1], noise_scale=-1.0), "noise_scale above 0"),
        (lambda x: attribution.smooth_taylor(f, KEY, x, [0, 1], noise_scale=[0.5, float("inf")]), "got inf"),
        (lambda x: attribution.integrated_gradients(f, x, [0, 1], baseline=float("nan")), "finite baseline"),
        (
            lambda x: attribution.expected_gradients(f, KEY, x, [0, 1], references=BAD),
            "finite `references`",
        ),
    ],
)
def test_what_is_known_is_checked_under_jit_too(run, message):
    with pytest.raises(ValueError, match=message):
        jax.jit(run)(X)


def test_baselines_are_checked_in_the_delta_and_where_they_are_drawn():
    with pytest.raises(ValueError, match=r"baselines of shape \(B, "):
        attribution.convergence_delta(f, X, TARGET, X, baseline=jnp.ones((5, 1, 6, 6, 3)))
    with pytest.raises(ValueError, match="finite `baseline`"):
        attribution.convergence_delta(f, X, TARGET, X, baseline=jnp.full((5, *X.shape), jnp.nan))
    for low, high in ((2.0, -2.0), (float("nan"), 1.0)):
        with pytest.raises(ValueError, match="low <= high"):
            attribution.uniform_baselines(KEY, X, count=1, low=low, high=high)
    with pytest.raises(ValueError, match="one a channel"):
        attribution.uniform_baselines(KEY, X, count=1, low=jnp.zeros(2), high=1.0)


def channels_first(run):
    """Grad-CAM of one network, (its maps held channels last, what `run` makes of them held first)."""
    x, kernel = jax.random.normal(KEY, (2, 8, 12, 3)), jax.random.normal(jax.random.key(1), (5, 4))

    def features(x):
        return jax.nn.relu(x[:, ::2, ::2] @ jnp.ones((3, 5)) * jnp.arange(1.0, 6))

    right = attribution.grad_cam(features, lambda maps: maps.mean((1, 2)) @ kernel, x, TARGET)
    return right, run(
        lambda x: features(x).transpose(0, 3, 1, 2), lambda maps: maps.mean((2, 3)) @ kernel, x, TARGET
    )


def test_grad_cam_of_maps_that_hold_their_channels_first():
    right, found = channels_first(functools.partial(attribution.grad_cam, channel_axis=1))
    np.testing.assert_allclose(found, right, rtol=1e-5, atol=1e-6)
    with pytest.raises(
        ValueError, match=r"expected maps \(N, h, w, K\) .* got \(2, 5, 4, 6\): give channel_axis=1"
    ):
        channels_first(attribution.grad_cam)
    with pytest.raises(ValueError, match="expected channel_axis among None, -1, 1, got 2"):
        channels_first(functools.partial(attribution.grad_cam, channel_axis=2))


@pytest.mark.parametrize("side", [(8, 8), (8, 12), (15, 9)])
@pytest.mark.parametrize("channels", [1, 5, 512])
def test_which_maps_seem_to_hold_their_channels_first(side, channels):
    """Maps of any stride pass as they are; turned ones are refused, but where channels are the picture's too."""
    height, width = side

    def grad_cam(shape, x, **options):
        return jax.eval_shape(
            lambda x: attribution.grad_cam(
                lambda x: jnp.ones(shape) * x.mean(),
                lambda maps: maps.reshape(2, -1)[:, :2],
                x,
                TARGET,
                **options,
            ),
            jax.ShapeDtypeStruct(x, jnp.float32),
        )

    for stride in (1, 2, 3):
        # Rounded up and down: one size where the stride divides the sides.
        for h, w in {(-(-height // stride), -(-width // stride)), (height // stride, width // stride)}:
            assert grad_cam((2, h, w, channels), (2, height, width, 3)).shape == (2, height, width, 1)
            if abs(channels * width - h * height) < max(side):
                continue
            for x in ((2, height, width, 3), (2, 3, height, width)):
                if x[1] == 3 and abs(channels * height - h * 3) < max(3, height):
                    continue
                with pytest.raises(ValueError, match="give channel_axis=1"):
                    grad_cam((2, channels, h, w), x)
            grad_cam((2, channels, h, w), (2, height, width, 3), channel_axis=-1)
