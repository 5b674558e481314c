"""Hostile configurations and command lines; and that nothing here can run what it reads."""

import ast
import contextlib
import dataclasses
import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
import tyro
from hypothesis import strategies as st
from strategies import EFFORTS, in_each_run

from configs import Config, configs, from_json

ROOT = Path(__file__).resolve().parents[2]
ROW = json.loads(json.dumps(dataclasses.asdict(configs()["letters-quick/relation-guided"])))
# Of few letters: all of Unicode takes Hypothesis seconds to look up.
TEXT = st.text("a-=.\0é☃", max_size=5)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=4,
)


def test_whole_configurations_are_read():
    assert all(
        from_json(Config, json.loads(json.dumps(dataclasses.asdict(c)))) == c for c in configs().values()
    )


@EFFORTS
def test_hostile_configurations(examples):
    @in_each_run(
        10 * examples,
        value=VALUES,
        fields=st.lists(st.sampled_from([*ROW, "other"]), min_size=1, max_size=2),
        whole=st.booleans(),
    )
    def search(value, fields, whole):
        given = value if whole else {**ROW, **dict.fromkeys(fields, value)}
        try:
            assert isinstance(from_json(Config, given), Config)
        except ValueError as error:
            assert str(error).startswith("expected ") and ", got " in str(error), error


@EFFORTS
def test_hostile_command_lines(examples):
    words = st.sampled_from(
        ["--way", "--seed", "-1", "nan", "--optimizer.name", "adam", "x", "--sources", "--no", ""]
    )

    @in_each_run(examples, words=st.lists(words | TEXT, min_size=1, max_size=4))
    def search(words):
        with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
            try:
                assert isinstance(tyro.cli(Config, args=words), Config)
            except SystemExit as ended:
                assert ended.code in (0, 2)


# What runs what it reads, or may.
RUNS = {
    "eval",
    "exec",
    "compile",
    "pickle.load",
    "pickle.loads",
    "marshal.loads",
    "shelve.open",
    "yaml.load",
    "torch.load",
}
RUNS |= {
    "jax.experimental.serialize_executable",
    "joblib.load",
    "dill.load",
    "dill.loads",
    "cloudpickle.loads",
}


@pytest.mark.parametrize("folder", ["jxai", "experiments"])
def test_nothing_that_is_read_can_run_code(folder):
    for path in sorted((ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                pickles = {alias.name for alias in node.names} & {"pickle", "marshal", "shelve", "dill"}
                assert not pickles or path.name == "torch_file.py", path
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                assert called not in RUNS, f"{called} in {path}:{node.lineno}"
                if called in ("np.load", "numpy.load", "jnp.load"):
                    allowed = {word.arg: ast.unparse(word.value) for word in node.keywords}
                    # Without the argument NumPy refuses pickles too; said aloud it stays so.
                    assert allowed.get("allow_pickle") == "False", f"{path}:{node.lineno}"


def test_a_clear_line_and_status_2_for_a_hostile_option(tmp_path):
    command = [
        sys.executable,
        ROOT / "experiments/train.py",
        "letters/relation",
        "--folder",
        tmp_path / "a\nb",
    ]
    done = subprocess.run(
        [*command, "--config.way", "0"], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 2 and "Traceback" not in done.stderr
