import sys

import pytest

from jxai import data
from jxai.cli.fewshot import prepare
from jxai.cli.running import command_line


def test_prints_classes_pictures_and_fingerprint(small_cub, capsys):
    _, place = small_cub
    prepare.main(prepare.Options("CUB", manual_dir=place, progress=False))
    printed = capsys.readouterr().out
    assert "all              4 classes        12 pictures" in printed
    assert "novel            1 classes         3 pictures" in printed
    assert f"fingerprint {data.load('CUB').fingerprint}" in printed and "left out" not in printed


def test_prints_which_pictures_were_left_out(small_cub, capsys):
    small, place = small_cub
    (place / small.classes["002.Laysan_Albatross"][1]).write_bytes(b"no picture")
    prepare.main(prepare.Options("CUB", skip_corrupt=True, progress=False))
    printed = capsys.readouterr().out
    assert (
        f"left out, for they cannot be decoded: 1 pictures\n    {small.classes['002.Laysan_Albatross'][1]}"
        in printed
    )


def test_says_in_one_line_what_is_missing(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("JXAI_DATA", str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["prepare.py", "CUB"])
    with pytest.raises(SystemExit) as ended:
        command_line.run(prepare.main, prepare.Options)
    said = capsys.readouterr().err
    assert ended.value.code == 2 and data.PAPER_DOMAINS["CUB"].needs in said and said.count("\n") == 1
