"""`text.explain` and its core against `lrp.vjp`, gradients, and itself in other ways."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jxai import attribution, lrp, text
from tiny import VOCABULARY

CLOSE = {"rtol": 1e-4, "atol": 1e-5}
explain = functools.partial(jax.jit, static_argnames=("score", "method", "span", "channels", "chunk_size"))(
    text.explain
)
gradient = attribution.input_x_gradient


def logits(model, x, position=-1):
    return model.unembed(model.encode(x, None))[:, position]


@pytest.mark.slow
def test_relevance_of_the_next_token_is_that_of_its_logit(model, ids):
    target = np.array([3, 9])
    expected = lrp.relevance(lambda x: logits(model, x), model.embed(ids), target, composite=lrp.AttnLRP())
    np.testing.assert_allclose(explain(model, ids, target), expected.sum(-1), **CLOSE)
    np.testing.assert_allclose(explain(model, ids, target, channels=True), expected, **CLOSE)
    best = np.asarray(model(ids)[:, -1].argmax(-1))
    np.testing.assert_allclose(explain(model, ids, None), explain(model, ids, best), **CLOSE)


@pytest.mark.slow
def test_without_jit_and_unrolled(model, unrolled, ids):
    expected = explain(model, ids, None)
    np.testing.assert_allclose(text.explain(model, ids, None), expected, **CLOSE)
    np.testing.assert_allclose(explain(unrolled, ids, None), expected, **CLOSE)


@pytest.mark.slow
def test_padding_changes_nothing(model, ids):
    longer = np.concatenate([ids, [[9], [10]]], axis=1)
    mask = np.array([[True] * 4 + [False], [True] * 5])
    found = explain(model, longer, None, mask=mask)
    np.testing.assert_allclose(found[0, :4], explain(model, ids, None)[0], **CLOSE)
    np.testing.assert_allclose(found[0, 4], 0, atol=1e-6)
    np.testing.assert_allclose(found[1], explain(model, longer, None)[1], **CLOSE)
    by_gradient = explain(model, longer, None, mask=mask, method=gradient)
    np.testing.assert_allclose(by_gradient[0, :4], explain(model, ids, None, method=gradient)[0], **CLOSE)


@pytest.mark.slow
def test_chunks_of_a_span_change_nothing(model, ids):
    matrix = explain(model, ids, None, span=(1, 4))
    np.testing.assert_allclose(explain(model, ids, None, span=(1, 4), chunk_size=1), matrix, **CLOSE)


@pytest.mark.parametrize("method", [lrp.AttnLRP(), pytest.param(gradient, marks=pytest.mark.slow)])
def test_a_span_is_each_token_behind_the_one_before_it(model, ids, method):
    matrix = explain(model, ids, None, span=(1, 4), method=method)
    assert matrix.shape == (2, 3, 4)
    for row, stop in enumerate((1, 2, 3)):
        where = np.full(2, stop - 1)
        alone = explain(model, ids, ids[:, stop], positions=where, method=method)
        np.testing.assert_allclose(matrix[:, row], alone, **CLOSE)
        np.testing.assert_allclose(matrix[:, row, stop:], 0, atol=1e-6)  # the model is causal


@pytest.mark.slow
def test_positions_count_from_either_end_and_for_each_sequence(model, ids):
    target = np.array([3, 9])
    each = explain(model, ids, target, positions=np.array([1, 3]))
    np.testing.assert_allclose(each[0], explain(model, ids, target, positions=np.array(-3))[0], **CLOSE)
    np.testing.assert_allclose(each[1], explain(model, ids, target)[1], **CLOSE)


def test_contrast_is_the_difference_of_two_maps(model, ids):
    one, other = np.array([3, 9]), np.array([4, 2])
    found = explain(model, ids, one, contrast=other)
    np.testing.assert_allclose(found, explain(model, ids, one) - explain(model, ids, other), **CLOSE)


@pytest.mark.slow
def test_a_log_probability_is_the_contrast_with_all_tokens(model, ids):
    target = np.array([3, 9])
    x = model.embed(ids)

    def of_log_probability(x):
        return jax.nn.log_softmax(logits(model, x))[jnp.arange(2), target].sum()

    expected = (x * jax.grad(of_log_probability)(x)).sum(-1)
    found = explain(model, ids, target, score="log-probability", method=gradient)
    np.testing.assert_allclose(found, expected, **CLOSE)
    # Pullbacks are linear in what relevance starts with.
    probabilities = jax.nn.softmax(logits(model, x))
    maps = jnp.stack([explain(model, ids, np.full(2, v)) for v in range(VOCABULARY)], axis=1)
    by_hand = maps[np.arange(2), target] - jnp.einsum("nv,nvt->nt", probabilities, maps)
    by_lrp = explain(model, ids, target, score="log-probability")
    np.testing.assert_allclose(by_lrp, by_hand, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_the_last_layer_conserves_and_relevance_of_bytes_and_classes_is_the_same_core(model, ids):
    weights = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)

    def classes(x):
        return model.encode(x, None).mean(axis=1) @ weights

    x, target = model.embed(ids), np.array([0, 2])
    found = text.token_relevance(classes, x, target, method=lrp.CPLRP(epsilon=0))
    scores = classes(x)[np.arange(2), target]
    assert found.shape == (2, 4) and found.dtype == jnp.float32
    expected = lrp.relevance(classes, x, target, composite=lrp.CPLRP(epsilon=0)).sum(-1)
    np.testing.assert_allclose(found, expected, **CLOSE)
    np.testing.assert_allclose(
        text.token_relevance(classes, x, target, method=gradient),
        gradient(classes, x, target).sum(-1),
        **CLOSE,
    )
    assert np.isfinite(scores).all()


@pytest.mark.parametrize(
    "method",
    [
        functools.partial(attribution.integrated_gradients, num_steps=64, method="midpoint"),
        functools.partial(attribution.occlusion, window=1, stride=1),
        lambda f, x, target: attribution.smooth_grad(f, jax.random.key(0), x, target, num_roots=3),
    ],
    ids=["integrated", "occlusion", "smooth"],
)
@pytest.mark.slow
def test_estimators_work_at_the_embeddings(model, ids, method):
    found = explain(model, ids, None, method=method)
    assert found.shape == (2, 4) and np.isfinite(found).all()


@pytest.mark.slow
def test_integrated_gradients_of_tokens_are_complete(model, ids):
    target = np.array([3, 9])
    baseline = np.full(6, 0.25, np.float32)  # an embedding
    method = functools.partial(
        attribution.integrated_gradients, num_steps=200, method="midpoint", baseline=baseline
    )
    found = explain(model, ids, target, method=method)
    x = model.embed(ids)
    change = logits(model, x) - logits(model, jnp.broadcast_to(baseline, x.shape))
    np.testing.assert_allclose(found.sum(-1), change[np.arange(2), target], rtol=1e-2, atol=1e-3)


@pytest.mark.slow
def test_occlusion_of_tokens_against_a_loop(model, ids):
    target = np.array([3, 9])
    found = explain(model, ids, target, method=functools.partial(attribution.occlusion, window=1, stride=1))
    x = model.embed(ids)
    whole = logits(model, x)[np.arange(2), target]
    for token in range(4):
        drop = whole - logits(model, x.at[:, token].set(0))[np.arange(2), target]
        np.testing.assert_allclose(found[:, token], drop, **CLOSE)


def test_nan_in_a_sequence_stays_there(model, ids):
    spoilt = jax.tree.map(lambda p: p, model)
    embedding = spoilt.params["embedding"].at[7].set(jnp.nan)
    spoilt = type(model)({**model.params, "embedding": embedding})
    # The last token's logit of all tokens but 7 is of finite numbers where 7 is not read.
    found = explain(spoilt, ids, np.array([3, 9]))
    assert np.isnan(found[1]).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ids": np.zeros((1, 0), int)}, "prompts that are not empty"),
        ({"ids": np.zeros(3, int)}, r"shape \(N, T\)"),
        ({"ids": np.zeros((1, 3))}, "integers"),
        ({"ids": -np.ones((1, 3), int)}, "at least 0"),
        ({"target": np.array([3])}, r"shape \(2,\)"),
        ({"target": np.array([3, 11])}, r"in \[0, 11\)"),
        ({"target": np.array([3.0, 1.0])}, "integers"),
        ({"contrast": np.array([3, 11])}, r"`contrast` in \[0, 11\)"),
        ({"contrast": np.array([3])}, "`contrast` of shape"),
        ({"positions": 4}, "positions"),
        ({"positions": 1.5}, "integers"),
        ({"span": (0, 2), "target": None}, "span as"),
        ({"span": (1, 5), "target": None}, "span as"),
        ({"span": 3, "target": None}, "span as"),
        ({"span": (1, 2)}, "span without target"),
        ({"mask": np.ones((2, 4))}, "booleans"),
        ({"mask": np.zeros((2, 4), bool)}, "a sequence without"),
        ({"score": "probability"}, "score among"),
        ({"method": "lrp"}, "a composite"),
        ({"method": lambda f, x, target: x[:, 0]}, "of shape"),
        ({"score": "log-probability", "contrast": np.array([1, 2])}, "contrast with score"),
    ],
)
def test_what_is_refused(model, ids, options, message):
    given = {"ids": ids, "target": np.array([3, 9]), **options}
    with pytest.raises(ValueError, match=f"expected .*{message}"):
        text.explain(model, given.pop("ids"), given.pop("target"), **given)
