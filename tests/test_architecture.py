"""What DESIGN says of the tree: who may import whom, what loads when, one topic a file."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import jxai

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "jxai"
PACKAGES = sorted(path.parent.name for path in SOURCE.glob("*/__init__.py"))

# package -> the other packages of jxai that it may import, at any level of nesting.
ALLOWED: dict[str, set[str]] = {
    "attribution": {"batches"},
    "batches": set(),
    "data": {"fewshot"},  # the Episode alone
    "fewshot": {"lrp", "models"},
    "lrp": set(),
    "metrics": {"batches"},
    "models": {"lrp"},  # where modules stand, for `split`
    "training": {"fewshot", "models"},
    "viz": set(),
}
# Modules beside the packages, that know none of them; every package may import them.
COMMON = {"__version__", "checks", "depthwise", "locks"}
# Packages that take any function, so they know no neural network library.
WITHOUT_FLAX = ("attribution", "batches", "metrics")
# What `import jxai` and its packages load only when it is used.
LAZY = (
    "PIL",
    "array_record",
    "grain",
    "importlib_resources",
    "matplotlib",
    "orbax",
    "tensorboardX",
    "tensorflow",
    "tensorflow_datasets",
    "torch",
    "tqdm",
    "tyro",
)
MAX_LINES = 400


def imported(path: Path) -> set[str]:
    """Every module that a file imports, anywhere in it, with `from a import b` as a and a.b."""
    names: set[str] = set()
    parts = path.relative_to(ROOT).with_suffix("").parts
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path))):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            package = ".".join(parts[: len(parts) - node.level]) if node.level else ""
            base = ".".join(filter(None, (package, node.module)))
            names.add(base)
            names.update(f"{base}.{alias.name}" for alias in node.names)
    return names


def python_files(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


def test_every_package_has_its_rule():
    assert set(PACKAGES) <= set(ALLOWED)


@pytest.mark.parametrize("package", PACKAGES)
def test_dependency_direction(package):
    wrong = []
    for path in python_files(f"jxai/{package}"):
        for name in imported(path):
            if name.split(".")[0] in ("experiments", "tests"):
                wrong.append(f"{path.relative_to(ROOT)} imports {name}")
            if name.startswith("jxai.") and name.split(".")[1] not in {package, *COMMON, *ALLOWED[package]}:
                wrong.append(f"{path.relative_to(ROOT)} imports {name}")
            if package in WITHOUT_FLAX and name.split(".")[0] == "flax":
                wrong.append(f"{path.relative_to(ROOT)} imports {name}")
    assert not wrong


def test_common_modules_know_no_package():
    for path in SOURCE.glob("*.py"):
        assert not {name for name in imported(path) if name.split(".")[0] == "jxai"}, path


def test_data_takes_nothing_but_the_episode_from_fewshot():
    taken = {
        name
        for path in python_files("jxai/data")
        for name in imported(path)
        if name.startswith("jxai.fewshot")
    }
    assert taken <= {
        "jxai.fewshot",
        "jxai.fewshot.Episode",
        "jxai.fewshot.episode",
        "jxai.fewshot.episode.Episode",
    }


@pytest.mark.parametrize("package", ["", *PACKAGES])
def test_package_says_in_one_sentence_what_it_holds(package):
    doc = ast.get_docstring(ast.parse((SOURCE / package / "__init__.py").read_text(encoding="utf-8")))
    assert doc, "no docstring"
    sentence = " ".join(doc.split())
    assert sentence.endswith(".") and ". " not in sentence


@pytest.mark.parametrize("folder", ["jxai", "experiments", "tests"])
def test_no_file_is_long(folder):
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in python_files(folder)}
    assert not {str(path): count for path, count in lengths.items() if count > MAX_LINES}


def test_importing_loads_nothing_that_is_used_late():
    # In a new process: other tests have loaded all of it. What jax, flax, optax and chex load is theirs.
    program = f"""
import importlib, json, sys
import chex, flax.linen, jax, numpy, optax
before = set(sys.modules)
import jxai
alone = set(sys.modules)
for package in {PACKAGES!r}:
    importlib.import_module("jxai." + package)
late = lambda names: sorted({{name.split(".")[0] for name in names}} & set({LAZY!r}))
print(json.dumps([late(alone - before), late(set(sys.modules) - before)]))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [[], []]


@pytest.mark.skipif("JXAI_TEST_INSTALLED" not in os.environ, reason="only `make test` installs the package")
def test_the_installed_package_is_tested():
    assert SOURCE not in Path(jxai.__file__).resolve().parents
    installed = {
        path.relative_to(SOURCE.parent)
        for path in SOURCE.rglob("*")
        if path.suffix in (".py", ".npz", ".typed")
    }
    site = Path(jxai.__file__).resolve().parents[1]
    assert not [
        path for path in installed if (site / path).read_bytes() != (SOURCE.parent / path).read_bytes()
    ]
