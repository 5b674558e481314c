"""Seeds trained together: the runs, results and tables that they give alone."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from jxai import training
from jxai.cli.fewshot.configs import Table
from jxai.cli.fewshot.configs.systems import plain_and_guided
from jxai.cli.fewshot.fitting import Run
from jxai.cli.fewshot.reproduce import Options, jobs, reproduce
from jxai.cli.fewshot.train import train_together
from jxai.cli.running.hosts import Hosts
from jxai.training import integrity


@pytest.fixture
def table(tiny):
    return Table("tiny", plain_and_guided("relation", tiny), targets=("hebrew",), episodes=6, shots=(1,))


@pytest.fixture
def options(tmp_path):
    return Options(
        table="tiny",
        systems=("relation-guided",),
        seeds=(0, 1, 2),
        together=True,
        runs=tmp_path / "runs",
        results=tmp_path / "results",
        progress=False,
    )


def arrays(folder):
    variables = training.load_variables(folder, which="latest")
    return {
        f"{kind}/{path}": leaf
        for kind, tree in variables.items()
        for path, leaf in integrity.named(tree).items()
    }


@pytest.mark.slow
def test_together_is_what_each_is_alone_and_tables_mix(table, options, tmp_path, monkeypatch):
    # To the bit on one device: a program for several is another one, whose sums may be fused otherwise.
    device = jax.local_devices()[:1]
    monkeypatch.setattr(jax, "local_devices", lambda *arguments, **options: device)
    # Two ways to the same three runs: one of them alone and the others together, or all together.
    mixed = dataclasses.replace(options, runs=tmp_path / "mixed", results=tmp_path / "mixed-results")
    reproduce(table, dataclasses.replace(mixed, seeds=(1,), together=False))
    text, again = reproduce(table, options), reproduce(table, mixed)
    assert again == text
    for job in jobs(table, options):
        one, other = (json.loads(job.result(way).read_text()) for way in (options, mixed))
        assert one.keys() == other.keys()
        for field in ("config", "inductive", "validation", "curve"):
            assert one[field] == other[field]
        folders = job.folder(options) / "episodes", job.folder(mixed) / "episodes"
        found, expected = map(arrays, folders)
        assert found.keys() == expected.keys()
        for name in found:
            np.testing.assert_array_equal(found[name], expected[name], err_msg=name)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seeds": (1, 2, 1)}, "expected different seeds, got 1 more than once"),
        ({"seeds": (1, 1), "together": False}, "expected different seeds, got 1 more than once"),
        ({"seeds": ()}, "expected seeds of at least 0, got none"),
        ({"seeds": (0,)}, "expected seeds of at least 0, got none"),
        ({"seeds": (-1, 2)}, r"expected seeds of at least 0, got \(-1, 2\)"),
        ({"at_once": 0}, "expected --at-once of at least 1, got 0"),
        ({"at_once": 2, "together": False}, "expected --at-once with --together"),
        ({"hosts": Hosts(distributed=True)}, "expected --together in a single process, got --distributed"),
        ({"hosts": Hosts(coordinator="a:1")}, "expected --together in a single process, got --coordinator"),
    ],
)
def test_options_that_do_not_go_together_are_named(table, options, changes, message):
    with pytest.raises(ValueError, match=message):
        list(jobs(table, dataclasses.replace(options, **changes)))


def test_one_number_is_how_many_seeds(table, options):
    found = jobs(table, dataclasses.replace(options, seeds=(3,)))
    assert [job.config.seed for job in found] == [0, 1, 2]


@pytest.mark.parametrize("change", [{"seed": 0}, {"steps": 9}])
def test_runs_that_differ_in_more_than_the_seed(table, options, change):
    config = table.systems["relation"]
    runs = [Run(config, options.runs / "a"), Run(dataclasses.replace(config, **change), options.runs / "b")]
    with pytest.raises(ValueError, match="expected configurations that differ in their seeds alone"):
        train_together(runs)
