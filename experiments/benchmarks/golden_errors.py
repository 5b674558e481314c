"""A plugin for pytest: the golden tests on a device, their errors written down and no bound held against them.

    JXAI_GOLDEN_ERRORS=errors.jsonl python -m pytest -p golden_errors tests/lrp/test_golden.py

The golden tests compare by a function `error` of their module, `error(ours, reference) <= bound`. Here it gives a
number that remembers what it is compared with: a line of JSON a test, of its name, its pairs of error and bound, and
what else made it fail, goes to the file of that name.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest


class Compared(float):
    """An error that is within any bound, and keeps that bound."""

    bounds: list[tuple[float, float]]

    def __le__(self, bound: Any) -> bool:
        self.bounds.append((float(self), float(bound)))
        return True


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_call(item: Any) -> Iterator[None]:
    """Have the test's comparisons remembered."""
    found: list[tuple[float, float]] = []
    item.stash[_FOUND] = found
    plain: Any = getattr(item.module, "error", None)

    def error(ours: Any, reference: Any) -> Compared:
        one = Compared(plain(ours, reference))
        one.bounds = found
        return one

    if plain is not None:
        item.module.error = error
    yield
    if plain is not None:
        item.module.error = plain


_FOUND = pytest.StashKey[list[tuple[float, float]]]()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: Any, call: Any) -> Iterator[None]:
    """Write a line when a test is over, or its setup failed."""
    outcome: Any = yield
    report = outcome.get_result()
    if report.when != "call" and not (report.when == "setup" and report.failed):
        return
    line = {"test": item.nodeid, "errors": item.stash.get(_FOUND, []), "failure": None}
    if report.failed:
        line["failure"] = str(call.excinfo.value)[:300]
    with Path(os.environ["JXAI_GOLDEN_ERRORS"]).open("a") as file:
        file.write(json.dumps(line) + "\n")
