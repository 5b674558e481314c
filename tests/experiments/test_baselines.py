"""SimpleShot, probes, fine-tuning, FEAT and ProtoNet, in a few steps."""

import dataclasses
import json

import numpy as np
import pytest

from experiments.baselines import __main__ as script
from experiments.baselines import trainings
from jxai import fewshot
from jxai.cli.fewshot.tables import Scores


@pytest.mark.slow
def test_a_run_goes_on_and_leaves_its_tables(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(script, "HEADS", {"FEAT": fewshot.FEATHead(temperature=4.0)})
    options = script.Options(
        methods=("SimpleShot-CL2N", "FEAT"),
        shots=(1,),
        domains=("hebrew", "pictograms"),
        num_seeds=1,
        width=4,
        pretraining_steps=1,
        steps=1,
        episodes=4,
        out=tmp_path,
        progress=False,
    )
    script.main(options)
    before = (tmp_path / "baselines.jsonl").read_bytes()
    monkeypatch.setattr(trainings, "trained", lambda *args, **given: pytest.fail("trained again"))
    script.main(
        dataclasses.replace(options, methods=("SimpleShot-CL2N", "linear-probe", "fine-tuned", "FEAT"))
    )
    assert (tmp_path / "baselines.jsonl").read_bytes().startswith(before)
    told = (tmp_path / "table.md").read_text()
    assert told in capsys.readouterr().out and "| *− FEAT* |" in told and "nan" not in told
    stored = json.loads((tmp_path / "baselines.json").read_text())["summary"]["1-shot"]
    assert set(stored) == {"SimpleShot-CL2N", "linear-probe", "fine-tuned", "FEAT"}
    for of in stored.values():
        np.testing.assert_allclose(of["guided"][0] - of["plain"][0], of["difference"][0])
        assert 0 < of["plain"][0] < 100 and of["over_seeds"][1] is None


def test_intervals_over_episodes_and_over_seeds():
    def scores(*correct):
        return script.with_mean({"a": Scores(1, 1, of=10, correct=np.array(correct))})

    rows = {
        "X": {0: scores(5, 6, 7), 1: scores(5, 5, 5)},
        "X-guided": {0: scores(6, 6, 9), 1: scores(5, 5, 5)},
        "Y": {0: scores(1, 2, 3)},
    }
    of = script.summary(rows)["X"]
    # Seed 0 gains 10, 0 and 20 points, seed 1 nothing.
    np.testing.assert_allclose(of["by_seed"], [10, 0])
    np.testing.assert_allclose(of["difference"], fewshot.mean_and_interval([5, 0, 10]))
    np.testing.assert_allclose(of["over_seeds"], fewshot.mean_and_interval([10, 0]))
    assert set(script.summary(rows)) == {"X"}


def test_a_mean_is_that_of_each_domain_s_share_of_right_answers():
    found = script.with_mean(
        {
            "a": Scores(1, 15, of=75, correct=np.array([75, 0])),
            "b": Scores(4, 1, of=5, correct=np.array([0, 5])),
        }
    )
    assert list(found) == ["mean", "a", "b"]
    np.testing.assert_allclose(found["mean"].percent, [50, 50])


def test_unknown_methods_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"expected methods among SimpleShot-UN, .*, FEAT, got magic"):
        script.main(script.Options(methods=("magic",), out=tmp_path))
