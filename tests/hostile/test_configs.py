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

from jxai.cli.fewshot.configs import Config, configs, from_json

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


# What runs what it reads, or may: modules with all that is in them, functions, and methods of Python's own.
RUNS = {
    *("pickle", "_pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib", "jsonpickle"),
    *("runpy", "imp", "zipimport", "code", "codeop", "importlib.machinery"),
    *("eval", "exec", "compile", "__import__", "importlib.util.spec_from_file_location"),
    *("yaml.load", "yaml.load_all", "yaml.full_load", "yaml.full_load_all", "yaml.unsafe_load"),
    *("torch.load", "torch.jit.load", "torch.package", "pandas.read_pickle"),
    *("jax.export.deserialize", "jax.experimental.serialize_executable"),
}
# Without `allow_pickle` NumPy refuses pickles too; said aloud it stays so.
LOADS = {"numpy.load", "jax.numpy.load", "numpy.lib.npyio.load", "allow_pickle"}
# Worker processes hear from the process that started them alone, and it from them; nothing of that is a file.
ALLOWED = {
    ("workers.py", f"pickle{name}") for name in ("", ".load", ".loads", ".dump", ".dumps", ".UnpicklingError")
}
ALLOWED |= {("workers.py", f"cloudpickle{name}") for name in ("", ".dumps")}
# A model of one's own is a person's own code, which the person names on the command line; no file names it.
ALLOWED |= {("own_model.py", f"importlib.util{name}") for name in ("", ".spec_from_file_location")}


def imported(tree):
    """(node, name in the program, what it stands for) of every import."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                top = alias.name.split(".")[0]
                yield node, alias.asname or top, alias.name if alias.asname else top
                yield node, "", alias.name
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                yield node, alias.asname or alias.name, f"{node.module}.{alias.name}"


def harmful(source):
    """What a program mentions, by its own names or others, that may run what it reads.

    A mention is enough: a function that is renamed or handed on is called where nobody looks.
    """
    tree = ast.parse(source)
    names = {name: full for _, name, full in imported(tree)}

    def full(node):
        if isinstance(node, ast.Name):
            return names.get(node.id, node.id)
        return f"{full(node.value)}.{node.attr}" if isinstance(node, ast.Attribute) else ""

    mentions = {(node.lineno, name) for node, _, name in imported(tree)}
    safe = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name | ast.Attribute) and node not in safe:
            mentions.add((node.lineno, full(node)))
        if isinstance(node, ast.Call):
            pickles = [ast.unparse(word.value) for word in node.keywords if word.arg == "allow_pickle"]
            if pickles == ["False"]:
                safe.add(node.func)  # is walked later than the call
            elif pickles:
                mentions.add((node.lineno, "allow_pickle"))
            if full(node.func) == "importlib.import_module" and isinstance(node.args[0], ast.Constant):
                mentions.add((node.lineno, node.args[0].value))
    plain = {(line, name.removeprefix("builtins.")) for line, name in mentions}
    return sorted(
        (line, name)
        for line, name in plain
        if name in LOADS or any(name == one or name.startswith(f"{one}.") for one in RUNS)
    )


@pytest.mark.parametrize("folder", ["jxai", "experiments"])
def test_nothing_that_is_read_can_run_code(folder):
    paths = sorted((ROOT / folder).rglob("*.py"))
    assert paths
    for path in paths:
        found = harmful(path.read_text(encoding="utf-8"))
        assert not [(path, *one) for one in found if (path.name, one[1]) not in ALLOWED]


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "import pickle as p\np.loads(b'')",
        "from pickle import loads",
        "from pickle import Unpickler as U",
        "import marshal, os",
        "from joblib import load",
        "import numpy as np\nnp.load('x.npy')",
        "import numpy as np\nnp.load('x.npy', allow_pickle=True)",
        "import numpy as np\nnp.load('x.npy', **options)",
        "import numpy as np\nread = np.load\nread('x.npy')",
        "import numpy as np\nlist(map(np.load, names))",
        "from numpy import load as read\nread('x.npy')",
        "from jax import numpy as jnp\njnp.load('x.npy')",
        "import jax.numpy\njax.numpy.load('x.npy')",
        "import numpy as np\nnp.lib.format.read_array(file, allow_pickle=yes)",
        "import torch\ntorch.load('x', weights_only=False)",
        "from yaml import load",
        "eval(text)",
        "import builtins\nbuiltins.exec(text)",
        "import importlib\nimportlib.import_module('dill')",
        "from importlib import import_module as i\ni('shelve')",
        "from jax.experimental import serialize_executable",
        "def f():\n    from cloudpickle import load",
    ],
)
def test_what_runs_code_is_seen_under_any_name(source):
    assert harmful(source)


@pytest.mark.parametrize(
    "source",
    [
        "import numpy as np\nnp.load('x.npy', allow_pickle=False)",
        "from numpy import lib\nlib.load",
        "import re\nre.compile('x')\nmodel.eval()\njax.jit(f).lower(1).compile()",
        "import pickletools",
        "import json\njson.load(file)",
        "import importlib.resources",
    ],
)
def test_what_runs_none_is_left_alone(source):
    assert not harmful(source)


def test_a_clear_line_and_status_2_for_a_hostile_option(tmp_path):
    command = [
        *(sys.executable, "-P", "-m", "jxai.cli", "train"),
        "letters/relation",
        "--folder",
        tmp_path / "a\nb",
    ]
    done = subprocess.run(
        [*command, "--config.way", "0"], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 2 and "Traceback" not in done.stderr
