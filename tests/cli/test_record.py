import dataclasses
import json
import os
import re

import pytest

from jxai import data, sealing, training
from jxai.cli.fewshot import evaluate, pictures, reproduce, run_record
from jxai.cli.fewshot.configs import Table
from jxai.cli.fewshot.train import Run, train
from jxai.cli.running import command_line, folders, made_with


@pytest.fixture
def short(tiny):
    """One step of training, without an encoder's."""
    return dataclasses.replace(tiny, pretraining=dataclasses.replace(tiny.pretraining, steps=0), steps=1)


@pytest.fixture
def now(monkeypatch):
    """What a start is, to be changed."""
    found = {**made_with.start(), "commit": "a" * 40, "changed": False}
    monkeypatch.setattr(made_with, "start", lambda: json.loads(json.dumps(found)))
    return found


def starts(folder):
    return json.loads((folder / "run.json").read_text())["starts"]


def test_a_start_says_what_it_computes_with(monkeypatch):
    monkeypatch.setattr("sys.argv", ["/usr/bin/jxai train", "letters/relation"])
    found = made_with.start()
    assert {"python", "jxai", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy"} == found[
        "versions"
    ].keys()
    assert all(found["versions"].values())
    assert found["cores"] == len(os.sched_getaffinity(0)) and found["xla_threads"] >= 8 and found["processor"]
    assert len(found["devices"]) == 8 and found["devices"][0].startswith("cpu")
    assert found["command"][-1] == "letters/relation" and found["platform"]
    assert json.loads(json.dumps(found)) == found


def test_the_commit_is_the_repositorys(tmp_path, monkeypatch):
    import subprocess

    script = tmp_path / "experiments" / "some.py"
    script.parent.mkdir()
    script.write_text("1\n")
    monkeypatch.setattr(made_with, "__file__", str(script))
    assert (made_with.start()["commit"], made_with.start()["changed"]) == (None, None)

    def git(*arguments):
        options = ("-c", "user.name=nobody", "-c", "user.email=nobody@nowhere")
        done = subprocess.run(
            ["git", *options, *arguments], cwd=tmp_path, check=True, capture_output=True, text=True
        )
        return done.stdout.strip()

    git("init")
    git("commit", "--allow-empty", "-m", "of somebody's work beside whose files the environment lies")
    assert made_with.start()["commit"] is None
    git("add", ".")
    git("commit", "-m", "first")
    assert (made_with.start()["commit"], made_with.start()["changed"]) == (git("rev-parse", "HEAD"), False)
    (tmp_path / "results.json").write_text("{}")  # a run writes those
    assert not made_with.start()["changed"]
    library = tmp_path / "jxai" / "other.py"
    library.parent.mkdir()
    library.write_text("")
    assert made_with.start()["changed"]
    library.unlink()
    script.write_text("2\n")
    assert made_with.start()["changed"]


@pytest.mark.slow
def test_a_run_keeps_each_start_that_differs(short, tmp_path, now, capsys):
    run_record.keep(tmp_path, short)
    run_record.keep(tmp_path, short)
    assert starts(tmp_path) == [now]
    now["versions"]["jax"] = "0.99"
    run_record.keep(tmp_path, short)
    assert [start["versions"]["jax"] for start in starts(tmp_path)][1:] == ["0.99"]
    there = json.loads((tmp_path / "run.json").read_text())["fingerprints"]
    assert there == {"latin": data.load("latin").fingerprint}
    run_record.verify(tmp_path, short)
    (line,) = capsys.readouterr().err.splitlines()
    old = starts(tmp_path)[0]["versions"]["jax"]
    assert line == f"note: {tmp_path}, start 1: jax {old} then and 0.99 now"


def test_another_commit_is_told(short, tmp_path, now, capsys):
    run_record.keep(tmp_path, short)
    run_record.verify(tmp_path, short)
    assert capsys.readouterr().err == ""
    now |= {"commit": "b" * 40, "changed": True}
    run_record.verify(tmp_path, short)
    told = f"start 1: commit {'a' * 40} then and {'b' * 40}, changed now\n"
    assert capsys.readouterr().err.endswith(told)


def test_what_changes_bits_is_told(short, tmp_path, now, capsys):
    now |= {"xla_flags": "--one", "xla_threads": 3, "processor": "old", "cores": 2}
    run_record.keep(tmp_path, short)
    now["cores"] = 1  # changes nothing by itself, but is a start
    run_record.keep(tmp_path, short)
    assert [start["cores"] for start in starts(tmp_path)] == [2, 1]
    now |= {"xla_flags": "", "xla_threads": 8, "processor": "new"}
    run_record.verify(tmp_path, short)
    told = "XLA_FLAGS '--one' then and '' now; XLA's threads 3 then and 8 now; processor 'old' then and 'new' now"
    assert capsys.readouterr().err.endswith(f"start 2: {told}\n")


def test_other_data_are_an_error_that_names_them(short, tmp_path, now):
    run_record.keep(tmp_path, dataclasses.replace(short, sources=("latin", "thai")))
    there = json.loads((tmp_path / "run.json").read_text())
    there["fingerprints"]["thai"] = "0" * 32
    del there["digest"]
    (tmp_path / "run.json").write_text(json.dumps(sealing.seal(there)))
    config = dataclasses.replace(short, sources=("latin", "thai"))
    for check in (run_record.verify, run_record.keep):
        with pytest.raises(
            ValueError, match=r"expected the data that .* was trained on, got others in thai "
        ):
            check(tmp_path, config)


def test_what_cannot_be_compared_is_told(short, tmp_path, now, capsys):
    run_record.verify(tmp_path, short)
    assert "has no run.json: what it was trained with is not known" in capsys.readouterr().err
    run_record.keep(tmp_path, short)
    run_record.verify(tmp_path, dataclasses.replace(short, sources=("nowhere",)), named=("nowhere",))
    assert "cannot be compared: expected a domain" in capsys.readouterr().err


@pytest.mark.parametrize("named", ["tfds:mnist", "CUB", "/etc", "pets", "tfds:\x1b[2Jmnist"])
@pytest.mark.parametrize("where", ["sources", "pretraining"])
def test_only_what_somebody_named_is_read(short, tmp_path, now, capsys, monkeypatch, named, where):
    run_record.keep(tmp_path, short)
    config = dataclasses.replace(short, sources=("latin", named))
    if where == "pretraining":
        pretraining = dataclasses.replace(short.pretraining, sources=(named,))
        config = dataclasses.replace(short, pretraining=pretraining)
    read = []

    def load_domain(name, *options, **more):
        read.append(name)
        return data.load("latin")

    monkeypatch.setattr(run_record, "load_domain", load_domain)
    run_record.verify(tmp_path, config, named=("hebrew", "other"))
    said = capsys.readouterr().err
    assert read == ["latin"] and "--data NAME" in said
    assert named.replace("\x1b", r"\x1b") in said and "\x1b" not in said
    with pytest.raises(ValueError, match=r"expected the data that .* was trained on"):
        run_record.verify(tmp_path, config, named=(f"./{named}" if named == "pets" else named,))
    assert read == ["latin", "latin", named]


def test_a_changed_configuration_is_told_before_anything_is_read(short, tmp_path, monkeypatch):
    path = tmp_path / "run/config.json"
    path.parent.mkdir()
    config = json.loads(json.dumps(dataclasses.asdict(short)))
    monkeypatch.setattr(training, "read_config", lambda *_, **__: config)
    for module in (run_record, evaluate):
        name = "load_domain" if module is run_record else "load_for_evaluation"
        monkeypatch.setattr(module, name, lambda *_, **__: pytest.fail("data were read"))
    for change in ({"sources": ["tfds:mnist"]}, {"sources": ["/"]}, {"short_side": 7}, {"width": 10**9}):
        path.write_text(json.dumps(config | change))
        for use in (
            lambda: evaluate.evaluate(tmp_path / "run", episodes={"inductive": 2}, domains=("latin",)),
            lambda: pictures.draw_sheets(tmp_path / "run", tmp_path / "sheets"),
            lambda: pictures.ink_table([tmp_path / "run"]),
        ):
            with pytest.raises(ValueError, match=rf"what the checkpoints .* others in {next(iter(change))}"):
                use()


@pytest.mark.parametrize(
    "text",
    [
        *("", "{", "[]", "{}", '{"starts": [], "fingerprints": {}}', "\0" * 40),
        *(json.dumps(sealing.seal({"starts": starts, "fingerprints": {}})) for starts in (1, [1])),
        json.dumps(sealing.seal({"starts": [], "fingerprints": {"latin": "1"}})).replace('"1"', '"2"'),
    ],
)
def test_a_damaged_record_is_named(short, tmp_path, text):
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(ValueError, match=r"expected the record of a run in .*run\.json, got .*: remove"):
        run_record.verify(tmp_path, short)


def test_a_file_is_written_whole_or_not_at_all(tmp_path):
    def half(file):
        file.write(b"2")
        raise OSError(28, "No space left on device")

    folders.write_whole(tmp_path / "a.json", "1\n")
    with pytest.raises(OSError, match=r"expected to write .*a\.json, got .*: give a folder that can be"):
        folders.write_whole(tmp_path / "a.json", half)
    assert (tmp_path / "a.json").read_text() == "1\n"
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_one_process_writes_in_a_folder(tmp_path):
    place = tmp_path / "a" / "b"
    message = r"expected a folder that nobody writes, got .*b, in use by process \d+ on .*: wait or"
    with folders.in_use(place), pytest.raises(BlockingIOError, match=message), folders.in_use(place):
        pytest.fail("two at once")
    with folders.in_use(place):
        pass
    (tmp_path / "file").write_text("")
    cannot = pytest.raises(OSError, match=r"expected to write .*file, got .*: give a folder")
    with cannot, folders.in_use(tmp_path / "file"):
        pytest.fail("no folder")


def test_a_full_disk_ends_a_script_with_one_line(tmp_path, capsys):
    def full():
        folders.write_whole(tmp_path / "nowhere" / "a.json", "")

    with pytest.raises(SystemExit) as ended:
        command_line.guarded(full)
    said = capsys.readouterr().err
    assert ended.value.code == 2 and said.startswith("OSError: expected to write ") and said.count("\n") == 1

    def other():
        raise OSError(28, "No space left on device")

    with pytest.raises(SystemExit) as ended:
        command_line.guarded(other)
    assert ended.value.code == 2
    assert capsys.readouterr().err == "OSError: [Errno 28] No space left on device\n"


def test_results_are_read_if_they_are_as_they_were_written(short, tmp_path, capsys):
    table = Table("tiny", {"relation": short}, targets=("hebrew",), episodes=2, shots=(short.shot,))
    options = reproduce.Options("tiny", runs=tmp_path, results=tmp_path, progress=False)
    (job,) = reproduce.jobs(table, options)
    result = {
        "config": json.loads(json.dumps(dataclasses.asdict(job.config))),
        "inductive": {"hebrew": {"correct": [1, 2]}},
    }
    job.result(options).parent.mkdir()
    for more in ({}, {"made_with": {}}):
        job.result(options).write_text(json.dumps(sealing.seal(result | more)))
        assert reproduce.finished_result(job, table, options) == result | more
    whole = job.result(options).read_bytes()
    assert capsys.readouterr().err == ""
    for damaged in (b"", whole[:-9], bytes(len(whole)), whole.replace(b"[1, 2]", b"[1, 3]"), b"[1]", b"{}"):
        job.result(options).write_bytes(damaged)
        assert reproduce.finished_result(job, table, options) is None
        assert re.match(
            r"note: .*\.json is damaged \(.*\): this run is judged anew\n$", capsys.readouterr().err
        )


@pytest.mark.slow
def test_a_run_leaves_its_record_and_a_result_carries_it(short, tmp_path, capsys):
    train(Run(short, tmp_path / "run", progress=False))
    (start,) = starts(tmp_path / "run")
    assert start == json.loads(json.dumps(made_with.start()))
    table = Table("tiny", {"relation": short}, targets=("hebrew",), episodes=2, shots=(short.shot,))
    options = reproduce.Options("tiny", runs=tmp_path / "runs", results=tmp_path, progress=False)
    reproduce.reproduce(table, options)
    said = [line for line in capsys.readouterr().err.splitlines() if " idle; " not in line]
    assert not said  # the same versions, commit and data
    (job,) = reproduce.jobs(table, options)
    told = json.loads(job.result(options).read_text())["made_with"]
    assert told == {**start, "fingerprints": run_record.fingerprints(short, ("hebrew",))}
    # Another configuration than the checkpoint's, or what is left of one, ends the evaluation.
    folder = job.folder(options)
    config = (folder / "config.json").read_text()
    (folder / "config.json").write_text(config.replace('"queries": ', '"queries": 1'))
    with pytest.raises(
        ValueError, match=r"expected in .*config\.json what .*, got others in queries: change"
    ):
        reproduce.evaluate(folder, episodes={"inductive": 2}, domains=("hebrew",))
    for text in ("", config[:40], "[1]", "\udcff"):
        (folder / "config.json").write_text(text, errors="surrogateescape")
        with pytest.raises(ValueError, match=r"expected the configuration of a run in .*config\.json, got "):
            reproduce.evaluate(folder, episodes={"inductive": 2}, domains=("hebrew",))
    (folder / "config.json").write_text(config)
    # So does a flipped bit in what is evaluated.
    (arrays, *_) = sorted(
        (job.folder(options) / "episodes").rglob("ocdbt.process_0/d/*"), key=lambda path: -path.stat().st_size
    )
    content = bytearray(arrays.read_bytes())
    content[len(content) // 2] ^= 1
    arrays.write_bytes(content)
    with pytest.raises(training.DamagedCheckpointError, match="no other one there is whole"):
        reproduce.evaluate(job.folder(options), episodes={"inductive": 2}, domains=("hebrew",))
