"""Where relevance goes: what every operation receives, hands on, and loses to what."""

import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from formulas import LRP_0, assert_close, of_layers
from jxai import lrp

pytestmark = pytest.mark.usefixtures("x64")
CAUSES = ("bias", "stabilizer", "zeros", "rule")
X = np.random.default_rng(1).normal(size=(3, 4, 4, 2))


class Net(nn.Module):
    """Batch norm, a residual sum, maxima, a gate, attention, GELU."""

    use_bias: bool = True

    @nn.compact
    def __call__(self, x):
        x = nn.Conv(3, (3, 3), use_bias=self.use_bias, name="stem")(x)
        if self.use_bias:
            x = nn.BatchNorm(use_running_average=True, name="norm")(x)
        x = nn.relu(x)
        x = nn.max_pool(x + nn.Conv(3, (3, 3), use_bias=self.use_bias, name="branch")(x), (2, 2), (2, 2))
        if self.use_bias:
            tokens = x.reshape(len(x), -1, 3)
            x = nn.softmax(jnp.einsum("nic,njc->nij", tokens, tokens)) @ tokens
            x = nn.gelu(nn.Dense(4, name="value")(x)) * nn.sigmoid(nn.Dense(4, name="gate")(x))
        return nn.Dense(3, use_bias=self.use_bias, name="last")(x.reshape(len(x), -1))


def draw(model, x=X):
    random = np.random.default_rng(0)
    shapes = jax.eval_shape(model.init, jax.random.key(0), x)
    return jax.tree.map(lambda leaf: 0.2 + np.abs(random.normal(size=leaf.shape)), shapes) | {
        "params": jax.tree.map(lambda leaf: random.normal(size=leaf.shape), shapes["params"])
    }


def follow(model, composite, x=X, **options):
    variables = draw(model, x)

    @jax.jit
    def both(x):
        f = lambda x: model.apply(variables, x)  # noqa: E731
        y, pullback = lrp.vjp(f, x, composite=composite)
        return lrp.conservation(f, x, composite=composite, **options), y, pullback(y)[0]

    return both(x)


def conservation(f, x, **options):
    return jax.jit(lambda x: lrp.conservation(f, x, **options))(x)


def absorbed(found):
    return sum(getattr(found, cause).sum(0) for cause in CAUSES)


PRESETS = {
    preset.name: preset
    for preset in (
        lrp.EpsilonPlus(),
        lrp.EpsilonAlpha2Beta1Flat(norm=True, epsilon=0.1),
        lrp.EpsilonGammaBox(-6.0, 6.0, epsilon=0.1),
        lrp.AttnLRP(epsilon=0.1),
        lrp.CPLRP(),
        lrp.sun2020,
        lrp.ExcitationBackprop(),
        lrp.EpsilonAlpha2Beta1(norm=True, epsilon=0.1),
    )
}
# Their rules stand in others too.
REPEATED = ("ExcitationBackprop", "EpsilonAlpha2Beta1")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name in REPEATED else ()) for name in PRESETS]
)
def test_all_relevance_is_accounted_for(name):
    found, y, relevance = follow(Net(), PRESETS[name])
    parts = [getattr(found, cause) for cause in CAUSES]
    shape = (len(found.paths), len(X))
    assert found.incoming.shape == shape and len(found.operations) == shape[0]
    scale = np.abs(found.incoming).max()
    np.testing.assert_allclose(found.incoming, found.outgoing + sum(parts), atol=1e-10 * scale)
    # From one operation to the next nothing is lost: what ends is what started, less all that is absorbed.
    assert_close(found.start, y.sum(1))
    np.testing.assert_allclose(found.end, relevance.sum((1, 2, 3)), atol=1e-9 * scale)
    np.testing.assert_allclose(found.start, found.end + absorbed(found), atol=1e-9 * scale)
    # A softmax's derivative does not conserve; all other rules do.
    others = np.array([not what.startswith("softmax") for what in found.operations])
    np.testing.assert_allclose(found.rule[others], 0, atol=1e-10 * scale)


def test_one_layer_by_hand():
    kernel, bias, epsilon = np.random.default_rng(2).normal(size=(4, 3)), np.array([1.0, -2.0, 0.5]), 0.3
    x = X.reshape(3, -1)[:, :4]
    found = conservation(lambda x: x @ kernel + bias, x, composite=of_layers(lrp.Epsilon(epsilon)))
    z = x @ kernel + bias
    share = z / (z + epsilon * np.where(z < 0, -1, 1))
    assert_close(found.incoming, z.sum(1)[None])
    assert_close(found.outgoing, (share * (x @ kernel)).sum(1)[None])
    assert_close(found.bias, (share * bias).sum(1)[None])
    assert_close(found.stabilizer, (share * (share**-1 - 1) * z).sum(1)[None])
    np.testing.assert_allclose(found.zeros, 0, atol=1e-12)


def test_zeros_lose_what_meets_no_positive_share():
    # z+ of a result without positive contributions has nobody to give to.
    f = lambda x: x @ -np.ones((2, 1))  # noqa: E731
    found = conservation(f, np.ones((1, 2)), composite=of_layers(lrp.ZPlus(only_zeros=True)))
    assert float(found.outgoing[0, 0]) == 0
    np.testing.assert_allclose(absorbed(found), found.start)


def test_without_biases_lrp_0_absorbs_nothing():
    found, y, _ = follow(Net(use_bias=False), LRP_0)
    for cause in CAUSES:
        np.testing.assert_allclose(getattr(found, cause), 0, atol=1e-10 * np.abs(y).max())
    assert_close(found.end, found.start, 1e-9)


@pytest.mark.slow
def test_images_do_not_mix_and_jit_changes_nothing():
    variables = draw(Net(use_bias=False))
    f = lambda x: Net(use_bias=False).apply(variables, x)  # noqa: E731
    whole = conservation(f, X, composite=lrp.EpsilonPlus())
    for i in (0, 2):
        alone = lrp.conservation(f, X[i : i + 1], composite=lrp.EpsilonPlus())
        assert (alone.paths, alone.operations) == (whole.paths, whole.operations)
        for name in ("incoming", "outgoing", "start", "end", *CAUSES):
            scale = np.abs(whole.incoming).max()
            np.testing.assert_allclose(
                getattr(alone, name)[..., 0], getattr(whole, name)[..., i], atol=1e-9 * scale
            )


class Cell(nn.Module):
    @nn.compact
    def __call__(self, x, _):
        return x + nn.gelu(nn.Dense(4, name="dense")(x)), None


class Loop(nn.Module):
    @nn.compact
    def __call__(self, x):
        loop = nn.scan(Cell, variable_axes={"params": 0}, split_rngs={"params": True}, length=3)
        return nn.Dense(2, name="last")(loop(name="loop")(x, None)[0])


def test_loops_count_all_their_rounds():
    found, y, relevance = follow(Loop(), lrp.AttnLRP(epsilon=0.1), X[:, 0, 0, :2].repeat(2, 1))
    assert "loop/dense" in found.paths
    assert_close((found.start, found.end), (y.sum(1), relevance.sum(1)), 1e-9)
    scale = np.abs(found.incoming).max()
    np.testing.assert_allclose(found.start, found.end + absorbed(found), atol=1e-9 * scale)
    assert np.abs(found.bias[found.paths.index("loop/dense")]).min() > 0


@pytest.mark.parametrize(
    ("start", "expected"),
    [
        (lambda y: jnp.eye(3)[1] * y, lambda y: y[:, 1]),
        (lambda y: 1.0, lambda y: 3 * np.ones(len(y))),  # a number for each output
        (lambda y: np.float32(0.5) * jnp.ones_like(y, jnp.float32), lambda y: 1.5 * np.ones(len(y))),
    ],
)
def test_starts(start, expected):
    kernel = np.random.default_rng(2).normal(size=(2, 3))
    x = X[:, 0, 0]
    found = conservation(lambda x: x @ kernel, x, composite=LRP_0, start=start)
    assert_close(found.start, expected(x @ kernel))
    assert_close(found.end, found.start)


def test_wrong_starts_and_composites_are_refused():
    with pytest.raises(ValueError, match=r"outputs' shape \(1, 3\), or a number, got \(1,\)"):
        lrp.conservation(lambda x: x @ np.ones((2, 3)), X[:, 0, 0], composite=LRP_0, start=lambda y: y[:, 0])
    with pytest.raises(ValueError, match="a composite of relevance, got GuidedBackprop"):
        lrp.conservation(nn.relu, X, composite=lrp.GuidedBackprop())
    with pytest.raises(ValueError, match="got none for other"):
        lrp.conservation(lambda x: x / x.sum(), X, composite=LRP_0)


def test_it_prints_sums_over_images():
    found = conservation(lambda x: x @ np.ones((2, 1)) + 3, np.ones((2, 2)), composite=LRP_0)
    head, row, total = str(found).splitlines()
    assert head.split() == ["incoming", "outgoing", *CAUSES]
    assert row.split() == ["dense", "10", "4", "6", "0", "0", "0"]
    assert total == "start 10, end 4"


def test_a_notebook_shows_the_sums_and_escapes_names():
    kernel = np.array([[1.0], [2.0]])

    def f(x):
        with jax.named_scope("<b>"):
            return x @ kernel + np.array([3.0])

    found = lrp.conservation(f, np.ones((2, 2)), composite=of_layers(lrp.Epsilon(0.0)))
    html = found._repr_html_()
    cells = re.findall(r"<td[^>]*>(.*?)</td>", html)
    assert cells[1:] == ["12", "6", "6", "0", "0", "0"]  # two images of 1 + 2 + 3
    assert "<b>" not in html and "&lt;b&gt;" in cells[0]
    assert "start 12, end 6" in html
    assert str(found).split()[:6] == ["incoming", "outgoing", *CAUSES]
