"""A new package of jxai needs its file here."""

import importlib
import pkgutil
from pathlib import Path

import jxai


def test_every_package_with_public_names_has_its_file():
    packages = [module.name for module in pkgutil.iter_modules(jxai.__path__) if module.ispkg]
    public = [name for name in packages if importlib.import_module(f"jxai.{name}").__all__]
    files = {path.stem for path in Path(__file__).parent.glob("test_*.py")}
    assert {f"test_{name}" for name in public} <= files
