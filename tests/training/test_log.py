import json
import re
from pathlib import Path

import pytest

from jxai import training


def test_lines_are_json_with_step_and_phase(tmp_path: Path) -> None:
    path = tmp_path / "run" / "metrics.jsonl"
    with training.MetricsWriter(path) as writer:
        writer.write({"loss": 0.5, "bad": float("nan")}, step=10)
        writer.write({"accuracy": 0.25}, step=10, phase="validation")
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert all(re.fullmatch("[0-9a-f]{32}", line.pop("digest")) for line in lines)
    assert lines[0] == {"step": 10, "phase": "train", "loss": 0.5, "bad": None}
    assert training.read_metrics(path, phase="validation") == [
        {"step": 10, "phase": "validation", "accuracy": 0.25}
    ]


def test_resume_drops_later_lines_and_a_torn_one(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    with training.MetricsWriter(path) as writer:
        for step in (1, 2, 3):
            writer.write({"loss": step}, step=step)
    with path.open("a") as file:
        file.write('{"step": 4, "lo')
    with training.MetricsWriter(path) as writer:
        writer.resume(2)
        writer.write({"loss": 30}, step=3)
    assert [line["loss"] for line in training.read_metrics(path)] == [1, 2, 30]


def test_a_broken_line_in_the_middle_is_named(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "phase": "train"}\noops\n{"step": 2, "phase": "train"}\n')
    with pytest.raises(ValueError, match="'oops' in line 2"):
        training.read_metrics(path)


def test_lines_that_are_not_as_they_were_written_are_named(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    with training.MetricsWriter(path) as writer:
        for step in (1, 2, 3):
            writer.write({"loss": step / 7}, step=step)
    whole = path.read_bytes()
    lines = training.read_metrics(path)
    for place in range(len(whole)):
        for other in (whole[place] ^ 1, whole[place] ^ 32, 0):
            path.write_bytes(whole[:place] + bytes([other]) + whole[place + 1 :])
            try:
                assert training.read_metrics(path) == lines[: 2 if place == len(whole) - 1 else 3]
            except ValueError as error:
                assert str(path) in str(error) and f" in line {1 + whole[:place].count(10)}: " in str(error)


def test_lines_of_earlier_versions_are_read(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text(
        '{"step": 1, "phase": "train", "loss": 0.5}\n{"step": 2, "phase": "train", "loss": 0.25}\n'
    )
    assert [line["loss"] for line in training.read_metrics(path)] == [0.5, 0.25]
    with training.MetricsWriter(path) as writer:
        writer.resume(1)
        writer.write({"loss": 7.0}, step=2)
    assert [line["loss"] for line in training.read_metrics(path)] == [0.5, 7.0]


def test_tensorboard_on_request(tmp_path: Path) -> None:
    pytest.importorskip("tensorboardX")
    with training.MetricsWriter(tmp_path / "metrics.jsonl", tensorboard=tmp_path / "events") as writer:
        writer.write({"loss": 0.5}, step=1)
    assert list((tmp_path / "events").glob("events.*"))


def test_missing_tensorboard_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "tensorboardX", None)
    with pytest.raises(ModuleNotFoundError, match=r"jxai\[tensorboard\]"):
        training.MetricsWriter(tmp_path / "metrics.jsonl", tensorboard=tmp_path / "events")
