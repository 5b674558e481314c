"""A bar on a terminal, a line a minute elsewhere, nothing where nothing is asked for."""

import io
import sys
import time

import pytest

from jxai.progress import Bar, tracked


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def clock(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


@pytest.mark.parametrize("progress", [True, "lines"])
def test_a_line_a_minute_and_one_at_the_end(clock, capsys, progress):
    with Bar(10, unit="step", name="training", initial=2, progress=progress) as bar:
        for seconds in (30, 59, 60, 61, 119, 121):
            clock[0] = seconds
            bar.show({"loss": "0.5"})
            bar.update()
    lines = capsys.readouterr().err.splitlines()
    assert lines == [f"training: step {n} of 10, {m} min, loss 0.5" for n, m in ((5, 1), (8, 2), (8, 2))]


def test_short_stages_are_one_work(clock, capsys):
    for stage in range(9):
        with Bar(2, unit="step", name=f"stage {stage}") as bar:
            for _ in range(2):
                clock[0] += 10
                bar.update()
    clock[0] += 1000  # something else
    for _ in tracked("abc", unit="letter", name="later"):
        clock[0] += 10
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(":")[0] for line in lines] == ["stage 2", "stage 2", "stage 5", "stage 5", "stage 8", "stage 8"]


def test_quick_work_says_nothing_and_false_never_does(clock, capsys):
    assert list(tracked("abc", unit="letter")) == ["a", "b", "c"]
    for _ in tracked("abc", unit="letter", progress=False):
        clock[0] += 100
    assert capsys.readouterr().err == ""
    with Bar(1, unit="step", progress=False) as bar:
        bar.say("said")
    assert capsys.readouterr().err == "said\n"


@pytest.mark.parametrize("installed", [True, False])
def test_on_a_terminal_there_is_a_bar_where_tqdm_is(monkeypatch, installed):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    if not installed:
        monkeypatch.setitem(sys.modules, "tqdm", None)
    with Bar(3, unit="step", name="first") as bar:
        bar.update(3)
        bar.name("second")
        bar.say("a line")
    assert ("second" in terminal.getvalue() and "3/3" in terminal.getvalue()) == installed
    assert "a line\n" in terminal.getvalue()
