"""Gradients of a loss on LRP's heat maps: here finite differences', in zennit others of the same loss."""

import contextlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jxai import lrp

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::UserWarning")]

RANDOM = np.random.default_rng(0)
X, TARGET = RANDOM.normal(size=(2, 4, 4, 3)), np.array([1, 3])
SHAPES = ((3, 3, 3, 8), (8,), (3, 3, 8, 8), (8,), (128, 5), (5,))
PARAMETERS = [RANDOM.normal(size=shape) / 10 for shape in SHAPES]
MOVES = [RANDOM.normal(size=shape) / 100 for shape in SHAPES]


def loss(parameters):
    """Σ R² in a corner, R of EpsilonPlus."""
    first, shift, second, shift_2, out, shift_3 = parameters
    layout = ("NHWC", "HWIO", "NHWC")

    def f(x):
        x = jax.nn.relu(
            jax.lax.conv_general_dilated(x, first, (1, 1), "SAME", dimension_numbers=layout) + shift
        )
        x = jax.nn.relu(
            jax.lax.conv_general_dilated(x, second, (1, 1), "SAME", dimension_numbers=layout) + shift_2
        )
        return x.transpose(0, 3, 1, 2).reshape(len(x), -1) @ out + shift_3

    relevance = lrp.relevance(f, jnp.asarray(X), jnp.asarray(TARGET), composite=lrp.EpsilonPlus())
    return (relevance[:, :2, :2] ** 2).sum()


def in_torch(values):
    order = {4: (3, 2, 0, 1), 2: (1, 0), 1: (0,)}
    return [value.transpose(order[value.ndim]) for value in values]


def zennits(*, inactive):
    """The loss and its gradients by zennit."""
    torch = pytest.importorskip("torch")
    zennit = pytest.importorskip("zennit.attribution")
    composites = pytest.importorskip("zennit.composites")
    nn = torch.nn
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(128, 5),
    ).double()
    with torch.no_grad():
        for parameter, value in zip(model.parameters(), in_torch(PARAMETERS), strict=True):
            parameter.copy_(torch.tensor(value))
    one_hot = nn.functional.one_hot(torch.tensor(TARGET), 5)
    x = torch.tensor(X.transpose(0, 3, 1, 2)).requires_grad_()
    with zennit.Gradient(model, composites.EpsilonPlus(), create_graph=True) as attributor:
        _, relevance = attributor(x, lambda scores: scores * one_hot)
        found = (relevance[:, :, :2, :2] ** 2).sum()
        with attributor.inactive() if inactive else contextlib.nullcontext():
            gradients = torch.autograd.grad(found, list(model.parameters()))
    return float(found.detach()), [gradient.numpy() for gradient in gradients]


def test_our_gradient_is_the_change_of_the_loss_and_zennits_is_not():
    """zennit #142: its rules change the second gradient, too. Without them (`inactive`) it is off still, since a rule
    reads its module's input and parameters as if nothing depended on them."""
    with jax.enable_x64(True):
        step = 1e-5
        ahead, behind = ([p + s * m for p, m in zip(PARAMETERS, MOVES, strict=True)] for s in (step, -step))
        change = float(loss(ahead) - loss(behind)) / (2 * step)
        value, ours = jax.value_and_grad(loss)(PARAMETERS)
        along = sum((gradient * move).sum() for gradient, move in zip(ours, MOVES, strict=True))
        assert abs(float(along) - change) <= 1e-5 * abs(change)
    ours = np.concatenate([np.ravel(gradient) for gradient in in_torch([*map(np.asarray, ours)])])
    for inactive in (True, False):
        same, theirs = zennits(inactive=inactive)
        assert abs(same - float(value)) <= 1e-5 * float(value)
        theirs = np.concatenate([*map(np.ravel, theirs)])
        off = np.linalg.norm(theirs - ours) / np.linalg.norm(ours)
        cosine = theirs @ ours / np.linalg.norm(theirs) / np.linalg.norm(ours)
        assert off > 0.1
        print(
            f"inactive={inactive}: zennit's gradient is off by {off:.2f} of its length, cosine {cosine:.2f}"
        )
