"""Every estimator by a name, with few steps: what the tests of properties go through."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from jxai import attribution, lrp

KEY = jax.random.key(3)
FEW = {"num_roots": 5}
EPSILON = functools.partial(
    lrp.relevance,
    composite=lrp.Composite(((lrp.Kind.CONVOLUTION, lrp.Epsilon()), (lrp.Kind.DENSE, lrp.Epsilon()))),
)


# Four features, other ones in each image.
QUARTERS = np.stack(
    [
        np.indices((9, 8)).sum(axis=0)[..., None] // 5 % 4,
        (np.arange(9)[:, None, None] // 5) * 2 + np.arange(8)[None, :, None] // 3 % 2,
        np.arange(72).reshape(9, 8, 1) // 18,
    ]
)


def references(x):
    return jnp.stack([x[0] * 0, x[1], x[2] / 2])


# Name to an estimator of (f, key, x, target, **options).
ESTIMATORS = {
    "gradient": lambda f, key, x, target: attribution.gradient(f, x, target),
    "input x gradient": lambda f, key, x, target: attribution.input_x_gradient(f, x, target),
    "IG right": lambda f, key, x, target, **o: attribution.integrated_gradients(
        f, x, target, num_steps=7, **o
    ),
    "IG trapezoid": lambda f, key, x, target, **o: attribution.integrated_gradients(
        f, x, target, num_steps=7, method="trapezoid", baseline=0.3, **o
    ),
    "IG midpoint": lambda f, key, x, target, **o: attribution.integrated_gradients(
        f, x, target, num_steps=7, method="midpoint", baseline=attribution.blurred_baseline(x, sigma=1.0), **o
    ),
    "IG Gauss-Legendre": lambda f, key, x, target, **o: attribution.integrated_gradients(
        f, x, target, num_steps=4, method="gauss-legendre", **o
    ),
    "IG noise": lambda f, key, x, target, **o: attribution.integrated_gradients(
        f,
        x,
        target,
        num_steps=4,
        baseline=attribution.uniform_baselines(key, x, count=2, low=-1.0, high=1.0),
        **o,
    ),
    "SmoothGrad": lambda f, key, x, target, **o: attribution.smooth_grad(f, key, x, target, **FEW, **o),
    "SmoothGrad squared": lambda f, key, x, target, **o: attribution.smooth_grad(
        f, key, x, target, statistic="square", **FEW, **o
    ),
    "VarGrad": lambda f, key, x, target, **o: attribution.smooth_grad(
        f, key, x, target, statistic="variance", **FEW, **o
    ),
    "SmoothTaylor": lambda f, key, x, target, **o: attribution.smooth_taylor(f, key, x, target, **FEW, **o),
    "SmoothTaylor, a scale an image": lambda f, key, x, target, **o: attribution.smooth_taylor(
        f, key, x, target, noise_scale=jnp.linspace(0.1, 0.9, len(x)), **FEW, **o
    ),
    "Taylor at roots": lambda f, key, x, target, **o: attribution.taylor_at_roots(
        f, x, x + jnp.linspace(-1, 1, 5, dtype=x.dtype).reshape(5, 1, 1, 1, 1), target, **o
    ),
    "expected gradients": lambda f, key, x, target, **o: attribution.expected_gradients(
        f, key, x, target, references=references(x), num_samples=5, **o
    ),
    "occlusion": lambda f, key, x, target, **o: attribution.occlusion(f, x, target, window=4, stride=3, **o),
    "SmoothTaylor of LRP": lambda f, key, x, target, **o: attribution.smooth_taylor(
        f, key, x, target, explain=EPSILON, **FEW, **o
    ),
    "feature ablation": lambda f, key, x, target, **o: attribution.feature_ablation(
        f, x, target, feature_mask=QUARTERS, **o
    ),
    "feature permutation": lambda f, key, x, target, **o: attribution.feature_permutation(
        f, key, x, target, feature_mask=QUARTERS, num_permutations=2, **o
    ),
    "Shapley sampling": lambda f, key, x, target, **o: attribution.shapley_sampling(
        f, key, x, target, feature_mask=QUARTERS, num_permutations=2, **o
    ),
    "KernelSHAP": lambda f, key, x, target, **o: attribution.kernel_shap(
        f, key, x, target, feature_mask=QUARTERS, num_samples=9, **o
    ),
    "LIME": lambda f, key, x, target, **o: attribution.lime(
        f, key, x, target, feature_mask=QUARTERS, num_samples=9, **o
    ),
    "DeepLIFT": lambda f, key, x, target, **o: attribution.deep_lift(f, x, target, **o),
    "DeepLIFT SHAP": lambda f, key, x, target, **o: attribution.deep_lift_shap(
        f, x, target, references=references(x), **o
    ),
    "guided IG": lambda f, key, x, target, **o: attribution.guided_ig(
        f, x, target, num_steps=5, max_distance=0.3, **o
    ),
    "blur IG": lambda f, key, x, target, **o: attribution.blur_ig(
        f, x, target, num_steps=3, max_sigma=3.0, **o
    ),
    "RISE": lambda f, key, x, target, **o: attribution.rise(f, key, x, target, num_masks=5, cells=3, **o),
    # Of a layer of the input's shape.
    "conductance": lambda f, key, x, target, **o: attribution.conductance(
        jnp.tanh, f, x, target, num_steps=5, baseline=0.3, **o
    ),
    "internal influence": lambda f, key, x, target, **o: attribution.internal_influence(
        jnp.tanh, f, x, target, num_steps=5, method="trapezoid", **o
    ),
    "neuron conductance": lambda f, key, x, target, **o: attribution.neuron_conductance(
        jnp.tanh, f, x, target, neurons=np.arange(8).reshape(8, 1) % 2, num_steps=5, **o
    ),
}
