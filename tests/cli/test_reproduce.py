import dataclasses
import functools
import json

import jax
import numpy as np
import pytest

from jxai import fewshot, training
from jxai.cli.fewshot import system
from jxai.cli.fewshot.configs import HEADS, TABLES, Table, configs
from jxai.cli.fewshot.configs.systems import plain_and_guided
from jxai.cli.fewshot.evaluate import config_of, evaluate, setting, transduction
from jxai.cli.fewshot.reproduce import Options, jobs, reproduce
from jxai.cli.fewshot.tables import Scores, accuracy_table


@pytest.fixture
def table(tiny):
    systems = plain_and_guided("relation", tiny)
    return Table(
        "tiny",
        systems,
        targets=("hebrew", "pictograms"),
        pairs={"relation-guided": "relation"},
        published={"relation": {1: {"hebrew": "50.00 ± 1.00"}}},
        transductive=dict.fromkeys(systems, 2000),
        episodes=6,
        note="A note.",
    )


@pytest.fixture
def options(tmp_path):
    return Options(
        table="tiny",
        seeds=(1,),
        shots=(1,),
        runs=tmp_path / "runs",
        results=tmp_path / "results",
        progress=False,
    )


@pytest.mark.slow  # the quickstart's test trains and evaluates as well
def test_reproduce_trains_evaluates_draws_and_never_twice(table, options, monkeypatch):
    text = reproduce(table, options)
    folder = options.results / "tiny"
    assert {path.stem for path in folder.glob("*.json")} == {"1shot-relation-1", "1shot-relation-guided-1"}
    # One of two settings is a part of the table.
    assert (folder / "part-curves-1shot.png").stat().st_size > 10_000
    assert (folder / "part.md").read_text() == text + "\n"
    lines = text.splitlines()
    assert lines[0] == "| 1-shot | hebrew | pictograms (1) |"
    assert [line.split(" |")[0] for line in lines[2:6]] == [
        "| relation",
        "| *published*",
        "| relation-guided",
        "| *− relation*",
    ]
    assert "| 50.00 ± 1.00 |  |" in lines[3]
    assert "| 1-shot, transductive | hebrew | pictograms (1) |" in lines
    assert lines[-1] == "A note."
    result = json.loads((folder / "1shot-relation-guided-1.json").read_text())
    assert result["config"]["seed"] == 1
    for kind in ("inductive", "transductive"):
        assert {entry["of"] for entry in result[kind].values()} == {75, 20}
    monkeypatch.setattr("jxai.cli.fewshot.reproduce.train", lambda run: pytest.fail("trained again"))
    assert reproduce(table, options) == text
    other = {name: dataclasses.replace(config, steps=9) for name, config in table.systems.items()}
    with pytest.raises(ValueError, match="expected the result of this configuration"):
        reproduce(dataclasses.replace(table, systems=other), options)
    # More episodes are another evaluation of a run that is trained already.
    monkeypatch.undo()
    more = reproduce(table, dataclasses.replace(options, episodes=7, systems=("relation-guided",)))
    assert more.splitlines()[2] != text.splitlines()[4]
    # Evaluation of a run's folder is a function of the folder.
    (job, *_) = jobs(table, dataclasses.replace(options, systems=("relation-guided",)))
    run = job.folder(options)
    again = evaluate(run, episodes={"inductive": 6}, domains=("hebrew",), progress=False)["inductive"]
    assert again["hebrew"].correct.tolist() == result["inductive"]["hebrew"]["correct"]
    assert config_of(run).guidance.guided_weight is None
    assert training.read_config(run / "episodes")["seed"] == 1


def test_a_target_that_is_left_out_has_runs_of_its_own(table, options):
    config = dataclasses.replace(table.systems["relation"], sources=("latin", "hebrew", "thai"))
    one_out = dataclasses.replace(
        table, systems={"relation": config}, targets=("hebrew", "thai"), leave_out=True
    )
    found = list(jobs(one_out, dataclasses.replace(options, seeds=(0, 1))))
    assert [job.name for job in found] == [
        f"1shot-relation-{seed}-without-{target}" for seed in (0, 1) for target in ("hebrew", "thai")
    ]
    assert [job.config.sources for job in found[:2]] == [("latin", "thai"), ("latin", "hebrew")]
    assert [job.targets for job in found[:2]] == [("hebrew",), ("thai",)]
    assert found[2].config.seed == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"systems": ("nothing",)}, "expected systems among relation, relation-guided, got nothing"),
        ({"targets": ("thai",)}, "expected targets among hebrew, pictograms, got thai"),
        ({"shots": (2,)}, "expected shots among 1, 5, got 2"),
    ],
)
def test_unknown_choices_are_named(table, options, changes, message):
    with pytest.raises(ValueError, match=message):
        reproduce(table, dataclasses.replace(options, **changes))


def test_every_table_is_complete():
    names = set(configs())
    for name, build in TABLES.items():
        table = build()
        assert table.title and build.__doc__
        assert {f"{name}/{system}" for system in table.systems} <= names
        assert set(table.pairs) | set(table.pairs.values()) <= set(table.systems)
        assert set(table.published) <= set(table.systems)
        # A guided row differs from its plain one in the guidance alone.
        for guided, plain in table.pairs.items():
            if guided == f"{plain}-guided":
                same = dataclasses.replace(table.systems[guided], guidance=table.systems[plain].guidance)
                assert same == table.systems[plain]
        assert not table.leave_out or all(
            set(table.targets) < set(config.sources) for config in table.systems.values()
        )


def test_every_row_can_be_built():
    fields = ("encoder", "width", "image_size", "head", "head_width", "way")
    distinct = {tuple(getattr(config, name) for name in fields): config for config in configs().values()}
    for config in distinct.values():
        encoder, head = system.build(config, num_classes=64)
        variables = jax.eval_shape(
            functools.partial(fewshot.init_variables, encoder, head, image_size=config.image_size),
            jax.random.key(0),
        )
        assert variables["params"]["encoder"]
        # ProtoNet and MatchingNet have none.
        assert bool(variables["params"]["head"]) == (config.head not in ("prototype", "matching"))


@pytest.mark.parametrize(
    ("domain", "shot", "head", "expected"),
    [
        ("hebrew", 1, "relation", (1, 15)),
        ("hebrew", 5, "relation", (5, 15)),
        ("pictograms", 1, "relation", (1, 4)),
        ("pictograms", 5, "relation", (4, 1)),
        ("hebrew", 3, "relation", (3, 15)),
        ("/a/folder", 5, "relation", (5, 15)),
        ("CUB", 5, "cross-attention", (5, 16)),
        ("hebrew", 5, "cross-attention", (5, 15)),
    ],
)
def test_settings_of_domains_and_heads(tiny, domain, shot, head, expected):
    assert setting(domain, dataclasses.replace(tiny, shot=shot, head=head)) == expected


@pytest.mark.parametrize(
    ("name", "split"), [("hebrew", "all"), ("latin", "novel"), ("CUB", "novel"), ("miniImageNet", "novel")]
)
def test_which_classes_a_domain_is_judged_by(tiny, monkeypatch, name, split):
    monkeypatch.setattr(system.data, "load", lambda name, **options: (name, options["split"]))
    assert system.load_for_evaluation(tiny, name) == (name, split)


def test_transduction_is_the_releases_share_of_the_queries(tiny):
    assert transduction(tiny, 75).counts == (35, 70)
    assert transduction(tiny, 5).counts == (2, 5)
    assert not transduction(tiny, 75).restart
    assert transduction(dataclasses.replace(tiny, head="cross-attention"), 75).restart
    ranked = {head: transduction(dataclasses.replace(tiny, head=head), 75).confidence for head in HEADS}
    assert [head for head, by in ranked.items() if by == "probability"] == ["prototype", "matching", "feat"]


def test_table_of_known_scores():
    def scores(*correct):
        return {"hebrew": Scores(shot=1, queries=2, of=10, correct=np.array(correct))}

    pairs = {"guided": "plain"}
    table = accuracy_table(
        "1-shot",
        {"plain": {0: scores(5, 7)}, "guided": {0: scores(6, 9)}},
        targets=("hebrew",),
        pairs=pairs,
    )
    # Percent 50, 70 and 60, 90; their differences 10, 20; half widths 12.706·s/√2 with s = 14.142, 21.213, 7.071.
    assert table.splitlines()[2:] == [
        "| plain | 60.00 ± 127.06 |",
        "| guided | 75.00 ± 190.59 |",
        "| *− plain* | +15.00 ± 63.53 |",
    ]
    seeds = accuracy_table(
        "1-shot",
        {"plain": {0: scores(5, 7), 1: scores(5, 7)}, "guided": {0: scores(6, 9), 1: scores(5, 7)}},
        targets=("hebrew", "thai"),
        pairs=pairs,
    )
    assert seeds.splitlines()[-1] == "| *− plain* | +7.50 ± 31.77 (+15.0, +0.0) |  |"


def test_scores_survive_json():
    scores = Scores(shot=1, queries=4, of=20, correct=np.array([3, 20]))
    again = Scores.from_json(json.loads(json.dumps(scores.to_json())))
    assert again.percent.tolist() == [15, 100]


def test_a_folder_without_a_run_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"expected the folder of a run with config\.json"):
        evaluate(tmp_path, episodes={"inductive": 6})
