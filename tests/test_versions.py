"""The wheel, and that it works with the oldest and with the newest versions of what it depends on."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
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
    done = subprocess.run(
        [str(part) for part in command], cwd=ROOT, capture_output=True, text=True, check=False, **options
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return done.stdout


def newest_python():
    """The newest Python that is there: JAX leaves old ones behind."""
    found = [shutil.which(f"python3.{minor}") for minor in range(12, 15)]
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
            versions[tuple(map(int, asked.stdout.split()))] = python
    newest = max(versions, default=(0, 0))
    return versions[newest] if newest > sys.version_info[:2] else sys.executable


def lowest():
    """Every dependency at the lower end of its range."""
    ranges = [re.match(r"([\w-]+)>=([\d.]+)", dependency) for dependency in PROJECT["dependencies"]]
    assert all(ranges)
    return [f"{found[1]}=={found[2]}" for found in ranges if found]


def test_the_wheel_has_the_library_and_nothing_else(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    about = f"jxai-{PROJECT['version']}.dist-info"
    assert {name.split("/")[0] for name in names} == {"jxai", about}
    source = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "jxai").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert {name for name in names if name.startswith("jxai/")} == source
    assert "jxai/py.typed" in names and any(name.endswith(".npz") for name in names)
    assert f"{about}/licenses/LICENSE" in names


@pytest.mark.parametrize("versions", ["oldest", "newest"])
def test_it_works_with_the_versions(wheel, tmp_path, versions):
    python = newest_python() if versions == "newest" else sys.executable
    pinned = tmp_path / "constraints.txt"
    pinned.write_text("\n".join(lowest() if versions == "oldest" else []))
    run(python, "-m", "venv", tmp_path / "venv")
    inside = tmp_path / "venv" / "bin"
    quiet = ("--quiet", "--disable-pip-version-check", "--no-compile")
    run(inside / "pip", "install", *quiet, "--constraint", pinned, wheel, "pytest", "pytest-timeout")
    run(inside / "pip", "check", "--disable-pip-version-check")
    installed = run(inside / "pip", "list", "--format=freeze", "--disable-pip-version-check")
    print(python, *re.findall(r"(?m)^(?:jax|flax|optax|orbax-checkpoint)==.*", installed))
    # Warnings of versions other than those that this environment has are theirs.
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    environment.pop("JXAI_TEST_INSTALLED", None)
    options = ("-q", "-p", "no:cacheprovider", "-o", "filterwarnings=")
    run(inside / "pytest", *options, *CHOSEN, env=environment)
