"""Methods by metrics in one call: the numbers of the metrics themselves, whatever is beside them or was stopped."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jxai import attribution, metrics
from jxai.compiled import Compiled
from jxai.metrics import judging, removal, shared
from jxai.metrics.case import parts

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


def test_a_method_is_traced_once_however_many_metrics_ask_it_again():
    """And what another function makes not finite is NaN, as in a program."""
    traced = []

    def method(f, x, target):
        if jax.eval_shape(f, x).shape[1] == 4:  # once a trace
            traced.append(x.shape)
        return attribution.input_x_gradient(f, x, target)

    def stable(case):
        return shared.robustness(
            case.f, case.explain, case.key, case.x, case.target, radius=0.1, num_samples=2
        )

    def spoilt(x):
        return f(x) * jnp.inf

    def stability(case):
        return metrics.maximum_sensitivity(
            lambda x, t: case.explain(x, t, f=spoilt), case.key, case.x, case.target
        )

    names = ("maximum_sensitivity", "local_lipschitz_estimate", "relative_input_stability")
    columns = {
        **parts(stable, *names),
        "logit": lambda c: abs(c.explain(c.x, c.target * 0)).sum(axis=(1, 2, 3)),
    }
    # With the first method it turns out which computations ask.
    methods = {"first": attribution.input_x_gradient, "one": method}
    found = evaluate(methods=methods, metrics=columns, directions={"logit": "lower"}, control=False)
    explained = found.scores["one"]
    assert len(traced) == 1
    for name in names[:2]:
        assert explained[name].shape == (5,) and (explained[name] > 0).all()
    found = evaluate(
        methods={"one": method}, metrics={"stability": stability}, directions={"stability": "lower"}
    )
    assert np.isnan(found.scores["one"]["stability"]).all()


def test_neighbors_by_a_program_of_ones_own_are_those_of_a_loop():
    """The same numbers where `explain` is compiled itself, for any chunk."""

    class Own(Compiled):
        def __call__(self, x, target):
            return plain(x, target)

    def plain(x, target):
        return attribution.input_x_gradient(f, x, target)

    options = {"radius": 0.1, "num_samples": 3}
    for metric in (metrics.maximum_sensitivity, metrics.average_sensitivity):
        expected = metric(plain, KEY, X, TARGET, **options)
        for chunk in (None, 1, 2):
            np.testing.assert_allclose(
                metric(Own(), KEY, X, TARGET, **options, chunk_size=chunk), expected, rtol=1e-4
            )
        np.testing.assert_allclose(
            jax.jit(lambda x, metric=metric: metric(Own(), KEY, x, TARGET, **options))(X), expected, rtol=1e-4
        )
    with pytest.raises(ValueError, match="one explanation an input"):
        metrics.maximum_sensitivity(
            type("Sum", (Compiled,), {"__call__": lambda s, x, t: x.sum()})(), KEY, X, TARGET
        )


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
    # Another target is another batch, and new images are new ones: the others stay.
    records = len(given["log"].read_text().splitlines())
    metrics.evaluate(f, KEY, X, TARGET.at[0].set(1), methods=METHODS, progress=False, batch_size=2, **given)
    assert len(given["log"].read_text().splitlines()) == records + 3
    more, targets = jnp.concatenate([X, X]), jnp.concatenate([TARGET, TARGET])
    grown = metrics.evaluate(f, KEY, more, targets, methods=METHODS, progress=False, batch_size=2, **given)
    assert len(given["log"].read_text().splitlines()) == records + 3 + 3 * 3
    for name, of in whole.scores.items():
        np.testing.assert_array_equal(grown.scores[name]["stops"][:4], of["stops"][:4])
    for changed, scores in ((jax.random.key(4), f), (KEY, lambda x: 2 * f(x))):
        with pytest.raises(ValueError, match="expected the settings"):
            metrics.evaluate(
                scores, changed, X, TARGET, methods=METHODS, progress=False, batch_size=2, **given
            )


def test_a_metric_gives_a_curve_or_nothing_and_another_function_is_explained(tmp_path):
    def flipping(case):
        curve = metrics.pixel_flipping(case.f, case.x, case.heatmap, case.target, num_steps=4)
        return metrics.curve_area(curve), curve

    def residual(case):
        if case.explain.name != "gradient × input":
            return None
        return metrics.completeness(case.f, case.x, case.attributions, case.target).residual

    def doubled(case):
        other = case.explain(case.x, case.target, f=lambda x: 2 * case.f(x))
        return jnp.abs(other - 2 * case.attributions).max(axis=(1, 2, 3))

    own = {"flipping": flipping, "residual": residual, "doubled": doubled}
    given = {"metrics": own, "directions": dict.fromkeys(own, "lower"), "log": tmp_path / "log.jsonl"}
    found = evaluate(names=list("abcde"), **given)
    assert found.curves["SmoothGrad"]["flipping"].shape == (5, 5) and set(found.curves) == set(found.scores)
    np.testing.assert_allclose(
        metrics.curve_area(found.curves["random"]["flipping"]), found.scores["random"]["flipping"], rtol=1e-5
    )
    assert [name for name, of in found.scores.items() if "residual" in of] == ["gradient × input"]
    assert (found.scores["SmoothGrad"]["doubled"] < 1e-6).all()  # the same noise
    assert "| – |" in found.table() and "| – |" in found.differences("random")
    assert '"SmoothGrad","doubled","e",' in found.to_csv()
    # From the log alone they are the same.
    again = evaluate(names=list("abcde"), **given)
    for name, of in found.scores.items():
        assert of.keys() == again.scores[name].keys()
        np.testing.assert_array_equal(of["flipping"], again.scores[name]["flipping"])
        np.testing.assert_array_equal(found.curves[name]["flipping"], again.curves[name]["flipping"])


def test_metrics_of_the_same_inputs_share_them():
    """And give the numbers that they give alone."""
    x = jax.random.uniform(KEY, (2, 8, 8, 3))
    target, calls = jnp.array([1, 2]), []

    def counted(x):
        jax.debug.callback(lambda: calls.append(len(x)))
        return f(x)

    heatmap = attribution.input_x_gradient(f, x, target).sum(axis=-1)
    flipping, deletion = removal.removal_curves(counted, x, heatmap, target, num_steps=4)
    jax.effects_barrier()
    assert sum(calls) == 2 * 5
    np.testing.assert_allclose(
        flipping, metrics.pixel_flipping(f, x, heatmap, target, num_steps=4), rtol=1e-5
    )
    np.testing.assert_allclose(deletion, metrics.deletion(f, x, heatmap, target, num_steps=4), rtol=1e-5)
    found = shared.removal(f, x, heatmap, target, num_steps=4)
    np.testing.assert_allclose(found["pixel_flipping"], metrics.curve_area(flipping), rtol=1e-5)
    np.testing.assert_allclose(found["deletion"], metrics.curve_area(deletion), rtol=1e-5)
    alone = metrics.monotonicity(f, x, heatmap, target, group_size=16)
    np.testing.assert_array_equal(found["monotonicity"], alone)
    found = shared.regional(f, x, heatmap, target, patch_size=4)
    alone = metrics.region_perturbation(f, x, heatmap, target, patch_size=4).mean(axis=1)
    np.testing.assert_allclose(found["region_perturbation"], alone, rtol=1e-5)
    alone = metrics.curve_area(metrics.selectivity(f, x, heatmap, target, patch_size=4))
    np.testing.assert_allclose(found["selectivity"], alone, rtol=1e-5)

    def explain(x, target):
        return attribution.input_x_gradient(f, x, target)

    options = {"radius": 0.05, "num_samples": 3}
    found = shared.robustness(f, explain, KEY, x, target, represent=lambda x: x**2, **options)
    for name in ("maximum_sensitivity", "average_sensitivity", "local_lipschitz_estimate"):
        alone = getattr(metrics, name)(explain, KEY, x, target, **options)
        np.testing.assert_allclose(found[name], alone, rtol=1e-4)
    again = shared.robustness(f, explain, KEY, x, target, represent=lambda x: x, **options)
    # Of the input itself it is the input's.
    np.testing.assert_allclose(
        again["relative_representation_stability"], again["relative_input_stability"], rtol=1e-4
    )
    assert (found["relative_representation_stability"] < again["relative_representation_stability"]).all()
    found = shared.relative_stabilities(f, explain, KEY, x, target, num_samples=3)
    for name, values in found.items():
        alone = getattr(metrics, name)(f, explain, KEY, x, target, num_samples=3)
        np.testing.assert_allclose(values, alone, rtol=1e-4)


def test_several_devices_give_the_scores_of_one():
    """Of noise, too; and of a metric that cannot be traced."""

    def counts(case):
        return np.asarray(case.heatmap > 0).sum(axis=(1, 2))

    own = {
        "counts": counts,
        "sensitivity": lambda c: metrics.maximum_sensitivity(c.explain, c.key, c.x, c.target, num_samples=1),
    }
    given = {"metrics": own, "directions": dict.fromkeys(own, "lower"), "batch_size": 1}
    given |= {"methods": {"SmoothGrad": noisy}, "control": False}
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:3]), ("devices",))  # five batches, three devices
    one, several = evaluate(**given), evaluate(mesh=mesh, **given)
    for name, of in one.scores.items():
        for metric, values in of.items():
            np.testing.assert_allclose(
                several.scores[name][metric], values, rtol=1e-5, err_msg=f"{name} {metric}"
            )


def test_tables_mark_the_best_and_json_and_csv_hold_all():
    found = evaluate()
    table, csv, written = found.table(), found.to_csv(), found.to_json()
    assert "| method | deletion ↓ | sparseness ↑ |" in table and table.count("**") == 4
    assert "random" in found.differences("random").splitlines()[0]
    assert csv.count("\n") == 1 + 3 * 2 * 5 and '"gradient × input","deletion",0,' in csv
    values = found.scores["SmoothGrad"]["deletion"]
    kept = written["scores"]["SmoothGrad"]["deletion"]["values"]
    np.testing.assert_array_equal(np.float32(kept), values)
    assert found.means()["SmoothGrad"]["deletion"] == pytest.approx(values.mean())
    assert found._repr_markdown_() == table


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"metrics": ("deletions",)}, "metrics among .*got 'deletions'"),
        ({"metrics": ()}, "metrics by name"),
        ({"metrics": "deletion"}, "a list such as"),
        ({"metrics": {"mine": metrics.deletion}}, r"a function of one Case as 'mine', got one of \(f, x"),
        ({"methods": {"a": lambda x, target: x}}, r"\(f, key, x, target\) as 'a', got one of \(x, target\)"),
        ({"methods": ["gradient"]}, "give a dictionary"),
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
        ({"names": ["a"]}, "expected 5 names, got 1"),
        (
            {"metrics": {"mine": lambda case: (case.heatmap[:, 0, 0], 3.0)}, "directions": {"mine": "lower"}},
            r"'mine' to give a curve an image, \(2, points\), got \(\)",
        ),
    ],
)
def test_what_is_refused(changes, message):
    with pytest.raises((ValueError, TypeError), match=message):
        evaluate(**changes)


def test_other_targets_are_told_what_to_do():
    run = functools.partial(metrics.evaluate, methods=METHODS, metrics=("deletion",), progress=False)
    with pytest.raises(TypeError, match="class indices, got a function"):
        run(f, KEY, X, attribution.contrast(TARGET, (TARGET + 1) % 4))


def test_an_unknown_reference_is_refused():
    found = evaluate(control=False)
    with pytest.raises(ValueError, match="a reference among gradient × input, SmoothGrad, got 'random'"):
        found.differences("random")


def test_programs_of_a_method_go_with_it(monkeypatch):
    """Thirty methods of a network of fifty layers had more programs than an operating system lets a process map."""
    left = []

    def leave(self, name, given=judging.Judge.leave):
        assert self._explaining
        given(self, name)
        left.append((name, len(self._explaining), [what for what in self._programs if name in what]))

    monkeypatch.setattr(judging.Judge, "leave", leave)
    evaluate(metrics=("maximum_sensitivity",))
    assert left == [(name, 0, []) for name in (*METHODS, "random")]
