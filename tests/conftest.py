"""Shared by every test: eight simulated CPU devices, quick compilation, and where the reference values lie."""

import functools
import gc
import os
import signal
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

# Before jax starts: the tests are about numbers on a CPU; JAX_PLATFORMS in the environment still wins.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Programs here are small, compiled once and run a few times: LLVM's passes would cost more than they save.
# XLA_FLAGS= in the environment gives users' compilation.
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_backend_optimization_level=0 --xla_cpu_parallel_codegen_split_count=1"
    # Newer versions end the process at a flag that they do not know.
    + (" --xla_cpu_use_fusion_emitters=false" if version("jaxlib").startswith("0.10.") else ""),
)

import jax
import numpy as np
import pytest
from jax._src.interpreters import mlir

# The package `experiments` stays in the clone, and its processes find it too. Last in the list: an installed `jxai`
# goes before the clone's.
ROOT = str(Path(__file__).resolve().parents[1])
sys.path.append(ROOT)

# A shell has what it starts in the background ignore SIGINT, and processes that tests start inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
# Devices are created at the first computation, so this must run before any test module computes something.
jax.config.update("jax_num_cpu_devices", 8)
# A script called from a test would read and fill the user's cache of compiled programs.
jax.config.update("jax_enable_compilation_cache", False)
# Nobody reads the lines of source that programs carry for XLA's own messages.
jax.config.update("jax_traceback_in_locations_limit", 0)
# JAX makes a context with all of MLIR's dialects for every program, a quarter of what a small one costs: here the
# programs of a test file share one. JAX's own name: a version without it makes its contexts elsewhere.
mlir.make_ir_context = functools.cache(getattr(mlir, "make_ir_context", lambda: None))


@pytest.fixture(scope="module", autouse=True)
def _context_of_the_file() -> Iterator[None]:
    yield
    mlir.make_ir_context.cache_clear()


@pytest.fixture(autouse=True)
def _libraries_begin_at_one_seed() -> None:
    """Libraries that keep a seed of their own would draw other initial values in every run, dead ones at times."""
    if "keras" in sys.modules:
        sys.modules["keras"].utils.set_random_seed(0)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--fast", action="store_true", help="of each parametrized test the first case alone")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--fast"):
        first = {item.nodeid.split("[")[0]: item for item in reversed(items)}
        items[:] = [item for item in items if first[item.nodeid.split("[")[0]] is item]


def pytest_collection_finish() -> None:
    """Leave what was imported out of later collections of garbage, and have fewer: a tenth of the tests' time."""
    gc.freeze()
    gc.set_threshold(10_000)


@pytest.fixture(scope="session")
def golden() -> Path:
    """The folder of reference values: `$JXAI_GOLDEN`, or `tests/golden` beside this file."""
    folder = Path(os.environ.get("JXAI_GOLDEN", Path(__file__).parent / "golden")).resolve()
    if not folder.is_dir():
        raise FileNotFoundError(f"expected a folder of reference values, got {folder}: set JXAI_GOLDEN")
    return folder


@pytest.fixture
def compilations() -> Iterator[list[str]]:
    """The names of the programs that XLA compiles while the test runs, as it goes."""
    found: list[str] = []

    def heard(event: str, duration: float, **details: Any) -> None:
        if event == "/jax/core/compile/backend_compile_duration":
            found.append(str(details.get("fun_name", "")))

    jax.monitoring.register_event_duration_secs_listener(heard)
    yield found
    jax.monitoring.unregister_event_duration_listener(heard)


@pytest.fixture(scope="session")
def memory() -> Callable[[], float]:
    """Of no arguments to the megabytes that this process holds once garbage is collected."""

    def megabytes() -> float:
        gc.collect()
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 1e6

    return megabytes


@pytest.fixture(scope="session")
def golden_resnet10(golden: Path) -> tuple[Any, dict[str, Any], dict[str, np.ndarray]]:
    """The ResNet10 of `resnet10_to_pixels.npz`: (module, variables, everything in the archive)."""
    from jxai import models  # here, so that collecting a test that does not need it stays quick

    with np.load(golden / "resnet10_to_pixels.npz") as archive:
        reference = dict(archive)
    variables: dict[str, Any] = {"params": {}, "batch_stats": {}}
    for key, value in reference.items():
        if key in ("image", "features", "relevance", "relevance_out"):
            continue
        *block, rest = key.split("_", 1) if key.startswith("block") else (key,)
        name, leaf = rest.rsplit("_", 1)
        tree = variables["batch_stats" if leaf in ("mean", "var") else "params"]
        for part in (*block, name):
            tree = tree.setdefault(part, {})
        tree[leaf] = value
    params = variables["params"]
    blocks = sorted((name for name in params if name.startswith("block")), key=lambda name: int(name[5:]))
    widths = tuple(params[name]["conv2"]["kernel"].shape[-1] for name in blocks)
    stem = params["conv1"]["kernel"].shape[-1]
    return models.ResNet10(widths=widths, stem_width=stem), variables, reference
