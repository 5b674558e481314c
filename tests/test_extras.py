"""What `pip install jxai` brings is enough for the core, and whatever else is missing is named with its extra."""

import ast
import importlib.metadata
import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import jxai
from jxai.cli.main import COMMANDS
from jxai.extras import EXTRAS, named

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
OPTIONAL = PROJECT["optional-dependencies"]
PACKAGES = ("attribution", "data", "fewshot", "lrp", "metrics", "models", "training", "viz")
CORE = {Requirement(line).name for line in PROJECT["dependencies"]} | {"scipy"}  # which JAX brings


def brought(extra: str) -> set[str]:
    """The distributions of an extra, with those of the extras that it holds."""
    found = set()
    for line in map(Requirement, OPTIONAL[extra]):
        found |= (
            set().union(*map(brought, line.extras)) if line.name == "jxai" else {canonicalize_name(line.name)}
        )
    return found


def imports(tree: ast.AST) -> dict[str, list[ast.stmt]]:
    """Package -> where a file imports it, without what only type checkers see."""
    found: dict[str, list[ast.stmt]] = {}
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            node = ast.Module(body=node.orelse, type_ignores=[])
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = [node.module]
        for name in names:
            found.setdefault(name.split(".")[0], []).append(node)
        for name, nodes in imports(node).items():
            found.setdefault(name, []).extend(nodes)
    return found


def test_every_package_that_is_imported_is_of_the_core_or_of_an_extra():
    packages = {}
    for path in sorted((ROOT / "jxai").rglob("*.py")):
        packages |= dict.fromkeys(imports(ast.parse(path.read_text("utf-8"))), path)
    others = set(packages) - set(sys.stdlib_module_names) - {"jxai"}
    assert {"jax", "numpy", "flax", "optax"} <= others
    assert others - CORE == set(EXTRAS)


def test_the_extra_named_has_the_package_and_no_smaller_one_has():
    distributions = importlib.metadata.packages_distributions()
    for package, extra in EXTRAS.items():
        having = {
            one: brought(one)
            for one in OPTIONAL
            if canonicalize_name(distributions[package][0]) in brought(one)
        }
        assert extra in having
        assert not [one for one, whole in having.items() if whole < having[extra]]


def test_all_is_every_extra_that_is_not_for_developers():
    users = set(OPTIONAL) - {"test", "docs"}
    assert brought("all") == set().union(*map(brought, users))


def test_the_version_stands_in_one_place():
    assert PROJECT["dynamic"] == ["version"]
    cited = re.search(r"^version: (\S+)$", (ROOT / "CITATION.cff").read_text("utf-8"), re.MULTILINE)
    assert cited and cited[1] == jxai.__version__


def test_other_missing_modules_keep_their_error():
    with pytest.raises(ModuleNotFoundError, match=r"^No module named .a_package_that_nobody_has."), named():
        import a_package_that_nobody_has  # noqa: F401  # pyright: ignore[reportMissingImports]
    with pytest.raises(ModuleNotFoundError, match=r"^No module named 'matplotlib\.nothing'"), named():
        import matplotlib.nothing  # noqa: F401  # pyright: ignore[reportMissingImports]


# None of the packages can be imported, as after `pip install jxai` alone (with which Orbax comes, by Flax).
CORE_WORKS = f"""
import sys
sys.modules |= dict.fromkeys({[*EXTRAS]!r})
import jxai
for name in {PACKAGES!r}:
    assert name in dir(jxai) and getattr(jxai, name).__all__
import jax, jax.numpy as jnp, numpy as np
from jxai import attribution, data, fewshot, lrp, metrics, models, training, viz

source = data.load("thai")
pictures = source.array(32)
episodes = data.episode_dataset(source, way=2, shot=1, num_query=1, seed=0, numbers=True)
encoder, head = models.Conv4NP(width=2), fewshot.PrototypeHead()
variables = fewshot.init_variables(encoder, head, jax.random.key(0), image_size=32)
optimizer = training.make_optimizer(training.OptimizerConfig(), num_steps=1)
loss = lambda variables, episode, key: fewshot.guided_loss(encoder, head, variables, episode)
step = training.pmap_step(training.make_step(loss, optimizer), devices=jax.devices()[:1])
state = training.TrainState.create(jax.random.key(1), variables, optimizer=optimizer)
looked_up = lambda batch: jax.device_get(data.look_up(batch, pictures))
result = training.fit(step, state, data.iterate(episodes), num_steps=1, prepare=looked_up, progress=False)
f = lambda x: encoder.apply(fewshot.part(result.state.variables, "encoder"), x, train=False).mean((1, 2))
x, target = jnp.asarray(pictures[:1]), jnp.zeros(1, int)
assert lrp.coverage(f, x, composite=lrp.EpsilonPlus())
for found in (lrp.relevance(f, x, target, composite=lrp.EpsilonPlus()), attribution.gradient(f, x, target)):
    assert np.isfinite(metrics.average_total_variation(found.sum(-1))).all()
    assert viz.heatmap(found, scale=viz.shared_scale(found)).shape == (1, 32, 32, 3)
"""

# Package -> calls that need it, each made in a process in which that package alone cannot be imported.
SHEET = "viz.method_sheet(square[None], {'one': square[None] / 255}, captions=[('a', 'b')], path='sheet.png')"
NEEDS = {
    "PIL": [
        SHEET,
        "data.read_picture('picture.png')",
        "data.center_square(square, size=4, shorter=4)",
        "source.images([0], 4)",
        "data.load('CUB', manual_dir='.', short_side=4)",
    ],
    "array_record": ["prepared.prepare(Path('birds'), lambda: listing, **plain)"],
    "cloudpickle": ["next(data.iterate(data.episode_dataset(source, **task), num_workers=1))"],
    "gguf": ["models.load_transformer('model.gguf')"],
    "grain": [
        "data.episode_dataset(source, **task)",
        "data.classification_dataset(source, batch_size=2, seed=0)",
    ],
    "matplotlib": [
        SHEET,
        "viz.learning_curves({'plain': [[{'step': 1, 'loss': 1}]]}, metrics=['loss'], path='curves.png')",
    ],
    "onnx": ["models.magika(path='model.onnx')", "models.focus(path='model.onnx')"],
    "orbax": ["training.Checkpoints('checkpoints')", "training.load_variables('.')"],
    "tensorboardX": ["training.MetricsWriter('metrics.jsonl', tensorboard='.')"],
    "tensorflow_datasets": ["data.prepare('thai')", "data.load('tfds:mnist')"],
    "tokenizers": ["models.load_transformer('model.gguf')"],
    "tyro": [f"command({name!r})" for name in COMMANDS],
}

# Of [package, call] in a list to what each call raised and wrote; a process each, forked from one that has jxai.
CALLS = f"""
import contextlib, io, json, os, sys
from pathlib import Path
import numpy as np
from jxai import {", ".join(PACKAGES)}
from jxai.cli import main
from jxai.data import prepared
from jxai.data.listing import Folder, Listing

square = np.zeros((8, 8, 3), np.uint8)
pictures = np.arange(4 * 8 * 8 * 3, dtype=np.uint8).reshape(4, 8, 8, 3)
source = data.from_arrays("source", pictures, np.arange(4) // 2)
task = {{"way": 2, "shot": 1, "num_query": 1, "seed": 0}}
listing = Listing([("bird", ["picture.png"])], Folder(Path()))
plain = {{"name": "birds", "short_side": None, "skip_corrupt": False, "progress": False}}

def command(name):
    sys.argv = ["jxai", name]
    main.main()

def told(package, call):
    sys.modules[package] = None
    with contextlib.redirect_stderr(io.StringIO()) as written:
        try:
            eval(call)
        except BaseException as error:
            return f"{{type(error).__name__}} {{error}} {{written.getvalue()}}"

for package, call in json.load(sys.stdin):
    if not os.fork():
        print(json.dumps(told(package, call)), flush=True)
        os._exit(0)
    os.wait()
"""


def process(program: str, folder: Path, given: str = "") -> str:
    """What it prints."""
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=folder,
        input=given,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "JXAI_DATA": str(folder)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_core_works_without_any_of_them(tmp_path):
    process(CORE_WORKS, tmp_path)


def test_what_is_missing_is_named_with_its_extra(tmp_path):
    assert set(NEEDS) == set(EXTRAS) - {"tqdm"}  # without which there are lines in place of bars
    for name in ("picture.png", "model.gguf", "model.onnx"):
        (tmp_path / name).write_bytes(b"nothing")
    calls = [(package, call) for package, several in NEEDS.items() for call in several]
    told = list(map(json.loads, process(CALLS, tmp_path, json.dumps(calls)).splitlines()))
    for (package, call), said in zip(calls, told, strict=True):
        expected = f"expected {package}, got no such package: pip install 'jxai[{EXTRAS[package]}]'"
        assert said and expected in said, (package, call, said)
        assert said.startswith("SystemExit 2" if call.startswith("command") else "ModuleNotFoundError"), said
