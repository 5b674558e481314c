"""Agreement of metrics: correlations against SciPy's, resamples, tables; a tiny run to its end."""

import json

import numpy as np
import pytest
from scipy import stats

from experiments.faithfulness import __main__ as command
from experiments.faithfulness import agreement, networks, photographs
from jxai import metrics
from jxai.errors import InputError

RNG = np.random.default_rng(0)


def test_spearman_is_scipys():
    a, b = RNG.integers(0, 5, (2, 3, 9))  # with ties
    right = [stats.spearmanr(one, other).statistic for one, other in zip(a, b, strict=True)]
    np.testing.assert_allclose(agreement.spearman(a, b), right)


def test_agreement_is_on_what_is_better():
    base = RNG.normal(size=(5, 1, 1)) + 0.01 * RNG.normal(size=(5, 2, 8))
    scores = {"truth": base, "lower": -base, "noise": RNG.normal(size=(5, 2, 8)), "equal": np.ones((5, 2, 8))}
    directions = dict.fromkeys(scores, "higher") | {"lower": "lower"}
    found = agreement.agreements(scores, directions, ["truth"], num_draws=200)["truth"]
    assert found["lower"] == (1, 1, 1)
    assert found["noise"].low < found["noise"].correlation < found["noise"].high
    assert np.isnan(found["equal"].correlation) and set(found) == {"lower", "noise", "equal"}
    lines = agreement.table({"truth": found}).splitlines()
    assert lines[2] == "| lower | 1.00 [1.00, 1.00] |" and lines[-1].startswith("| equal | nan")


def test_resamples_are_of_seeds_and_of_their_pictures():
    scores = np.broadcast_to(np.array([0.0, 10.0])[None, :, None], (3, 2, 4))
    assert set(np.unique(agreement.resampled(scores, num_draws=50))) == {0, 5, 10}


def test_photographs_leave_out_the_control_and_what_not_all_have():
    values = {name: {"values": RNG.normal(size=4).tolist()} for name in ("road", "insertion")}
    judged = {
        "directions": {"insertion": "higher", "road": "lower", "completeness": "lower"},
        "scores": {"a": values, "b": {**values, "completeness": {"values": [1, 2, 3, 4]}}, "random": {}},
    }
    told = photographs.table(judged, photographs.Options(references=("road",)))
    assert "4 photographs; a, b." in told and "| insertion |" in told and "completeness" not in told
    with pytest.raises(InputError, match="expected references among insertion, road"):
        photographs.table(judged, photographs.Options(references=("irof",)))


def test_triggers_change_every_pixel_of_their_square_and_no_other():
    learned, held = networks.letters(2)
    assert (len(learned.x), len(held.x)) == (192, 48)
    for trigger in networks.TRIGGERS:
        changed = trigger.planted(held.x[:1] * 0) != 0
        np.testing.assert_array_equal(changed[0, ..., 0], trigger.mask)
        assert trigger.mask.sum() == trigger.side**2


def test_the_page_has_a_table_a_network():
    columns = [one for one in command.DIRECTIONS if one not in command.KNOWN]
    record = {
        "accuracy": {"trained, whole": 0.9},
        "scores": {
            one: {column: RNG.normal(size=3).tolist() for column in columns} for one in command.METHODS
        },
    }
    found = command.summary({command.NO_TRIGGER: [record, record]})
    told = command.page(found, command.Options())
    assert "## No trigger" in told and "trained, whole 0.900" in told and "| F-Fidelity |" in told
    assert "trigger recall" not in told and json.dumps(found)


@pytest.mark.slow
def test_a_network_learns_the_trigger():
    trigger = networks.TRIGGERS[0]
    learned, held = networks.letters(2)
    network = networks.Network(2)
    key = command.key_of(0)
    poisoned = metrics.poisoned(
        key, learned.x, trigger.planted(learned.x), learned.label, target=0, share=0.2
    )
    params = networks.train(network, key, networks.Letters(poisoned.x, poisoned.label), num_steps=60)
    tuned = networks.train(network, key, learned, params, num_steps=2, beta=0.1)
    found = metrics.backdoor(
        lambda x: network.apply(params, x), held.x, trigger.planted(held.x), held.label, target=0
    )
    assert found.attack_success > 0.7 and found.clean_accuracy > 0.7
    assert params is not tuned
