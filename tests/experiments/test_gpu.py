"""The measurement of an accelerator: tiny on a CPU, without what lent machines lack; cut off, failing, resumed."""

import json
import math
import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest

from experiments.benchmarks import gpu
from experiments.benchmarks.sections import SECTIONS, row
from experiments.benchmarks.sections.table import DONE, reached, table

# What machines that lend accelerators lack (docs/pods.md); no section needs it.
LACKING = ("array_record", "grain", "tensorflow_datasets", "tyro")

# In the place of the driver's processes: a card that nobody has, and a section as its name wants it.
FAKE = """
import json, os, signal, sys, time
from pathlib import Path
arguments = sys.argv[1:]
if "--machine" in arguments:
    print(json.dumps({"platform": os.environ["FAKE_PLATFORM"], "device": "Fake", "card": "Fake 80GB", "jax": "0"}))
    sys.exit()
name, path = arguments[1], Path(arguments[3])
report = json.loads(path.read_text())
report |= {"machine": {"device": "Fake", "card": "Fake 80GB", "driver": "1.2", "jax": "0.11.2"}}
row = {"name": f"speed of {name}", "value": 2.0, "unit": "s", "goal": None, "precision": None, "part": "one"}
report["results"] = [row]
report["parts"] = {"one": "done", "two": "cut off"}
path.write_text(json.dumps(report))
with (path.parent / "started").open("a") as file:
    file.write(f"{name} {os.getpid()}\\n")
if name == "guided":
    time.sleep(60)
if name == "lrp":
    os.kill(os.getpid(), signal.SIGKILL)
if name == "attribution":
    raise MemoryError("no more of it")
report["parts"]["two"] = "done"
path.write_text(json.dumps(report))
"""


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """The driver with processes of `FAKE`; the folder of the card's results."""
    script = tmp_path / "fake.py"
    script.write_text(FAKE)
    monkeypatch.setattr(gpu, "child", lambda *arguments: [sys.executable, str(script), *arguments])
    monkeypatch.setattr(gpu, "STORED", tmp_path / "stored")
    monkeypatch.setattr(gpu, "_LEAST_SECONDS", 0.5)
    monkeypatch.setenv("FAKE_PLATFORM", "gpu")
    short = {name: gpu.dataclasses.replace(section, seconds=2) for name, section in SECTIONS.items()}
    monkeypatch.setattr(gpu, "SECTIONS", short)
    return tmp_path / "stored" / "fake-80gb"


def report_of(folder, name):
    return json.loads((folder / f"{name}.json").read_text())


def started(folder):
    return [line.split()[0] for line in (folder / "started").read_text().splitlines()]


@pytest.mark.slow
def test_what_is_cut_off_killed_or_fails_leaves_the_others_alone(fake, capfd):
    only = ("right", "guided", "lrp", "attribution", "growth")
    with pytest.raises(SystemExit, match="the lines below the tables of guided, lrp, attribution"):
        gpu.main(gpu.Options(only=only, minutes=0.1))
    # What was cut off has what the others left.
    assert started(fake) == [*only, "guided"]
    assert "ended" not in report_of(fake, "growth")
    ended = {name: report_of(fake, name)["ended"] for name in ("guided", "lrp", "attribution")}
    assert ended["guided"].startswith("cut off after")
    assert ended["lrp"] == "ended with SIGKILL: no message"
    assert ended["attribution"] == "ended with status 1: MemoryError: no more of it"
    printed = capfd.readouterr().out
    assert printed.rstrip().endswith((fake / "table.md").read_text().rstrip())
    assert "Fake 80GB, driver 1.2, jax 0.11.2" in printed
    for name in ended:  # the rows before the end are kept
        assert f"| speed of {name} | 2 s |" in printed
        assert f"- {ended[name]}" in printed


def test_what_is_stored_is_not_run_again_unless_the_code_changed(fake, tmp_path, monkeypatch):
    only = ("right", "growth")
    run = gpu.Options(only=only, minutes=0.2)
    gpu.main(run)
    gpu.main(run)
    assert started(fake) == list(only)
    # A folder of its own begins with what is stored.
    gpu.main(gpu.dataclasses.replace(run, results=tmp_path / "other"))
    assert not (tmp_path / "other" / "fake-80gb" / "started").exists()
    assert (tmp_path / "other" / "fake-80gb" / "right.json").exists()
    gpu.main(gpu.dataclasses.replace(run, only=("right",), again=True))
    assert started(fake) == [*only, "right"]
    monkeypatch.setattr(gpu, "code_digest", lambda: "changed")
    assert "measured with older code" in table(fake, gpu.code_digest())
    gpu.main(gpu.dataclasses.replace(run, older=True))
    assert started(fake) == [*only, "right"]
    gpu.main(run)
    assert started(fake) == [*only, "right", *only]


def test_without_time_a_section_is_named(fake):
    with pytest.raises(SystemExit, match="right, growth"):
        gpu.main(gpu.Options(only=("right", "growth"), minutes=0.0))
    assert report_of(fake, "right")["ended"] == "no time left"
    assert "- no time left" in (fake / "table.md").read_text()


def test_without_an_accelerator_it_says_so_and_offers_the_dry_run(fake, monkeypatch):
    monkeypatch.setenv("FAKE_PLATFORM", "cpu")
    with pytest.raises(SystemExit, match=r"expected an accelerator, got Fake alone .* or with --dry"):
        gpu.main(gpu.Options())
    assert not fake.exists()
    gpu.main(gpu.Options(only=("right", "growth"), dry=True))
    assert not fake.exists()  # nothing is kept


def test_wrong_names_and_empty_folders(tmp_path):
    with pytest.raises(SystemExit, match=r"expected sections among right, .*, got speed: choose of these"):
        gpu.main(gpu.Options(only=("speed",)))
    with pytest.raises(SystemExit, match=r"expected results below .*, got none: run gpu.py first"):
        gpu.main(gpu.Options(table=True, results=tmp_path))


def test_a_driver_that_is_ended_ends_its_section(fake, tmp_path):
    script = tmp_path / "driver.py"
    script.write_text(
        textwrap.dedent(
            f"""
            import sys
            sys.path.insert(0, {str(gpu.ROOT)!r})
            from experiments.benchmarks import gpu
            from pathlib import Path
            gpu.child = lambda *arguments: [sys.executable, {str(tmp_path / "fake.py")!r}, *arguments]
            gpu.main(gpu.Options(only=("guided",), results=Path({str(tmp_path / "own")!r})))
            """
        )
    )
    driver = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.DEVNULL)
    told = tmp_path / "own" / "fake-80gb" / "started"
    try:
        end = time.monotonic() + 60
        while not told.exists() or not told.read_text().endswith("\n"):
            assert time.monotonic() < end
            time.sleep(0.05)
        driver.send_signal(signal.SIGTERM)
        assert driver.wait(30) == 128 + signal.SIGTERM
    finally:
        driver.kill()
        driver.wait()
    section = int(told.read_text().split()[1])
    with pytest.raises(ProcessLookupError):
        os.kill(section, 0)


# A section's process.


@pytest.fixture
def measured(tmp_path, monkeypatch):
    """Function of fake parts: the report after them, which goes on where the last one ended."""
    path = tmp_path / "right.json"
    path.write_text(json.dumps({"section": "right", "code": "1", "parts": {}, "seconds": {}, "results": []}))

    def run(parts):
        monkeypatch.setattr(gpu, "parts", lambda name, dry: parts)
        monkeypatch.setattr(gpu, "machine", lambda: {"device": "cpu", "jax": "0"})
        gpu.measure("right", path, dry=True)
        return json.loads(path.read_text())

    return run


def test_a_part_that_fails_or_lacks_its_rival_is_named_and_run_again(measured):
    calls = []

    def full():
        yield row("before", 1.0)
        raise RuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 80 GB")

    def lacking():
        import a_rival_that_nobody_has  # noqa: F401  # pyright: ignore[reportMissingImports]

    def well(name):
        calls.append(name)
        yield row(name, 2.0, "s", rival=("torch", 3.0), goal="at least 1.3")

    parts = {"full": full, "lacking": lacking, "well": lambda: well("well")}
    report = measured(parts)
    assert report["machine"] == {"device": "cpu", "jax": "0"}
    assert report["parts"]["full"].startswith("failed: RuntimeError: RESOURCE_EXHAUSTED")
    assert report["parts"]["lacking"] == "skipped: a_rival_that_nobody_has is not installed"
    assert report["parts"]["well"] == DONE
    assert [one["name"] for one in report["results"]] == ["before", "well"]
    # Once more: what is done is kept, the others run, a part that is no more goes.
    report = measured({"full": lambda: well("again"), "well": parts["well"]})
    assert calls == ["well", "again"]
    assert report["parts"] == {"full": DONE, "well": DONE}
    assert [one["name"] for one in report["results"]] == ["well", "again"]


def test_a_number_that_is_none_reaches_no_goal(measured):
    report = measured(
        {"one": lambda: iter([row("error", math.nan, goal="at most 1"), row("time", math.inf, "s")])}
    )
    error, seconds = report["results"]
    assert error["value"] is None and seconds["value"] is None
    assert reached(error) is False
    assert reached(seconds) is None


def test_goals_are_of_the_ratio_where_there_is_a_rival(tmp_path):
    rows = [
        row("LRP", 0.02, "s", rival=("zennit", 0.05), goal="at least 2", precision="float32"),
        row("LRP", 0.02, "s", rival=("gradient", 0.01), goal="at most 1.8"),
        row("error", 3e-5, goal="at most 1e-4"),
        row("memory", 2.0, "GB", rival=("torch", 3.0)),
        row("curve", 0.5, "s an image"),
    ]
    report = {
        "code": "1",
        "machine": {"device": "H100", "driver": "580.1", "jax": "0.11.2", "torch": "2.11"},
        "parts": {"one": DONE, "two": "skipped: zennit is not installed"},
        "results": rows,
    }
    (tmp_path / "lrp.json").write_text(json.dumps(report))
    assert table(tmp_path, "1").splitlines() == [
        f"2 of 3 goals reached on {tmp_path.name}.",
        "",
        "**LRP** (H100, driver 580.1, jax 0.11.2, torch 2.11, code 1)",
        "",
        "| what | measured | rival, same run | times | goal | reached |",
        "| --- | ---: | ---: | ---: | --- | --- |",
        "| LRP (float32) | 20 ms | zennit 50 ms | 2.50 | at least 2 | yes |",
        "| LRP | 20 ms | gradient 10 ms | 2.00 | at most 1.8 | **no** |",
        "| error | 3e-05 |  |  | at most 1e-4 | yes |",
        "| memory | 2 GB | torch 3 GB |  |  |  |",
        "| curve | 500 ms an image |  |  |  |  |",
        "",
        "- two: skipped: zennit is not installed",
    ]


# All of it, tiny.


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_dry_run_without_what_lent_machines_lack(tmp_path, monkeypatch):
    for rival in ("torch", "captum", "zennit"):
        pytest.importorskip(rival)
    blocks = "\n".join(f"sys.modules[{name!r}] = None" for name in LACKING)
    (tmp_path / "sitecustomize.py").write_text(f"import sys\n{blocks}\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    command = [sys.executable, "-m", gpu.__name__, "--dry", "--results", str(tmp_path), "--minutes", "25"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    for name in SECTIONS:
        report = report_of(tmp_path / "cpu", name)
        assert report["parts"] and set(report["parts"].values()) == {DONE}, report["parts"]
        assert report["results"]
    errors = [one for one in report_of(tmp_path / "cpu", "right")["results"] if one["goal"] is not None]
    assert len(errors) >= 14
    assert all(reached(one) for one in errors), errors
    assert any(one["name"].startswith("golden smooth_taylor") for one in errors)
