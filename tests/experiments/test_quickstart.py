import numpy as np
import pytest
from PIL import Image

from experiments.quickstart import Options, draw_photographs, main
from jxai.cli.explaining.picture_files import Picture

DOMAIN = "hebrew"


def test_quickstart(tiny_quickstart, tmp_path, monkeypatch, capsys):
    options = Options(folder=tmp_path, episodes=4, domains=(DOMAIN,), photographs=False, progress=False)
    main(options)
    printed = capsys.readouterr().out
    assert printed.count(f"| {DOMAIN}") == 3  # two settings' accuracies, ink
    for system in ("relation", "relation-guided"):
        with Image.open(tmp_path / "sheets" / f"5shot-{system}-0" / f"{DOMAIN}.png") as sheet:
            assert np.asarray(sheet).std() > 10
    table = (tmp_path / "table.md").read_text()
    assert table in printed
    assert str(tmp_path / "sheets") in printed
    curves = tmp_path / "letters-quick" / "table-curves-5shot.png"
    assert f"curves: {curves}\n" in printed
    assert curves.stat().st_size > 10_000
    # Again: nothing is trained, and what is drawn and measured of what is there takes the test's time.
    monkeypatch.setattr("jxai.cli.fewshot.reproduce.train", lambda run: pytest.fail("trained again"))
    monkeypatch.setattr("experiments.quickstart.draw_sheets", lambda *args, **options: None)
    ink = table.split("(5-shot):\n\n")[1].removesuffix("\n")
    monkeypatch.setattr("experiments.quickstart.ink_table", lambda *args, **options: ink)
    main(options)
    assert (tmp_path / "table.md").read_text() == table and table in capsys.readouterr().out


def test_quickstart_ends_with_photographs(tiny_network, tmp_path, monkeypatch, capsys):
    rng = np.random.default_rng(0)
    some = [Picture(str(i), rng.integers(0, 256, (224, 224, 3), np.uint8)) for i in range(20)]
    monkeypatch.setattr("experiments.quickstart.read_pictures", lambda paths: some)
    monkeypatch.setattr("experiments.quickstart._METHODS", ("input-x-gradient", "grad-cam"))
    path = tmp_path / "photographs.png"
    draw_photographs(path, progress=False)
    with Image.open(path) as sheet:
        assert sheet.height > sheet.width > 3 * 224  # four rows of three
    monkeypatch.setattr("experiments.quickstart.load_network", lambda: pytest.fail("explained again"))
    draw_photographs(path, progress=False)
    assert capsys.readouterr().out == 2 * f"photographs: {path}\n"


def test_quickstart_without_weights_says_so(tmp_path, monkeypatch, capsys):
    def missing(paths):
        raise FileNotFoundError("expected the twenty photographs, got none: pip install 'jxai[demo]'")

    monkeypatch.setattr("experiments.quickstart.read_pictures", missing)
    draw_photographs(tmp_path / "photographs.png")
    assert "no photographs: expected the twenty photographs" in capsys.readouterr().out


@pytest.mark.slow
def test_wrong_input_ends_with_one_line(tmp_path):
    import subprocess
    import sys

    command = [
        *(sys.executable, "-P", "-m", "jxai.cli", "train"),
        "letters/relation",
        "--folder",
        str(tmp_path / "run"),
        "--config.head",
        "nothing",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    heads = "relation, graph, cross-attention, prototype, matching"
    expected = f"ValueError: expected a head among {heads}, got 'nothing': choose one of them"
    assert done.stderr.strip() == expected
