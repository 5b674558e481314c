"""Position-aware LRP: positions are inputs beside tokens, learned, sinusoidal or rotary (Bakish et al. 2025)."""

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from formulas import assert_close, normal
from jxai import lrp, models

sys.path.append(str(Path(__file__).resolve().parents[1] / "models"))
from lxt_archives import load

pytestmark = pytest.mark.usefixtures("x64")

T, D = 5, 6
X = normal(T, D)
W, V, TABLE = normal(D, D, seed=1), normal(D, D, seed=2), normal(9, D, seed=3)
FREQUENCIES = 1 / 10 ** (np.arange(D // 2) / (D // 2))
ZERO = lrp.AttnLRP(epsilon=0.0)
PLACES = np.arange(T)


def explained(f, *primals, composite=ZERO):
    y, pullback = lrp.vjp(f, *primals, composite=composite)
    return y, pullback(y)


def tables(positions):
    angles = positions[:, None] * FREQUENCIES
    angles = jnp.concatenate([angles, angles], -1)
    return jnp.cos(angles), jnp.sin(angles)


def turned(x, cosines, sines):
    first, second = jnp.split(x, 2, -1)
    return x * cosines + jnp.concatenate([-second, first], -1) * sines


def attended(x, cosines, sines):
    query, key = turned(x @ W, cosines, sines), turned(x @ V, cosines, sines)
    return jax.nn.softmax(query @ key.T) @ x


# Rotary.


def test_a_rotation_gives_half_to_what_it_turns_and_half_to_its_angles():
    y, (of_x, of_positions) = explained(lambda x, p: turned(x, *tables(p)), X, PLACES + 1.0)
    cosines, sines = map(np.asarray, tables(PLACES + 1.0))
    turn = np.concatenate([-X[:, D // 2 :], X[:, : D // 2]], -1)
    # The ratio is 1: a product's relevance is the product.
    assert_close(of_positions, (X * cosines / 2 + turn * sines / 2).sum(-1))
    assert_close(of_x.sum(), y.sum() / 2)
    assert_close(of_x.sum() + of_positions.sum(), y.sum())
    plain = explained(lambda x: turned(x, *tables(PLACES + 1.0)), X)[1][0]
    assert_close(of_x, plain / 2)


@pytest.mark.parametrize("dtype", [int, float])
def test_positions_have_what_their_cosines_and_sines_have(dtype):
    _, (of_x, of_cosines, of_sines) = explained(attended, X, *map(np.asarray, tables(PLACES)))
    of_angles = (of_cosines + of_sines).sum(-1)
    assert np.abs(of_angles).min() > 0
    for shift in (0, 3):  # scores know distances alone, and position 0 has its share as others have
        found = explained(lambda x, p: attended(x, *tables(p)), X, (PLACES + shift).astype(dtype))[1]
        assert_close(found, (of_x, of_angles), 1e-8)


def test_what_is_not_asked_for_is_as_before():
    plain = explained(lambda x: attended(x, *tables(PLACES)), X)[1][0]
    rotated = explained(lambda x, p: attended(x, *tables(p)), X, PLACES)[1]
    assert np.abs(plain - rotated[0]).max() > 1e-3
    # Without a way through scores, positions have nothing, and tokens what they had.
    of_x, of_positions = explained(
        lambda x, p: attended(x, *tables(p)), X, PLACES, composite=lrp.CPLRP(epsilon=0.0)
    )[1]
    assert not np.any(of_positions)
    assert_close(
        of_x, explained(lambda x: attended(x, *tables(PLACES)), X, composite=lrp.CPLRP(epsilon=0.0))[1][0]
    )


# Learned and sinusoidal.


def head(x):
    return jax.nn.gelu(x @ W) @ V


def test_learned_positions_have_their_share_of_the_first_sum():
    added = lambda x, p: head(x + jnp.asarray(TABLE)[p])  # noqa: E731
    y, (of_x, of_positions) = explained(added, X, jnp.asarray(PLACES))
    whole = explained(head, X + TABLE[:T])[1][0]
    assert_close(of_x, X / (X + TABLE[:T]) * whole)
    assert_close(of_positions, (TABLE[:T] / (X + TABLE[:T]) * whole).sum(-1))
    assert_close(of_x.sum() + of_positions.sum(), y.sum())
    # The embeddings themselves as a primal: the same, by channel.
    _, (_, of_rows) = explained(lambda x, rows: head(x + rows), X, TABLE[:T])
    assert_close(of_rows.sum(-1), of_positions)


@pytest.mark.parametrize("dtype", [int, float])
def test_sinusoidal_positions_too(dtype):
    def sinusoids(p):
        return jnp.concatenate([jnp.sin(p[:, None] * FREQUENCIES), jnp.cos(p[:, None] * FREQUENCIES)], -1)

    y, (of_x, of_positions) = explained(lambda x, p: head(x + sinusoids(p)), X, PLACES.astype(dtype))
    rows = np.asarray(sinusoids(PLACES))
    whole = explained(head, X + rows)[1][0]
    assert_close(of_positions, (rows / (X + rows) * whole).sum(-1), 1e-8)
    assert_close(of_x.sum() + of_positions.sum(), y.sum())


# The models.


@pytest.mark.parametrize("name", ["lxt_llama", pytest.param("lxt_gpt2", marks=pytest.mark.slow)])
def test_models_take_positions(golden, name):
    archive = load(golden / f"{name}.npz", scan=True)
    module, x = archive.module, archive.x
    positions = jnp.arange(x.shape[1])

    def scores(variables, x, positions=None):
        hidden = module.apply(variables, x, positions=positions, method="encode")
        return module.apply(variables, hidden[:, -1], method="unembed")[:, int(archive.arrays["target"])]

    @jax.jit
    def explain(variables, x, positions):
        plain, pullback = lrp.vjp(lambda x: scores(variables, x), x, composite=ZERO)
        y, pulled = lrp.vjp(lambda x, p: scores(variables, x, p), x, positions, composite=ZERO)
        return (plain, *pullback(plain)), (y, *pulled(y))

    (plain, alone), (y, of_x, of_positions) = explain(archive.variables, x, positions)
    assert_close(y, plain)
    assert of_positions.shape == positions.shape and np.all(of_positions != 0)
    if name == "lxt_gpt2":
        assert_close(of_x, alone)
    else:
        # What goes to angles comes from queries and keys.
        assert_close(of_x.sum() + of_positions.sum(), alone.sum(), 0.2)
    with pytest.raises(ValueError, match="expected positions of shape"):
        scores(archive.variables, x, positions[1:])
    with pytest.raises(TypeError, match="expected positions of"):
        scores(archive.variables, x, "positions")


def test_learned_positions_of_a_vision_transformer_restore_what_its_pixels_miss():
    network = models.VisionTransformer(
        num_classes=3, patch_size=4, width=16, depth=2, num_heads=2, mlp_width=32
    )
    x = jax.random.normal(jax.random.key(0), (1, 8, 8, 3))
    params = network.init(jax.random.key(1), x)["params"]  # biases are zero

    def score(x, learned):
        return network.apply({"params": params | learned}, x)[:, 0]

    learned = {name: params[name] for name in ("positions", "class_token")}
    composite = lrp.CPLRP(epsilon=0)
    y, pullback = lrp.vjp(score, x, learned, composite=composite)
    of_pixels, of_learned = pullback(y)
    whole = of_pixels.sum() + sum(part.sum() for part in of_learned.values())
    np.testing.assert_allclose(whole, y[0], rtol=1e-4)
    (alone,) = lrp.vjp(lambda x: score(x, {}), x, composite=composite)[1](y)
    np.testing.assert_allclose(alone, of_pixels, rtol=1e-5, atol=1e-7)
    assert abs(alone.sum() / y[0]) < 0.5  # the rest is what the positions have
