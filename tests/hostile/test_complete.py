"""A new package or module of jxai needs its file here."""

import importlib
import pkgutil
from pathlib import Path

from strategies import public

import jxai

EXEMPT = {
    "intervals": "public as `fewshot.mean_and_interval`, examined there",
    "progress": "what shows how far something is, of numbers that its callers count",
    "compiled": "takes functions that others have checked: what it asks of none, they ask",
    "checks": "what refuses arguments, for all others: every case here is one of its own",
    "errors": "what is raised",
    "extras": "takes no arguments",
    "jaxprs": "takes what JAX traced, nothing of users",
    "miscompiled": "takes no arguments",
    "npz": "reads what `models` and `data` open: test_files.py and test_fuzz.py attack it",
    "results_log": "takes no arguments of users: what measures for long names the file that it writes",
    "locks": "takes no arguments of users: `training` and `data` name the files that it locks",
    "sealing": "takes no arguments of users: `training` and `viz` name the files that it writes",
}


def test_every_package_and_module_with_public_names_has_its_file():
    names = {module.name for module in pkgutil.iter_modules(jxai.__path__) if not module.name.startswith("_")}
    with_names = {name for name in names if public(importlib.import_module(f"jxai.{name}"))}
    files = {path.stem.removeprefix("test_") for path in Path(__file__).parent.glob("test_*.py")}
    assert {"attribution", "lrp"} <= with_names
    assert with_names - set(EXEMPT) <= files
    assert not set(EXEMPT) & files, "exempt and examined"
