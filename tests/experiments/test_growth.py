import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.benchmarks import growth
from experiments.benchmarks.growth import (
    CURVES,
    MEMORY,
    TIME,
    WORK,
    Options,
    draw,
    exponent,
    main,
    measured,
    results,
    table,
)
from experiments.benchmarks.networks import Network
from jxai import lrp


class Small(nn.Module):
    @nn.compact
    def __call__(self, x, train):
        x = nn.relu(nn.Conv(4, (3, 3), use_bias=False)(x))
        return nn.Dense(5, use_bias=False)(x.mean(axis=(1, 2)))


@pytest.fixture
def small(monkeypatch):
    def network(side):
        model = Small()
        return Network(
            "small", model, model.init(jax.random.key(0), jnp.zeros((1, side, side, 3)), train=False)
        )

    monkeypatch.setattr(growth, "resnet18", network)
    return network(8)


def options(**changes):
    return Options(**{"side": 8, "images": 1, "in_flight": 8, "num_steps": 2, "repeats": 1, **changes})


def test_the_exponent_of_a_curves_end():
    assert exponent([1, 2, 4], [9, 3, 12]) == pytest.approx(2)
    assert exponent([3, 6], [5, 5]) == 0
    assert exponent([2, 8], [4, 2]) == pytest.approx(-0.5)
    assert exponent([2], [4]) == 0


def test_every_factor_has_its_curves_and_every_head_its_three():
    assert {curve.factor for curve in CURVES} == set(growth.AXES)
    assert len({(curve.factor, curve.subject) for curve in CURVES}) == len(CURVES)
    for head in growth.HEADS:
        assert [c.factor for c in CURVES if c.subject == head] == ["way", "shot", "queries"]


def test_relevance_of_classes_is_that_of_each(small):
    f, x = (
        small.scores(small.variables),
        np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype(np.float32),
    )
    found = jax.jit(lambda x: growth._of_classes(f, x, jnp.zeros(2, int), count=3))(x)
    one = jax.jit(lambda x, target: lrp.relevance(f, x, target, composite=lrp.EpsilonPlus()))
    for number, relevance in enumerate(found):
        np.testing.assert_allclose(relevance, one(x, np.full(2, number)), rtol=1e-5, atol=1e-7)


def test_roots_take_time_and_no_memory(small):
    found = measured(options(factors=("roots",), roots=(16, 32)))
    held = [found["SmoothTaylor, roots", count][MEMORY] for count in (16, 32)]
    assert held[1] < 1.01 * held[0]
    assert all(costs[TIME] > 0 for costs in found.values())


def test_devices_share_the_work(small):
    """Eight rows on 1, 2 and 4 devices; the tests' process sees eight devices and needs no other."""
    given = options(factors=("devices",), devices=(1, 2, 4))
    found = measured(given)
    curve = next(curve for curve in CURVES if curve.factor == "devices")
    work = growth.line(found, curve, WORK, given)
    np.testing.assert_allclose(work, [work[0], work[0] / 2, work[0] / 4], rtol=0.05)
    held = growth.line(found, curve, MEMORY, given)
    assert held[0] > held[1] > held[2]


def known(given):
    """Costs that grow as expected."""
    return {
        (curve.name, value): {quantity: 3 * value**power for quantity, power in curve.expected.items()}
        for curve in growth.chosen(given)
        for value in given.points(curve.factor)
    }


def test_table_report_and_picture_of_known_costs(tmp_path):
    given = options(factors=("way", "devices"), ways=(4, 2))
    costs = known(given)
    rows = table(costs, given).splitlines()
    assert rows[2] == "| ways 2, 4 | RelationNet | seconds | 12, 48 | 2.00 | 2 |"
    assert rows[-1] == "| devices 1, 2, 4, 8 | SmoothTaylor | MB | 3, 1.5, 0.75, 0.375 | -1.00 | -1 |"
    lines = {one["name"]: one for one in results(costs, given)}
    assert lines["graph network, ways: exponent of seconds, expected 2"]["value"] == pytest.approx(2)
    assert lines["SmoothTaylor, devices: exponent of GFLOP of a device, expected -1"][
        "value"
    ] == pytest.approx(-1)
    assert lines["RelationNet, ways 4: MB"]["value"] == 48
    assert len(lines) == len(results(costs, given))  # no two of one name
    assert draw(costs, given, tmp_path / "growth.png").stat().st_size > 5000


def test_an_unknown_factor_is_named():
    with pytest.raises(ValueError, match=r"expected factors among roots, .*, got colors"):
        main(options(factors=("roots", "colors")))


@pytest.mark.slow
def test_devices_are_simulated_where_there_are_too_few(monkeypatch):
    monkeypatch.setattr(jax, "device_count", lambda: 1)  # the process that is started has its own
    given = options(factors=("devices",), devices=(1, 2), side=32)
    found = measured(given)
    work = [found["SmoothTaylor, devices", count][WORK] for count in (1, 2)]
    assert work[1] == pytest.approx(work[0] / 2, rel=0.1)
