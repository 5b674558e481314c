"""The rules for public names, over the `__all__` of every package (in the manner of dm_pix's api_test)."""

import ast
import dataclasses
import doctest
import importlib
import inspect
import pkgutil
import re
import textwrap
from collections.abc import Callable
from typing import Any

import pytest

import jxai

PACKAGES = sorted(module.name for module in pkgutil.iter_modules(jxai.__path__) if module.ispkg)
PUBLIC = [
    (package, name)
    for package in PACKAGES
    for name in getattr(importlib.import_module(f"jxai.{package}"), "__all__", [])
]

# Positional arguments come in groups; whatever has none of these names is an array (or a struct of them).
FUNCTIONS = {"f", "objective", "loss_fn", "model", "encoder", "head", "optimizer", "step"}
KEYS = {"key"}
# Classes, which stand behind the images; in their place a function of the outputs may be given.
CLASSES = {"target"}


def get(package: str, name: str) -> Any:
    return getattr(importlib.import_module(f"jxai.{package}"), name)


def functions() -> list[tuple[str, str]]:
    return [
        (package, name)
        for package, name in PUBLIC
        if callable(get(package, name)) and not inspect.isclass(get(package, name))
    ]


def classes() -> list[tuple[str, str]]:
    return [(package, name) for package, name in PUBLIC if inspect.isclass(get(package, name))]


def section(doc: str, title: str) -> str | None:
    """The indented text below `title:`, or None where the docstring has no such section."""
    found = re.search(rf"^{title}:\n((?:(?:    .*)?\n?)*)", doc, re.MULTILINE)
    return textwrap.dedent(found.group(1)) if found else None


def entries(text: str) -> set[str]:
    """The names that a section explains: `x:`, `low, high:` and `**options:` at its left edge."""
    heads = re.findall(r"^(\S[^:\n]*):", text, re.MULTILINE)
    return {name.strip(" *`") for head in heads for name in head.split(",")}


def group(parameter: inspect.Parameter) -> int:
    """0 for functions, 1 for the key, 2 for arrays."""
    if parameter.name in CLASSES:
        return 2
    if parameter.name in FUNCTIONS or "Callable" in str(parameter.annotation):
        return 0
    return 1 if parameter.name in KEYS else 2


def raised(function: Callable[..., Any]) -> set[str]:
    """Names of the exceptions that a function's own body raises, as people catch them."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(inspect.unwrap(function))))
    calls = [
        node.exc for node in ast.walk(tree) if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call)
    ]
    names = {call.func.id for call in calls if isinstance(call.func, ast.Name)}
    return {{"InputError": "ValueError", "InputTypeError": "TypeError"}.get(name, name) for name in names}


@pytest.mark.parametrize("package", PACKAGES)
def test_all_is_sorted_and_complete(package):
    module = importlib.import_module(f"jxai.{package}")
    assert hasattr(module, "__all__"), "no __all__"
    assert sorted(module.__all__) == sorted(set(module.__all__))
    public = {
        name
        for name, value in vars(module).items()
        if not name.startswith("_")
        and not inspect.ismodule(value)
        and getattr(value, "__module__", "").startswith("jxai")
    }
    assert public <= set(module.__all__)


@pytest.mark.parametrize(("package", "name"), PUBLIC)
def test_docstring_opens_with_one_line(package, name):
    value = get(package, name)
    if not callable(value) and not inspect.ismodule(value):
        return  # a constant: its comment stands where it is defined
    doc = inspect.getdoc(value)
    assert doc, "no docstring"
    lines = doc.splitlines()
    assert lines[0].endswith((".", ":")) and (len(lines) == 1 or not lines[1].strip())


@pytest.mark.parametrize(("package", "name"), functions())
def test_docstring_explains_arguments_and_result(package, name):
    function = get(package, name)
    doc, signature = inspect.getdoc(function) or "", inspect.signature(function)
    if signature.parameters:
        assert entries(section(doc, "Args") or "") == set(signature.parameters)
    returns = signature.return_annotation
    if signature.parameters and returns not in (None, "None", inspect.Signature.empty):
        assert section(doc, "Returns"), "no Returns"
    for exception in raised(function):
        assert exception in (section(doc, "Raises") or ""), f"{exception} is not in Raises"


@pytest.mark.parametrize(("package", "name"), classes())
def test_class_explains_its_fields(package, name):
    cls = get(package, name)
    own = {field for field in vars(cls).get("__annotations__", {}) if not field.startswith("_")}
    fields = {field.name for field in dataclasses.fields(cls)} if dataclasses.is_dataclass(cls) else set()
    # A subclass repeats a field to set its value; the class that introduced it explains it.
    inherited = {field for base in cls.__mro__[1:] for field in getattr(base, "__annotations__", {})}
    explained = entries(section(inspect.getdoc(cls) or "", "Attributes") or "")
    assert (own & fields) - inherited - {"parent", "name"} <= explained


@pytest.mark.parametrize(("package", "name"), functions())
def test_function_then_key_then_arrays_then_keyword_only_options(package, name):
    parameters = list(inspect.signature(get(package, name)).parameters.values())
    positional = [p for p in parameters if p.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD]
    order = [group(parameter) for parameter in positional]
    assert order == sorted(order), f"expected functions, key, arrays, got {[p.name for p in positional]}"
    with_default = [p.name for p in positional if p.default is not inspect.Parameter.empty]
    assert not with_default, f"options are keyword-only: {with_default}"


@pytest.mark.parametrize("module", [info.name for info in pkgutil.walk_packages(jxai.__path__, "jxai.")])
def test_examples_of_docstrings(module):
    result = doctest.testmod(importlib.import_module(module), optionflags=doctest.NORMALIZE_WHITESPACE)
    assert not result.failed
