import dataclasses
import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import precision
from experiments.precision import ARITHMETICS, Arithmetic, Options, Row, errors, evaluate, main
from experiments.rounding import rounded
from jxai.cli.running import command_line
from jxai.fewshot import log_odds
from jxai.fewshot.heads.cross_attention import largest_product
from jxai.ops import convolution

RNG = np.random.default_rng(0)
X = RNG.normal(size=(4, 5)).astype(np.float32)
W = RNG.normal(size=(5, 5)).astype(np.float32) / 2


def kept(a, bits):
    """To the nearest float32 of so many bits of mantissa, halves to even, on the numbers' own bits."""
    dropped = 23 - bits
    whole = np.asarray(a, np.float32).view(np.uint32).astype(np.uint64)
    whole += (1 << (dropped - 1)) - 1 + ((whole >> dropped) & 1)
    return (whole >> dropped << dropped).astype(np.uint32).view(np.float32)


def product(a, b, bits):
    """Rounded operands, exact sums."""
    return kept(a, bits).astype(np.float64) @ kept(b, bits).astype(np.float64)


def test_bfloat16_is_seven_bits():
    np.testing.assert_array_equal(kept(X, 7), X.astype(jnp.bfloat16).astype(np.float32))


@pytest.mark.parametrize("bits", [7, 10])
def test_operands_of_a_product_are_rounded_and_its_sum_is_not(bits):
    found = jax.jit(rounded(jnp.matmul, mantissa_bits=bits))(X, W)
    np.testing.assert_allclose(found, product(X, W, bits), rtol=1e-6, atol=1e-6)
    assert np.abs(found - X @ W).max() > 2.0 ** -(bits + 3)


@jax.custom_vjp
def own_gradient(x, w):
    return x @ w


own_gradient.defvjp(lambda x, w: (x @ w, (x, w)), lambda kept, g: (g @ kept[1].T, kept[0].T @ g))


@jax.custom_jvp
def own_tangent(x, w):
    return x @ w


own_tangent.defjvp(lambda primals, tangents: (own_tangent(*primals), tangents[0] @ primals[1]))

PLACES = {
    "jit": lambda x, w: jax.jit(jnp.matmul)(x, w),
    "checkpoint": lambda x, w: jax.checkpoint(jnp.matmul)(x, w),
    "custom_vjp": own_gradient,
    "custom_jvp": own_tangent,
    "scan": lambda x, w: jax.lax.scan(lambda carry, _: (carry @ w, None), x, None, length=1)[0],
    "while": lambda x, w: jax.lax.while_loop(lambda c: c[0] < 1, lambda c: (c[0] + 1, c[1] @ w), (0, x))[1],
    "while's condition": lambda x, w: jax.lax.while_loop(
        lambda c: jnp.abs(c[0] - x @ w).max() > 1e-6, lambda c: (c[1], c[1]), (0 * x, own_gradient(x, w))
    )[0],
    "cond": lambda x, w: jax.lax.cond(x.sum() > 9, lambda x: 0 * x, lambda x: x @ w, x),
    "vmap": lambda x, w: jax.vmap(jnp.matmul, (0, None))(x, w),
    "gradient": lambda x, w: jax.grad(lambda y: (own_gradient(y, w.T) * x).sum())(0 * x) @ jnp.eye(5),
}


@pytest.mark.parametrize("place", PLACES)
def test_products_are_rounded_wherever_they_are(place):
    found = jax.jit(rounded(PLACES[place], mantissa_bits=7))(X, W)
    expected = product(X, W, 7)
    if place == "gradient":  # its last product rounds the first one's result
        expected = kept(expected.astype(np.float32), 7)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)


def test_a_product_that_asks_for_more_gets_it():
    def f(x, w):
        return jnp.matmul(x, w, precision="highest")

    np.testing.assert_allclose(jax.jit(rounded(f, mantissa_bits=7))(X, W), X @ W, rtol=1e-6, atol=1e-6)
    with jax.default_matmul_precision("highest"):
        found = jax.jit(rounded(lambda x, w: x @ w, mantissa_bits=7))(X, W)
    np.testing.assert_allclose(found, X @ W, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("convolve", [jax.lax.conv_general_dilated, convolution.convolution])
def test_convolutions_are_rounded(convolve):
    def f(x, kernel):
        options = {"dimension_numbers": ("NHWC", "HWIO", "NHWC"), "feature_group_count": 5}
        return convolve(x, kernel, (1, 1), "VALID", **options)

    maps, kernel = RNG.normal(size=(1, 2, 2, 5)).astype(np.float32), X.reshape(2, 2, 1, 5)
    found = jax.jit(rounded(f, mantissa_bits=7))(maps, kernel)
    expected = (kept(maps[0], 7) * kept(kernel[:, :, 0], 7)).sum(axis=(0, 1))
    np.testing.assert_allclose(found.ravel(), expected, rtol=1e-6, atol=1e-6)


def test_errors_of_known_arrays():
    reference = np.array([[4.0, 3.0], [0.0, 2.0], [1.0, 0.0]])
    found = errors(np.array([[4.0, 3.0], [0.0, -2.0], [0.0, 1.0]]), reference)
    np.testing.assert_allclose(found["largest error"], [0, 2, 1])
    np.testing.assert_allclose(found["1 - cosine"], [0, 2, 1])
    assert found["top kept"] == [1, 1, 0]


def test_the_five_percent_that_stay():
    reference = np.arange(100.0)[None]  # 95 to 99 are the top
    moved = reference.copy()
    moved[0, [0, 95, 96]] = [-1000, 0, 0]  # so are -1000 and 94, 97 to 99 now
    assert errors(moved, reference)["top kept"] == [0.6]
    # Cosines are resolved far below float64's 1e-16.
    tiny = reference.copy()
    tiny[0, 0] += 1e-12
    assert 0 < errors(tiny, reference)["1 - cosine"][0] < 1e-24


def test_each_arithmetic_is_what_its_name_says():
    def third(variables, x):
        return (x * variables).astype(variables.dtype)

    row = Row("f", "x / 3", third, np.float32(1 / 3), np.ones((1, 1), np.float32))
    assert evaluate(row, Arithmetic("", dtype=jnp.float64)).item() == np.float32(1 / 3)
    assert evaluate(row, ARITHMETICS["bfloat16"]).item() == float(jnp.bfloat16(1 / 3))

    def root(variables, x):
        return jnp.sqrt(x * variables)

    deep = Row("f", "√2", root, np.float32(2), np.ones((1, 1), np.float32))
    assert evaluate(deep, Arithmetic("", dtype=jnp.float64)).item() == np.sqrt(2)
    assert evaluate(deep, ARITHMETICS["float32"]).item() == np.sqrt(np.float32(2))


def dense(variables, x):
    return x @ variables


@pytest.fixture
def options(monkeypatch, tmp_path):
    rows = [Row("dense", label, dense, W, X) for label in ("first", "second")]
    monkeypatch.setattr(precision, "rows_of", lambda options: rows)
    return Options(out=tmp_path / "out", log=tmp_path / "log.jsonl", progress=False)


def test_measure_and_resume(options, monkeypatch, capsys):
    main(options)
    text = (options.out / "precision.md").read_text("utf-8")
    assert text in capsys.readouterr().out
    header, _, first, second = text.splitlines()
    assert header.split(" | ")[2:] == [
        *(a.label for a in list(ARITHMETICS.values())[:-1]),
        "bfloat16 throughout |",
    ]
    assert first.startswith("| dense | first |") and second.startswith("| dense | second |")
    found = json.loads((options.out / "precision.json").read_text())["errors"]
    largest = [np.mean(found[f"dense, first, {name}"]["largest error"]) for name in ARITHMETICS]
    assert largest[0] < 1e-6 < 1e-5 < largest[1] < largest[2] < 2e-2 and largest[3] < 2e-2
    log = options.log.read_bytes()
    options.log.write_bytes(log[: len(log) // 2])
    main(options)
    assert options.log.read_bytes() == log
    monkeypatch.setattr(precision, "evaluate", lambda *arguments: pytest.fail("evaluated again"))
    main(options)
    with pytest.raises(ValueError, match="expected the settings"):
        main(dataclasses.replace(options, num_roots=3))


@functools.cache
def heads():
    return {(row.subject, row.label): row for row in precision.head_rows(8, way=3, shot=2, queries=2)}


@pytest.mark.slow
@pytest.mark.parametrize("subject", ["relation head", "graph head", "cross attention"])
def test_heads_need_their_bits(subject):
    row = heads()[subject, "weights"]
    reference = evaluate(row, Arithmetic("float64", dtype=jnp.float64))
    # R / max|R|; cross attention multiplies two such weights in [0, 2].
    assert np.abs(reference).max() == pytest.approx(3 if subject == "cross attention" else 1, abs=1e-6)
    largest = [np.mean(errors(evaluate(row, a), reference)["largest error"]) for a in ARITHMETICS.values()]
    assert largest[0] < 1e-3 and largest[0] < largest[1] < largest[2]
    assert np.isfinite(largest).all()


@pytest.mark.slow
def test_guidance_adds_to_the_gradient():
    plain, guided = (heads()["cross attention", f"gradient, {kind}"] for kind in ("plain", "guided"))
    found = [evaluate(row, ARITHMETICS["float32"]) for row in (plain, guided)]
    assert found[0].shape == found[1].shape and errors(found[1], found[0])["largest error"][0] > 1e-3


@dataclasses.dataclass(frozen=True)
class Nothing:
    """No options."""


@pytest.mark.parametrize(
    ("given", "explains", "expected"),
    [
        (None, True, "highest"),
        (None, False, None),
        ("tensorfloat32", True, "tensorfloat32"),
    ],
)
def test_scripts_that_explain_keep_the_bits_of_products(monkeypatch, given, explains, expected):
    monkeypatch.setattr("sys.argv", ["explain.py"])
    monkeypatch.setattr(command_line, "keep_compiled_programs", lambda: None)
    seen = []
    jax.config.update("jax_default_matmul_precision", given)
    try:
        command_line.run(lambda options: seen.append(_default_precision()), Nothing, explains=explains)
    finally:
        jax.config.update("jax_default_matmul_precision", None)
    assert seen == [expected]


def _default_precision():
    return jax.config.jax_default_matmul_precision  # pyright: ignore[reportAttributeAccessIssue]


def test_bfloat16_has_its_largest_product_beyond_256_channels():
    x = jnp.zeros((1, 1, 512), jnp.bfloat16).at[0, 0, jnp.array([5, 301, 511])].set(jnp.array([1, 4, 3]))
    for last in (512, 300):  # the largest is channel 301, then 5
        found = largest_product(
            x.at[..., last:].set(0) if last < 512 else x, jnp.ones((1, 1, 512), jnp.bfloat16)
        )
        assert found.dtype == jnp.bfloat16 and found.item() == (4 if last == 512 else 1)
    assert largest_product(x.at[..., :511].set(0), jnp.ones_like(x)).item() == 3


def test_bfloat16_log_odds_are_right_to_the_last_bit():
    scores = jnp.array([[0.0, 9, 0, 0, 0], [0, 4, 0, 0, 0]], jnp.bfloat16)
    expected = log_odds(scores.astype(jnp.float32)).astype(jnp.bfloat16)
    np.testing.assert_array_equal(log_odds(scores), expected)
