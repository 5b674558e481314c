"""What DESIGN says of the tree: who may import whom, what loads when, one topic a file."""

import ast
import fnmatch
import graphlib
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest

import jxai
from jxai import lrp

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "jxai"
PACKAGES = sorted(path.parent.name for path in SOURCE.glob("*/__init__.py"))

# package -> the other packages of jxai that it may import, at any level of nesting.
ALLOWED: dict[str, set[str]] = {
    "attribution": {"batches"},
    "batches": {"ops"},
    "cli": {"attribution", "data", "fewshot", "lrp", "metrics", "models", "text", "training", "viz"},
    "data": {"fewshot"},  # the Episode alone
    "fewshot": {"batches", "guidance", "lrp", "models", "ops"},
    "guidance": set(),
    "lrp": {"batches", "ops"},  # what a target may be
    "metrics": {"batches", "ops"},
    "models": {"lrp", "ops"},  # where modules stand, for `split`
    "ops": set(),
    "text": {"batches", "lrp"},
    "training": {"fewshot", "models"},
    "viz": set(),
}
# Modules beside the packages, that know none of them; every package may import them.
COMMON = {
    "__version__",
    "checks",
    "compiled",
    "errors",
    "extras",
    "intervals",
    "jaxprs",
    "locks",
    "miscompiled",
    "npz",
    "progress",
    "results_log",
    "sealing",
}
# Packages that take any function, so they know no neural network library.
WITHOUT_FLAX = ("attribution", "batches", "guidance", "metrics", "text")
# What `import jxai` and its packages load only when it is used.
LAZY = (
    "PIL",
    "array_record",
    "flax.nnx",
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
# Lists of cases, one beside the other; to be taken apart.
LONG = ("test_cases.py", "test_spellings.py", "test_whole.py")


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
        assert {name.split(".")[1] for name in imported(path) if name.startswith("jxai.")} <= COMMON, path


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
    assert not {str(path): n for path, n in lengths.items() if n > MAX_LINES and path.name not in LONG}


def test_importing_loads_nothing_that_is_used_late():
    # In a new process: other tests have loaded all of it. What jax, flax and optax load is theirs.
    program = f"""
import importlib, json, sys
import flax.linen, jax, numpy, optax
before = set(sys.modules)
import jxai
alone = set(sys.modules)
for package in {PACKAGES!r}:
    importlib.import_module("jxai." + package)
late = lambda names: sorted({{*names, *(name.split(".")[0] for name in names)}} & set({LAZY!r}))
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


# The engine of `jxai.lrp`: layers, no circle, and what is known of primitives in one place.

LRP_LAYERS = 6
# Where primitives may be told apart by name: the table, and the passes that recognize what is written of several.
KNOW_NAMES = ("engine/primitives.py", "engine/divide_first.py", "engine/fuse_*.py", "engine/forms.py")
# (file, function) that may as well, and why.
MAY_COMPARE = {
    (
        "engine/graph.py",
        "evaluate",
    ): "runs a convolution by its fast form, and keeps the precision of conversions",
    (
        "engine/graph.py",
        "_is_value",
    ): "positions stay integers where the values that they choose from are floats",
    ("engine/graph.py", "axes_kept"): "reads each primitive's own parameters",
    ("engine/graph.py", "kernel_axes"): "reads each primitive's own parameters",
    ("coverage.py", "_what"): "leaves out of a table what says no more than the kind",
    ("rules/presets.py", "_relu"): "a pattern, as a user's composite has them",
}


def lrp_files() -> dict[str, Path]:
    """The files of `jxai.lrp` by their module's name, without the facades."""
    return {
        ".".join(path.relative_to(ROOT).with_suffix("").parts): path
        for path in python_files("jxai/lrp")
        if path.name != "__init__.py"
    }


def lrp_imports() -> dict[str, set[str]]:
    """Which files of `jxai.lrp` each of them imports, anywhere in it."""
    files = lrp_files()
    return {name: (imported(path) & set(files)) - {name} for name, path in files.items()}


def layers(imports: dict[str, set[str]]) -> dict[str, int]:
    """The layer of every module, from 1: one above the highest that it imports; refuses a circle."""
    found: dict[str, int] = {}
    for name in graphlib.TopologicalSorter(imports).static_order():
        found[name] = 1 + max((found[one] for one in imports.get(name, ())), default=0)
    return found


def test_layers_are_counted_and_circles_are_found():
    assert layers({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == {"a": 3, "b": 2, "c": 1}
    with pytest.raises(graphlib.CycleError):
        layers({"a": {"b"}, "b": {"a"}})


def test_lrp_has_few_layers_and_no_circle():
    found = layers(lrp_imports())
    assert set(found) == set(lrp_files())
    assert max(found.values()) <= LRP_LAYERS, sorted(found.items(), key=lambda item: -item[1])


def test_no_file_of_lrp_imports_its_facades():
    known = set(lrp_files())
    packages = {"jxai.lrp", "jxai.lrp.engine", "jxai.lrp.rules"}
    for path in lrp_files().values():
        within = {name for name in imported(path) if name.startswith("jxai.lrp.")} - packages
        strange = {name for name in within if name not in known and name.rpartition(".")[0] not in known}
        assert not strange, path


def test_rules_know_nothing_of_the_engine():
    for path in python_files("jxai/lrp/rules"):
        assert not {name for name in imported(path) if name.startswith("jxai.lrp.engine")}, path


def test_the_engine_names_no_rule():
    def below(cls: type) -> set[str]:
        return {cls.__name__}.union(*map(below, cls.__subclasses__()))

    rules = {name for name in below(lrp.Rule) if name in lrp.__all__} - {"Rule"}
    assert {"Epsilon", "Gradient", "LinearRule"} <= rules
    for path in python_files("jxai/lrp/engine"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
        names |= {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
        names |= {alias.name for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) for alias in n.names}
        assert not names & rules, path


def comparisons_of_names(source: str, primitives: set[str]) -> set[tuple[str, str]]:
    """(function, primitive's name) for every comparison with such a name, or look-up in a collection of them."""
    found: set[tuple[str, str]] = set()

    def words(node: ast.AST) -> set[str]:
        return {
            one.value
            for one in ast.walk(node)
            if isinstance(one, ast.Constant) and isinstance(one.value, str)
        }

    def visit(node: ast.AST, function: str) -> None:
        if isinstance(node, ast.FunctionDef):
            function = node.name
        taken: set[str] = set()
        if isinstance(node, ast.Compare):
            taken = words(node)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            taken = (
                words(node) if node.func.attr in ("startswith", "endswith", "fullmatch", "match") else set()
            )
        elif isinstance(node, ast.Set | ast.Dict | ast.Tuple | ast.List | ast.MatchValue):
            several = words(node)
            taken = several if len(several & primitives) > 1 or isinstance(node, ast.MatchValue) else set()
        found.update((function, word) for word in taken & primitives)
        for child in ast.iter_child_nodes(node):
            visit(child, function)

    visit(ast.parse(source), "")
    return found


def test_comparisons_of_names_are_found():
    source = """
TABLE = {"exp", "log"}
def f(equation):
    return equation.name == "add" or equation.name in ("mul", "div") or equation.name.startswith("scatter")
def g(path):
    return path == "something"
"""
    found = comparisons_of_names(source, {"exp", "log", "add", "mul", "div", "scatter"})
    assert found == {
        ("", "exp"),
        ("", "log"),
        ("f", "add"),
        ("f", "mul"),
        ("f", "div"),
        ("f", "scatter"),
    }


def test_primitives_are_told_apart_in_one_place():
    primitives = {name.removesuffix("_p") for name in vars(jax.lax) if name.endswith("_p")}
    assert {"add", "conv_general_dilated", "scan"} <= primitives
    wrong, met = [], set()
    for path in lrp_files().values():
        name = path.relative_to(SOURCE / "lrp").as_posix()
        if any(fnmatch.fnmatchcase(name, known) for known in KNOW_NAMES):
            continue
        for function, word in sorted(comparisons_of_names(path.read_text(encoding="utf-8"), primitives)):
            met.add((name, function))
            if (name, function) not in MAY_COMPARE:
                wrong.append(f"{name}, {function}: '{word}'")
    assert not wrong, wrong
    assert set(MAY_COMPARE) <= met, "exempt and not needed"


def test_packages_are_attributes_that_are_loaded_when_they_are_used():
    code = (
        "import sys, jxai; assert 'jxai.lrp' not in sys.modules and 'lrp' in dir(jxai);"
        "assert jxai.lrp.vjp and not hasattr(jxai, 'nothing')"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
