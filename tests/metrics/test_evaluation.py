"""Methods by metrics in one call: the numbers of the metrics themselves, whatever is beside them or was stopped."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jxai import attribution, metrics

KEY = jax.random.key(3)
X = jax.random.uniform(jax.random.key(0), (5, 8, 8, 3))
W = jax.random.normal(jax.random.key(1), (8 * 8 * 3, 4))
TARGET = jnp.array([0, 1, 2, 3, 0])
MASK = jnp.zeros((5, 8, 8), bool).at[:, 2:5, 2:5].set(True)


def f(x):
    return jnp.tanh(x.reshape(len(x), -1) @ W / 8)


def noisy(f, key, x, target):
    return attribution.smooth_grad(f, key, x, target, num_roots=2, noise_scale=0.1)


METHODS = {"gradient × input": attribution.input_x_gradient, "SmoothGrad": noisy}


def evaluate(**changes):
    given = {"methods": METHODS, "metrics": ("deletion", "sparseness"), "batch_size": 2, "progress": False}
    return metrics.evaluate(f, KEY, X, TARGET, **(given | changes))


def test_scores_are_those_of_the_metrics():
    found = evaluate(batch_size=5)
    heatmap = attribution.input_x_gradient(f, X, TARGET).sum(axis=-1)
    curve = metrics.deletion(f, X, heatmap, TARGET, num_steps=20)
    scores = found.scores["gradient × input"]
    np.testing.assert_allclose(scores["deletion"], metrics.curve_area(curve), rtol=1e-5)
    np.testing.assert_allclose(scores["sparseness"], metrics.sparseness(heatmap), rtol=1e-5)
    assert found.directions == {"deletion": "lower", "sparseness": "higher"}
    assert [*found.scores] == [*METHODS, "random"]


def test_batches_and_neighbors_change_nothing():
    """But for noise, which is a batch's own: whatever else is measured beside it."""
    whole, parts = evaluate(batch_size=5), evaluate(batch_size=2)
    name = "gradient × input"
    for metric, values in whole.scores[name].items():
        np.testing.assert_allclose(parts.scores[name][metric], values, rtol=1e-5)
    alone = evaluate(methods={"SmoothGrad": noisy}, metrics=("sparseness",), control=False)
    np.testing.assert_array_equal(
        alone.scores["SmoothGrad"]["sparseness"], parts.scores["SmoothGrad"]["sparseness"]
    )
    assert [*alone.scores] == ["SmoothGrad"]


def test_a_metric_of_ones_own_sees_the_case_traced_or_not():
    def asks(case):
        return jnp.abs(case.explain(case.x * 2, case.target) - case.attributions).sum(axis=(1, 2, 3))

    def counts(case):
        return np.asarray(case.heatmap > 0).sum(axis=(1, 2))  # NumPy cannot be traced

    own = {"asks": asks, "counts": counts}
    found = evaluate(metrics=own, directions={"asks": "lower", "counts": "higher"})
    once = attribution.input_x_gradient(f, X, TARGET)
    twice = attribution.input_x_gradient(f, 2 * X, TARGET)
    expected = jnp.abs(twice - once).sum(axis=(1, 2, 3))
    np.testing.assert_allclose(found.scores["gradient × input"]["asks"], expected, rtol=1e-4)
    expected = (once.sum(axis=-1) > 0).sum(axis=(1, 2))
    np.testing.assert_array_equal(found.scores["gradient × input"]["counts"], expected)
    # Noise stays the same where a method is asked again: nothing but x has moved.
    assert (found.scores["random"]["asks"] == 0).all() and (found.scores["SmoothGrad"]["asks"] > 0).all()


def test_masks_are_for_localization():
    found = evaluate(metrics=("relevance_mass",), mask=MASK)
    heatmap = attribution.input_x_gradient(f, X, TARGET).sum(axis=-1)
    np.testing.assert_allclose(
        found.scores["gradient × input"]["relevance_mass"], metrics.relevance_mass(heatmap, MASK), rtol=1e-5
    )


@pytest.mark.slow
def test_every_name_gives_a_number_an_image():
    x = jax.random.uniform(jax.random.key(0), (2, 64, 64, 3))
    weights = jax.random.normal(jax.random.key(1), (64 * 64 * 3, 4))

    def scores(x):
        return jnp.tanh(x.reshape(len(x), -1) @ weights / 110)

    mask = jnp.zeros((2, 64, 64), bool).at[:, 4:20, 4:20].set(True)
    found = metrics.evaluate(
        scores,
        KEY,
        x,
        scores(x).argmax(axis=1),
        methods={"gradient × input": attribution.input_x_gradient},
        metrics=[*metrics.case.NAMED],
        mask=mask,
        progress=False,
    )
    for name, of in found.scores["gradient × input"].items():
        assert of.shape == (2,) and np.isfinite(of).all(), name
    # Scores near linear: gradient times input is close to what a pixel is worth, noise is not.
    assert (found.scores["gradient × input"]["faithfulness_correlation"] > 0.9).all()
    assert (abs(found.scores["random"]["faithfulness_correlation"]) < 0.5).all()


def test_a_run_that_was_stopped_goes_on(tmp_path):
    calls = []

    def stops(case):
        calls.append(len(calls))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return np.asarray(metrics.sparseness(case.heatmap))

    given = {"metrics": {"stops": stops}, "directions": {"stops": "higher"}, "log": tmp_path / "log.jsonl"}
    with pytest.raises(KeyboardInterrupt):
        evaluate(**given)
    before = len(calls)
    found = evaluate(**given)
    whole = evaluate(**(given | {"log": None}))
    for name, of in whole.scores.items():
        np.testing.assert_array_equal(found.scores[name]["stops"], of["stops"])
    assert before == 3
    again = len(calls)
    evaluate(**given)
    assert len(calls) == again  # nothing is measured anew
    with pytest.raises(ValueError, match=r"expected the settings .*targets"):
        metrics.evaluate(f, KEY, X, TARGET[::-1], methods=METHODS, progress=False, batch_size=2, **given)


def test_tables_mark_the_best_and_json_and_csv_hold_all():
    found = evaluate()
    table, csv, written = found.table(), found.to_csv(), found.to_json()
    assert "| method | deletion ↓ | sparseness ↑ |" in table and table.count("**") == 4
    assert "random" in found.differences("random").splitlines()[0]
    assert csv.count("\n") == 1 + 3 * 2 * 5 and '"gradient × input","deletion",0,' in csv
    values = found.scores["SmoothGrad"]["deletion"]
    assert written["scores"]["SmoothGrad"]["deletion"]["values"] == values.tolist()
    assert found.means()["SmoothGrad"]["deletion"] == pytest.approx(values.mean())
    assert found._repr_markdown_() == table


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"metrics": ("deletions",)}, "metrics among .*got 'deletions'"),
        ({"metrics": ()}, "metrics by name"),
        ({"metrics": {"mine": lambda case: case.heatmap}}, "what is better of 'mine', got None"),
        (
            {"metrics": {"mine": lambda case: case.heatmap}, "directions": {"mine": "lower"}},
            r"'mine' to give a number an image, \(2,\), got \(2, 8, 8\)",
        ),
        ({"metrics": ("relevance_mass",)}, "a mask for relevance_mass"),
        ({"mask": MASK[:2]}, r"a mask of booleans \(5, 8, 8\)"),
        ({"methods": {}}, "methods by name"),
        ({"methods": {"a": 3}}, "a function .* as 'a'"),
        ({"methods": {"random": noisy}}, "no method named 'random'"),
        ({"methods": {"a": lambda f, x, target: x[:, :4]}}, "of 'a', got "),
        ({"methods": {"a": lambda f, x, target: x * jnp.nan}}, "finite attributions of 'a'.*images 0, 1"),
        ({"batch_size": 0}, "batch_size"),
    ],
)
def test_what_is_refused(changes, message):
    with pytest.raises((ValueError, TypeError), match=message):
        evaluate(**changes)


def test_an_unknown_reference_is_refused():
    found = evaluate(control=False)
    with pytest.raises(ValueError, match="a reference among gradient × input, SmoothGrad, got 'random'"):
        found.differences("random")
