"""Values of captum on the same network, with the same weights and baselines."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jxai import attribution

# Captum warns of what it does to networks and inputs.
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::UserWarning")]

RANDOM = np.random.default_rng(12)
X, BASELINE, OTHERS = (RANDOM.normal(size=(n, 6, 6, 2)).astype(np.float32) for n in (2, 2, 4))
CONV, BIAS = RANDOM.normal(size=(3, 3, 2, 4)).astype(np.float32) / 2, RANDOM.normal(size=4).astype(np.float32)
HIDDEN = RANDOM.normal(size=(16, 5)).astype(np.float32) / 2
OUT = RANDOM.normal(size=(5, 3)).astype(np.float32)
TARGET = [2, 0]
MASK = (np.indices((6, 6)) // 3 * np.array([2, 1])[:, None, None]).sum(axis=0)[..., None]  # quarters


def maps(x):
    y = jax.lax.conv_general_dilated(x, CONV, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    return jax.nn.relu(y + BIAS)


def pool(a):
    return a.reshape(len(a), 2, 2, 2, 2, 4).max(axis=(2, 4))


def above(pooled):
    return jnp.tanh(pooled.reshape(len(pooled), 16) @ HIDDEN) @ OUT


def head(a):
    return above(pool(a))


def f(x):
    return head(maps(x))


def pooled(x):
    return pool(maps(x))


def hidden(x):
    return jnp.tanh(pooled(x).reshape(len(x), 16) @ HIDDEN)


@pytest.fixture(scope="module")
def theirs():
    torch, captum = pytest.importorskip("torch"), pytest.importorskip("captum.attr")

    class Flat(torch.nn.Module):
        def forward(self, x):
            return x.permute(0, 2, 3, 1).reshape(len(x), -1)

    class Linear(torch.nn.Module):
        def __init__(self, weights):
            super().__init__()
            self.weights = torch.nn.Parameter(torch.from_numpy(weights))

        def forward(self, x):
            return x @ self.weights

    conv = torch.nn.Conv2d(2, 4, 3)
    conv.weight.data = torch.from_numpy(CONV.transpose(3, 2, 0, 1).copy())
    conv.bias.data = torch.from_numpy(BIAS)
    layers = [
        conv,
        torch.nn.ReLU(),
        torch.nn.MaxPool2d(2),
        Flat(),
        Linear(HIDDEN),
        torch.nn.Tanh(),
        Linear(OUT),
    ]
    return torch, captum, torch.nn.Sequential(*layers).eval()


def given(torch, x):
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(x, -1, 1)))


def compare(ours, found, rtol=1e-3, atol=1e-4):
    found = found.detach().numpy()
    found = np.moveaxis(found, 1, -1) if found.ndim == 4 else found
    np.testing.assert_allclose(ours, found, rtol=rtol, atol=atol * max(1, np.abs(found).max()))


def test_the_network_is_the_same(theirs):
    torch, _, network = theirs
    compare(f(X), network(given(torch, X)), rtol=1e-4)


def test_deep_lift(theirs):
    torch, captum, network = theirs

    class Apart(torch.nn.Module):
        def forward(self, x):
            return x * 1.0

    # Captum 0.9's hooks get in each other's way where max pooling is next to ReLU: its own convergence delta is 2.9
    # here, and 0 with anything between the two.
    layers = list(network)
    network = torch.nn.Sequential(*layers[:2], Apart(), *layers[2:])
    found, delta = captum.DeepLift(network).attribute(
        given(torch, X), given(torch, BASELINE), target=TARGET, return_convergence_delta=True
    )
    assert abs(delta).max() < 1e-5
    compare(attribution.deep_lift(f, X, TARGET, baseline=BASELINE), found, atol=1e-5)
    several = captum.DeepLiftShap(network).attribute(given(torch, X), given(torch, OTHERS), target=TARGET)
    compare(attribution.deep_lift_shap(f, X, TARGET, references=OTHERS), several, atol=1e-5)


def test_ablation_with_a_feature_mask(theirs):
    torch, captum, network = theirs
    mask = torch.from_numpy(np.broadcast_to(MASK.transpose(2, 0, 1), (1, 2, 6, 6)).copy())
    found = captum.FeatureAblation(network).attribute(
        given(torch, X), given(torch, BASELINE), target=TARGET, feature_mask=mask
    )
    ours = attribution.feature_ablation(f, X, TARGET, baseline=BASELINE, feature_mask=MASK)
    compare(ours * 18, found)  # captum gives every entry of a feature all of its drop; a feature has 18


def test_shapley_values(theirs):
    torch, captum, network = theirs
    mask = torch.from_numpy(np.broadcast_to(MASK.transpose(2, 0, 1), (1, 2, 6, 6)).copy())
    exact = captum.ShapleyValues(network).attribute(
        given(torch, X), given(torch, BASELINE), target=TARGET, feature_mask=mask
    )
    options = {"baseline": BASELINE, "feature_mask": MASK}
    key = jax.random.key(0)
    compare(
        attribution.kernel_shap(f, key, X, TARGET, num_samples=14, **options) * 18,
        exact,
        rtol=1e-2,
        atol=1e-3,
    )
    drawn = jax.jit(
        lambda key: attribution.shapley_sampling(f, key, X, TARGET, num_permutations=300, **options)
    )(key)
    compare(drawn * 18, exact, rtol=0, atol=0.1)


def test_gradient_shap_of_one_baseline(theirs):
    torch, captum, network = theirs
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002 - captum draws baselines and places from NumPy's global generator
    found = captum.GradientShap(network).attribute(
        given(torch, X), given(torch, OTHERS), target=TARGET, n_samples=4000, stdevs=0.0
    )
    ours = jax.jit(
        lambda key: attribution.expected_gradients(f, key, X, TARGET, references=OTHERS, num_samples=4000)
    )(jax.random.key(0))
    compare(ours, found, rtol=0, atol=0.08)


def test_layers(theirs):
    torch, captum, network = theirs
    points = {"n_steps": 400, "method": "riemann_middle"}
    ours = {"baseline": BASELINE, "num_steps": 400, "method": "midpoint"}
    a, a0 = (given(torch, one) for one in (X, BASELINE))
    tanh, pooling = network[5], network[2]  # above ReLU zeros tie, and gradients of maxima differ
    influence = captum.InternalInfluence(network, tanh).attribute(a, a0, target=TARGET, **points)
    compare(attribution.internal_influence(hidden, lambda a: a @ OUT, X, TARGET, **ours), influence)
    influence = captum.InternalInfluence(network, pooling).attribute(a, a0, target=TARGET, **points)
    compare(attribution.internal_influence(pooled, above, X, TARGET, **ours), influence, atol=1e-2)
    # Captum's is a sum of the layer's differences between steps: it tends to the same.
    flow = captum.LayerConductance(network, tanh).attribute(a, a0, target=TARGET, n_steps=400)
    compare(attribution.conductance(hidden, lambda a: a @ OUT, X, TARGET, **ours), flow, rtol=0, atol=1e-2)
    layer = captum.LayerIntegratedGradients(network, pooling).attribute(a, a0, target=TARGET, **points)
    of_layer = attribution.integrated_gradients(
        above, pooled(X), TARGET, baseline=pooled(BASELINE), num_steps=400, method="midpoint"
    )
    compare(of_layer, layer, atol=1e-2)
    neuron = captum.NeuronConductance(network, tanh).attribute(a, (3,), a0, target=TARGET, **points)
    found = attribution.neuron_conductance(
        hidden, lambda a: a @ OUT, X, TARGET, neurons=np.arange(5) == 3, **ours
    )
    compare(found, neuron, atol=1e-2)
    of_neuron = captum.NeuronIntegratedGradients(network, tanh).attribute(a, (3,), a0, **points)
    compare(attribution.integrated_gradients(hidden, X, lambda a: a[:, 3], **ours), of_neuron, atol=1e-2)


def test_grad_cam_as_it_is(theirs):
    torch, captum, network = theirs
    found = captum.LayerGradCam(network, network[1]).attribute(given(torch, X), target=TARGET)
    compare(attribution.grad_cam(maps, head, X, TARGET, relu=False, enlarge=False), found)
    guided = captum.LayerGradCam(network, network[1]).attribute(
        given(torch, X), target=TARGET, relu_attributions=True
    )
    compare(attribution.grad_cam(maps, head, X, TARGET, enlarge=False), guided)
