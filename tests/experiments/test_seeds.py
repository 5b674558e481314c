"""Guidance over seeds: what a table says of known answers, and a run of a few steps."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.seeds import __main__ as script
from experiments.seeds import tables, trainings, variants
from experiments.seeds.variants import HEADS, VARIANTS
from jxai import fewshot


def records_of(gains):
    """Trainings of six seeds in which guidance gains so many right answers of fifty in every episode of a head."""
    random, records = np.random.default_rng(0), {}
    for seed in range(6):
        for head, gain in gains.items():
            plain = random.integers(10, 40, size=(len(trainings.DOMAINS), 20))
            for variant, right in (("plain", plain), ("guided", plain + gain)):
                records[tables.key(head, variant, 1, seed)] = {
                    "right": dict(zip(trainings.DOMAINS, right.tolist(), strict=True)),
                    "processor": 1.0,
                }
    return records


def test_a_table_says_what_is_known():
    records = records_of({"graph": 1, "prototype": 0})
    del records[tables.key("graph", "guided", 1, 3)]
    graph, prototype, mean = tables.guidance_table(records, 1).splitlines()[2:]
    assert graph.startswith("| graph | 5 |") and graph.count("**+2.0 [+2.0, +2.0]**") == 7
    assert prototype.startswith("| prototype | 6 |") and prototype.count("| +0.0 [+0.0, +0.0]") == 7
    assert mean.startswith("| mean of the 1 with most seeds | 6 |")
    assert "23 trainings" in script.told(records, ())


@pytest.mark.parametrize("head", HEADS)
def test_variants_are_named_and_weighed(head):
    plain, guided, scaled = (VARIANTS[name] for name in ("plain", "guided", "scaled"))
    for shot in (1, 5):
        assert plain.weights(plain.of(head), shot)[1] == 0 and not plain.guided and guided.guided
        xi, weight = guided.weights(guided.of(head), shot)
        assert scaled.weights(scaled.of(head), shot) == (xi + weight, 0)
    assert all(isinstance(one.of(head), fewshot.Head) for one in VARIANTS.values() if head in one.only)


def test_the_guided_loss_rises_and_falls():
    assert [VARIANTS["warm-up"].share(done) for done in (0, 0.25, 0.5, 0.9)] == [0, 0.5, 1, 1]
    assert [VARIANTS["cool-down"].share(done) for done in (0, 0.5, 0.75, 1)] == [1, 1, 0.5, 0]
    assert VARIANTS["guided"].share(0) == VARIANTS["guided"].share(0.9) == 1


def test_weights_per_query_have_the_largest_relevance_of_each_query():
    relevance = np.random.default_rng(0).normal(size=(3, 2, 4, 5))
    relevance[1] = 0
    found = variants.weights_per_query(jnp.asarray(relevance), strength=0.5)
    for ours, of in zip(found, relevance, strict=True):
        np.testing.assert_allclose(ours, 1 + 0.5 * of / (abs(of).max() or 1), rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["prototype", "matching"])
def test_weights_on_maps_change_no_score_by_themselves(name):
    random = np.random.default_rng(0)
    support, query = (jnp.asarray(random.random((5, 4, 4, 8)), jnp.float32) for _ in range(2))
    episode = fewshot.Episode(support, jnp.arange(5), query, jnp.arange(5), way=5)
    head, other = (VARIANTS[one].of(name) for one in ("plain", "on-maps"))
    given: Any = other.apply({}, episode, True, method="forward")
    expected: Any = head.apply({}, episode, True)
    explained, scores = given
    np.testing.assert_allclose(scores, expected, rtol=1e-4, atol=1e-4)
    found = other.explain({}, explained, scores)
    assert found.weights.shape == found.relevance.shape == query.shape
    np.testing.assert_allclose(abs(found.weights - 1).max(axis=-1), 1, rtol=1e-5)


@pytest.mark.slow
def test_a_run_goes_on_and_leaves_its_table(tmp_path, capsys):
    options: dict[str, Any] = {
        "num_steps": 2,
        "encoder_steps": 1,
        "episodes": 6,
        "out": tmp_path,
        "progress": False,
    }
    options |= {"heads": ("prototype",), "shots": (1,), "finding": (), "num_seeds": 1}
    script.main(script.Options(**options))
    before = (tmp_path / "seeds.jsonl").read_bytes()
    script.main(script.Options(proposed=("half",), **options))
    assert (tmp_path / "seeds.jsonl").read_bytes().startswith(before)
    text = (tmp_path / "table.md").read_text()
    assert text == capsys.readouterr().out[-len(text) - 1 : -1]
    assert "| prototype | 1 |" in text and "3 trainings" in text and "1-shot, strength ½" in text


@pytest.mark.slow
def test_a_step_is_one_on_the_guided_loss():
    """The loss whose weights are traced, against the one whose weights are known."""
    head, random = VARIANTS["guided"].of("prototype"), np.random.default_rng(0)
    variables = fewshot.init_variables(trainings.ENCODER, head, jax.random.key(0), image_size=trainings.SIDE)
    images = jnp.asarray(random.normal(size=(30, trainings.SIDE, trainings.SIDE, 3)), jnp.float32)
    rows = np.arange(5), np.arange(5, 30)

    @jax.jit
    def both(weights, strength):
        how = {"guided": True, "through": None}
        ours, _ = trainings.loss(
            head, 1, variables, rows, (images, jnp.zeros(30, int)), weights, strength, **how
        )
        labels = jnp.arange(5)
        episode = fewshot.Episode(images[:5], labels, images[5:], jnp.repeat(labels, 5), way=5)
        guidance = fewshot.Guidance(0.7, 0.3, strength=0.5)
        expected, _ = fewshot.guided_loss(trainings.ENCODER, head, variables, episode, guidance=guidance)
        return ours, expected

    np.testing.assert_allclose(*both((0.7, 0.3), 0.5), rtol=1e-5)


def test_unknown_variants_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"expected variants among plain, .*, got magic"):
        script.main(script.Options(proposed=("magic",), out=tmp_path))
