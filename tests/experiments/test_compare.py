import dataclasses
import json

import numpy as np
import pytest

from compare import Options, compare
from evaluate import config_of, evaluate, setting
from jxai import training
from tables import Scores, comparison_table


@pytest.fixture
def options(tmp_path):
    return Options(
        seeds=(1,),
        shots=(1,),
        episodes=6,
        domains=("hebrew", "pictograms"),
        runs=tmp_path / "runs",
        results=tmp_path / "results",
        progress=False,
    )


@pytest.mark.slow  # the quickstart's test trains and compares as well
def test_compare_trains_evaluates_draws_and_never_twice(tiny, options, monkeypatch):
    table = compare(tiny, options)
    names = {"1shot-plain-1", "1shot-guided-1"}
    assert {path.stem for path in options.results.glob("*.json")} == names
    assert (options.results / "table-curves.png").stat().st_size > 10_000
    assert (options.results / "table.md").read_text() == table + "\n"
    assert len(table.splitlines()) == 2 + 2 + 2
    result = json.loads((options.results / "1shot-guided-1.json").read_text())
    assert result["config"]["seed"] == 1
    assert {entry["of"] for entry in result["domains"].values()} == {75, 20}
    monkeypatch.setattr("compare.train", lambda run: pytest.fail("trained again"))
    assert compare(tiny, options) == table
    with pytest.raises(ValueError, match="expected the result of this configuration, with 7 episodes"):
        compare(tiny, dataclasses.replace(options, episodes=7))
    with pytest.raises(ValueError, match="expected the result of this configuration"):
        compare(dataclasses.replace(tiny, steps=9), options)
    # Evaluation of a run's folder is a function of the folder.
    folder = options.runs / "1shot-guided-1"
    again = evaluate(folder, episodes=6, domains=("hebrew",), progress=False)
    assert again["hebrew"].correct.tolist() == result["domains"]["hebrew"]["correct"]
    assert config_of(folder).guidance.guided_weight is None
    assert training.read_config(folder / "episodes")["seed"] == 1


def test_unknown_system_is_named(tiny, options):
    with pytest.raises(ValueError, match=r"expected systems among plain, guided, .* got nothing"):
        compare(tiny, dataclasses.replace(options, systems=("plain", "nothing")))


def test_settings_of_small_domains():
    assert setting("hebrew", 1) == (1, 15)
    assert setting("hebrew", 5) == (5, 15)
    assert setting("pictograms", 1) == (1, 4)
    assert setting("pictograms", 5) == (4, 1)
    assert setting("hebrew", 3) == (3, 15)
    assert setting("/a/folder", 5) == (5, 15)


def test_table_of_known_scores():
    def scores(*correct):
        return {"hebrew": Scores(shot=1, queries=2, of=10, correct=np.array(correct))}

    table = comparison_table({"1-shot": {"plain": [scores(5, 7)], "guided": [scores(6, 9)]}})
    # Percent 50, 70 and 60, 90; their differences 10, 20; half widths 1.96·s/√2 with s = 14.142, 21.213, 7.071.
    assert table.splitlines()[-1] == "| hebrew | 60.00 ± 19.60 | 75.00 ± 29.40 | +15.00 ± 9.80 |"
    seeds = comparison_table(
        {"1-shot": {"plain": [scores(5, 7)] * 2, "guided": [scores(6, 9), scores(5, 7)]}}
    )
    assert seeds.splitlines()[-1].endswith("+7.50 ± 4.90 (+15.0, +0.0) |")


def test_scores_survive_json():
    scores = Scores(shot=1, queries=4, of=20, correct=np.array([3, 20]))
    again = Scores.from_json(json.loads(json.dumps(scores.to_json())))
    assert again.percent.tolist() == [15, 100]


def test_a_folder_without_a_run_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"expected the folder of a run with config\.json"):
        evaluate(tmp_path)
