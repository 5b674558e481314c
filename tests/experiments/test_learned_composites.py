"""Composites learned and searched: of two layers; tables of made-up scores; a tiny run to its end."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.learned_composites import __main__ as command
from experiments.learned_composites import learning, report
from jxai import lrp
from jxai.errors import InputError

RNG = np.random.default_rng(0)
X = jnp.asarray(RNG.random((6, 4, 4, 1)), jnp.float32)
PARAMS = {
    "a": jnp.asarray(RNG.normal(size=(16, 8)), jnp.float32),
    "b": jnp.asarray(RNG.normal(size=(8, 3)), jnp.float32),
}


def scores(params, x):
    with jax.named_scope("hidden"):
        x = jax.nn.relu(x.reshape(len(x), -1) @ params["a"] - 0.3)
    with jax.named_scope("output"):
        return x @ params["b"]


PICTURES = learning.Pictures(X, scores(PARAMS, X).argmax(axis=1))
SUBJECT = learning.Subject(PARAMS, PARAMS, PICTURES, PICTURES)
FAMILY = learning.Family(
    lrp.Composite(((lrp.Kind.DENSE, lrp.Gamma(0.25, epsilon=0.01)),)),
    {"gamma": (0.0, 0.5, 4.0), "epsilon": (0.01, 1.0)},
)


@pytest.fixture(scope="module")
def learner():
    return learning.Learner(scores, SUBJECT, FAMILY, learning_rate=0.3, num_steps=15)


def test_learning_lowers_the_objective_from_where_the_preset_is(learner):
    learned = learner.learn(PARAMS, learner.values, PICTURES, seed=0, batch=6)
    assert set(learned.values) == {"hidden", "output"} and len(learned.objective) == 15
    maps = learning.heatmaps(scores, PARAMS, FAMILY.preset, PICTURES)
    start = learning.objective(scores, PARAMS, maps, PICTURES)
    np.testing.assert_allclose(learned.objective[0], start, rtol=1e-5)
    assert learner.objective(PARAMS, learned.values, PICTURES) < start
    assert all(value > 0 for value in jax.tree.leaves(learned.values))


def test_nan_stops_learning_and_the_last_good_numbers_stand(learner):
    spoilt = PICTURES._replace(x=X.at[2].set(jnp.nan))
    assert learner.learn(PARAMS, learner.values, spoilt, seed=0, batch=6).objective == []
    draws = np.random.default_rng(0)
    good = next(step for step in range(15) if 2 in draws.choice(6, 2, replace=False))
    some = learner.learn(PARAMS, learner.values, spoilt, seed=0, batch=2)
    assert len(some.objective) == good > 0
    assert np.isfinite(jax.tree.leaves(some.values)).all()


def test_the_search_finds_the_best_candidate(learner):
    assert len(learner.candidates) == 6
    found = learner.search(PARAMS, PICTURES)
    least = min(float(learner.objective(PARAMS, one, PICTURES)) for one in learner.candidates)
    assert float(learner.objective(PARAMS, found, PICTURES)) == least
    assert found["hidden"] == found["output"]


def record(seed):
    rng = np.random.default_rng(seed)
    names = {"EpsilonPlus": -1.0, "γ = 0.25": -2.0, "grid: γ": -3.0, "learned: γ": -4.0, "learned: αβ": -3.5}
    learned = {"conv": {"gamma": 0.5 + seed, "epsilon": 0.01}}
    return {
        "accuracy": {"trained": 0.9, "tuned": 0.8},
        "composites": {
            name: {
                "objective": value,
                "scores": {one: (rng.normal(size=4) + value).tolist() for one in report.DIRECTIONS},
            }
            for name, value in names.items()
        },
        "numbers": {
            "γ": {"learned": learned, "grid": learned, "objective": [1.0, 2.0]},
            "αβ": {"learned": learned, "grid": learned, "objective": [1.0]},
        },
    }


def test_the_report_chooses_by_the_objective_and_pairs_pictures():
    records = [record(0), record(1)]
    found = report.summary(records)
    assert found["chosen"] == {
        "preset, chosen": ["γ = 0.25"] * 2,
        "grid, chosen": ["grid: γ"] * 2,
        "learned, chosen": ["learned: γ"] * 2,
    }
    a, b = (
        np.mean([of["composites"][name]["scores"]["AUPC"] for of in records], axis=0)
        for name in ("learned: γ", "EpsilonPlus")
    )
    mean, half = found["differences"]["EpsilonPlus"]["AUPC"]
    np.testing.assert_allclose(mean, (b - a).mean(), rtol=1e-3)
    np.testing.assert_allclose(half, 3.182 * (b - a).std(ddof=1) / 2, rtol=1e-3)
    assert found["numbers"]["γ"]["conv"]["gamma"] == [0.5, 1.5]
    told = report.page({"latin": found}, 4, 2)
    assert "| γ | conv | gamma | 0.5, 1.5 |" in told and "αβ, network 1" in told and json.dumps(found)


def test_unknown_domains_are_named(tmp_path):
    with pytest.raises(InputError, match="expected domains among fashion, latin, got mars"):
        command.main(command.Options(domains=("mars",), out=tmp_path))
    with pytest.raises(InputError, match="expected one to 7 seeds, got 0"):
        command.main(command.Options(num_seeds=0, out=tmp_path))


@pytest.mark.slow
def test_a_run_leaves_its_tables(tmp_path, capsys):
    options = command.Options(
        domains=("latin",), families=("αβ",), num_seeds=1, num_pictures=2, num_steps=1, batch=1,
        num_training_steps=2, out=tmp_path, progress=False,
    )  # fmt: skip
    command.main(options)
    before = (tmp_path / "learned_composites.jsonl").read_bytes()
    command.main(options)
    assert (tmp_path / "learned_composites.jsonl").read_bytes() == before
    stored = json.loads((tmp_path / "learned_composites.json").read_text())
    of = stored["domains"]["latin"]
    assert len(of["scores"]) == 5 + 2 + 3 and set(of["numbers"]["αβ"]["hidden"]) == {"epsilon"}
    assert "| learned, chosen |" in capsys.readouterr().out
