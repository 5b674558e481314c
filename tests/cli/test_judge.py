"""The table of methods by metrics: on a network that is a mean and a dense layer, and of scores that are known."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jxai import metrics
from jxai.cli.explaining.inputs import EFFICIENTNET_LITE0
from jxai.cli.explaining.line_labels import line_styles, spread
from jxai.cli.explaining.methods import OF_MAPS, Settings, methods
from jxai.cli.explaining.picture_files import Picture
from jxai.cli.judging import judge
from jxai.cli.judging.judge import Options, main
from jxai.cli.judging.methods import CONTROL, REFERENCE, judged
from jxai.cli.judging.metrics import Costs, Subject, judging_metrics, shifted
from jxai.metrics.case import Case, Explainer
from jxai.metrics.score_tables import difference_table, score_table

METHODS = (REFERENCE, CONTROL)
METRICS = ("aupc", "sparseness", "completeness")
SETTINGS = Settings(
    num_roots=3, num_steps=3, num_samples=3, num_masks=3, num_coalitions=3, num_orders=1, window=16, stride=16
)
COSTS = Costs(
    num_regions=3, num_steps=2, shares=(0.5,), num_perturbations=2, num_groups=2, num_subsets=2, side=23
)


@pytest.fixture
def two(tiny_network, monkeypatch):
    """Two small pictures in the place of the photographs."""
    rng = np.random.default_rng(0)
    pictures = [Picture(str(i), rng.integers(0, 256, (46, 46, 3), np.uint8)) for i in range(2)]
    monkeypatch.setattr(judge, "read_pictures", lambda paths, count, **_: pictures[:count])
    monkeypatch.setattr(jax, "local_devices", lambda: jax.devices()[:1])
    return tiny_network, jnp.asarray(EFFICIENTNET_LITE0(np.stack([picture.pixels for picture in pictures])))


def options(folder, **changes):
    given = {"methods": METHODS, "metrics": METRICS, "settings": SETTINGS, "costs": COSTS}
    return Options(**{"out": folder, "count": 2, "batch": 1, "progress": False, **given, **changes})


def rows(table):
    return {line.split(" | ")[0].strip("| "): line for line in table.splitlines() if line.startswith("| ")}


def test_judge_and_resume(two, tmp_path, capsys, monkeypatch):
    main(options(tmp_path, figure=tmp_path / "made" / "figure.png"))
    printed = capsys.readouterr().out
    for name in ("judge.md", "judge.json", "made/figure.png"):
        assert (tmp_path / name).stat().st_size > 500 and name in printed
    text, log = (tmp_path / "judge.md").read_text("utf-8"), (tmp_path / "judge.jsonl").read_bytes()
    assert text in printed and "σ 0.225" in text and "1 draw each" in text
    table, differences = text.split("Differences to IG, black")
    assert "| method | AUPC ↓ | sparseness ↑ | residual ↓ |" in table
    # What moves without the network is never the best.
    assert "**" not in rows(table)["random (control)"] and rows(table)["random (control)"].endswith("| – |")
    assert rows(table)["IG, black"].count("**") == 6 and "IG, black" not in rows(differences)

    whole = json.loads((tmp_path / "judge.json").read_text())
    found = whole["scores"]
    assert whole["settings"]["judge-num_regions"] == 3 and set(found) == set(METHODS)
    # Integrated Gradients of a linear network is complete.
    assert max(found[REFERENCE]["completeness"]["values"]) < 1e-4 and "completeness" not in found[CONTROL]
    curve = np.array(whole["mean perturbation curves"][CONTROL])
    assert curve.shape == (4,) and abs(curve[0]) == 1
    np.testing.assert_allclose(metrics.aupc(curve), found[CONTROL]["aupc"]["mean"], rtol=1e-5)

    # Half of the log and a torn line: the rest is measured again, to the same numbers.
    (tmp_path / "judge.jsonl").write_bytes(log[: len(log) // 2])
    main(options(tmp_path))
    assert json.loads((tmp_path / "judge.json").read_text()) == whole
    assert (tmp_path / "judge.jsonl").read_bytes() == log
    # Nothing is missing of less.
    monkeypatch.setattr(metrics.judging.Judge, "explained", lambda *_: pytest.fail("explained again"))
    main(options(tmp_path, methods=(CONTROL,), metrics=("aupc", "completeness")))
    assert json.loads((tmp_path / "judge.json").read_text())["scores"][CONTROL] == {
        "aupc": found[CONTROL]["aupc"]
    }
    with pytest.raises(ValueError, match=r"expected the settings {'seed': 0} of .*, got {'seed': 1}"):
        main(options(tmp_path, seed=1))


def test_nan_is_named_with_its_picture_and_method(two, tmp_path, monkeypatch, capsys):
    """One picture gives NaN scores; the other's are judged, and so is what does not ask the network."""
    network, inputs = two

    def spoilt(apply):
        def scores(variables, x):
            bad = jnp.abs(x - inputs[1]).max(axis=(1, 2, 3)) < 1e-3
            return apply(variables, x) + jnp.where(bad, jnp.nan, 0)[:, None]

        return scores

    bad = dataclasses.replace(network.classifier, apply=spoilt(network.classifier.apply))
    monkeypatch.setattr(judge, "load_network", lambda _: dataclasses.replace(network, classifier=bad))
    for batch in (1, 2):
        given = {"metrics": ("sparseness", "completeness"), "batch": batch}
        with pytest.raises(
            ValueError, match=rf"expected finite attributions of '{REFERENCE}', .* images 1: look"
        ):
            main(options(tmp_path / str(batch), methods=(REFERENCE,), **given))
    assert (
        len((tmp_path / "1" / "judge.jsonl").read_text().splitlines()) == 1 + 2
    )  # the settings, the first's
    capsys.readouterr()
    main(options(tmp_path / "control", methods=(CONTROL,), metrics=("aupc", "sparseness"), batch=2))
    printed = capsys.readouterr().err
    assert f"not finite: aupc of {CONTROL} for 1\n" in printed and printed.count("not finite") == 1
    assert "not finite" in (tmp_path / "control" / "judge.md").read_text("utf-8")


def test_what_cannot_be_is_named(two, tmp_path):
    for changes, message in (
        ({"methods": ("nothing",)}, "expected methods among gradient, .*, got nothing"),
        ({"metrics": ("aupc", "x")}, "expected metrics among aupc, .*, got x"),
        ({"batch": 0}, "expected a batch of at least 1, got 0"),
    ):
        with pytest.raises(ValueError, match=message):
            main(dataclasses.replace(options(tmp_path), **changes))
    assert not list(tmp_path.iterdir())


def test_the_registry_is_whole():
    known = judged(Settings(), references=None)
    assert len(known) == 31 and all(one.method.name == name for name, one in known.items())
    assert list(known)[:4] == ["gradient", "input-x-gradient", REFERENCE, "ig-noise"]
    assert len({one.method.label for one in known.values()}) == 31
    left_out = methods().keys() - known.keys()
    assert "score-cam" in left_out and set(OF_MAPS) - {"score-cam"} < known.keys()
    of_black = {REFERENCE, "guided-ig", "deep-lift"}
    baselines = {name for name, one in known.items() if one.baseline}
    assert baselines == of_black | {"ig-noise", "kernel-shap", "shapley-sampling"}
    columns = judging_metrics(Costs(), Subject(known))
    assert len(columns) == 31 and set(columns) < set(metrics.DIRECTIONS)


@pytest.mark.slow
def test_randomization_is_the_end_of_the_cascade(two):
    network, x = two
    f = network.classifier
    target, key = jnp.array([3, 7]), jax.random.key(0)
    shuffled = metrics.shuffled_parameters(jax.random.key(1), f.variables["params"])
    other = dataclasses.replace(f, variables={"params": shuffled})
    one = judged(SETTINGS, references=x)["smooth-taylor"].method.explain

    def heatmaps(variables):
        return one(dataclasses.replace(f, variables=variables), key, x, target).sum(axis=-1)

    explainer = Explainer("smooth-taylor", key, lambda f, x, target: one(f, key, x, target), f, [])
    case = Case(f, key, x, target, one(f, key, x, target), explainer, None)
    columns = judging_metrics(COSTS, Subject({}, other))
    found = columns["model_randomization"].measure(case)
    cascade = metrics.model_randomization(
        heatmaps, f.variables, other.variables, layers=metrics.randomization_layers(f.variables)
    )
    np.testing.assert_allclose(found, cascade.rank_correlation[:, -1], atol=1e-5)
    efficient = metrics.efficient_model_randomization(heatmaps, f.variables, other.variables)
    found = columns["efficient_model_randomization"].measure(case)
    np.testing.assert_allclose(found, efficient, atol=1e-5)


def test_squares_without_relevance_and_a_network_that_undoes_a_shift(two):
    """On a network that is linear: what matters, what a shift does, and how many pixels hold the score."""
    network, x = two
    f, key, target = network.classifier, jax.random.key(0), jnp.array([3, 7])
    methods = judged(SETTINGS, references=x)
    known = {"shifted": shifted(f, EFFICIENTNET_LITE0), "references": x}
    columns = judging_metrics(COSTS, Subject(methods, **known))
    np.testing.assert_allclose(known["shifted"](x + 1), f(x), atol=1e-5)

    def found(column, name, spoil=1.0):
        explain = methods[name].method.explain
        explainer = Explainer(name, key, lambda f, x, target: explain(f, key, x, target), f, [])
        case = Case(f, key, x, target, spoil * explain(f, key, x, target), explainer, None)
        return np.asarray(columns[column].measure(case))

    # Four squares of 23 pixels: every one of them matters; half of the map is blank, and so a half counts.
    half = jnp.where(jnp.arange(46) < 23, 1.0, 0.0)[None, :, None, None]
    assert found("non_sensitivity", "gradient").tolist() == [0, 0]
    assert found("non_sensitivity", "gradient", half).tolist() == [0.5, 0.5]
    assert found("input_invariance", "gradient").tolist() == [0, 0]
    assert (found("input_invariance", "input-x-gradient") > 0.1).all()
    assert set(found("effective_complexity", "gradient").tolist()) <= {0, 0.5, 1}
    # The gradient of a linear network is where it was.
    assert found("continuity", "gradient").tolist() == [0, 0]


@pytest.mark.long
@pytest.mark.filterwarnings("ignore:expected every pattern")  # the stand-in has no activation
def test_every_method_by_every_metric(two, tmp_path):
    main(options(tmp_path, methods=(), metrics=(), batch=2))
    found = json.loads((tmp_path / "judge.json").read_text())["scores"]
    assert len(found) == 31 and {len(of) for of in found.values()} == {30, 31}
    for name, of in found.items():
        assert all(len(column["values"]) == 2 for column in of.values())
        if name != CONTROL:
            assert np.isfinite([of[metric]["mean"] for metric in ("aupc", "autvc", "road")]).all(), name
    for name in ("ig-noise", "kernel-shap", "shapley-sampling", "deep-lift"):
        assert max(found[name]["completeness"]["values"]) < 1e-3, name


def test_tables_of_known_scores():
    labels = {REFERENCE: "IG", "gradient": "gradient", CONTROL: "random"}
    scores = {
        REFERENCE: {"aupc": np.array([2.0, 4.0]), "sparseness": np.array([0.5, 0.7])},
        "gradient": {"aupc": np.array([1.0, 2.98])},
        CONTROL: {"aupc": np.array([0.0, 0.0]), "sparseness": np.array([0.9, np.inf])},
    }
    # Half widths 12.706·s/√2 (Student's t) with s = √2, 1.400 and 0.1414; decimals by the middle one above 0.
    assert rows(
        score_table(scores, methods=labels, columns={"aupc": "A", "sparseness": "S"}, control=CONTROL)
    ) == {
        "method": "| method | A ↓ | S ↑ |",
        "---": "| --- | ---: | ---: |",
        "IG": "| IG | 3 ± 13 | **0.6 ± 1.3** |",
        "gradient": "| gradient | **2 ± 13** | – |",
        "random": "| random | 0 ± 0 | not finite |",
    }
    table = difference_table(scores, methods=labels, columns={"aupc": "A"}, reference=REFERENCE)
    # Differences −1, −1.02 and −2, −4: s = 0.01414 and √2.
    assert rows(table)["gradient"] == "| gradient | **−1.0 ± 0.1** |"
    assert rows(table)["random"] == "| random | −3.0 ± 12.7 |"
    worse = {REFERENCE: scores["gradient"], "gradient": scores[REFERENCE]}
    names = {name: labels[name] for name in worse}
    table = difference_table(worse, methods=names, columns={"aupc": "A"}, reference=REFERENCE)
    assert rows(table)["gradient"] == "| gradient | +1.01 ± 0.13 |"


def test_ratios_too_large_for_float32_squared_have_a_mean():
    scores = {"gradient": {"relative_input_stability": np.array([1e20, 3e20], np.float32)}}
    table = score_table(
        scores, methods={"gradient": "g"}, columns={"relative_input_stability": "RIS"}, control=None
    )
    assert rows(table)["g"].startswith("| g | **2.0e+20 ± ")


def test_names_are_spread_in_order():
    rng = np.random.default_rng(0)
    for _ in range(20):
        places = rng.normal(size=9)
        moved = spread(places, 0.3)
        order = np.argsort(places)
        assert (np.diff(moved[order]) >= 0.3 - 1e-12).all()
        assert abs((moved - places).sum()) < 1e-9  # of the least squares
    assert spread([0.0, 5.0, 1.0], 0.5).tolist() == [0.0, 5.0, 1.0]
    assert spread([1.0, 1.0], 0.5).tolist() == [0.75, 1.25]
    styles = line_styles(18)
    assert len({str(style) for style in styles}) == 18
