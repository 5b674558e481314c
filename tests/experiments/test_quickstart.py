import re

import numpy as np
import pytest
from PIL import Image

from experiments.quickstart import Options, explain_photographs, main
from jxai.cli.explaining.picture_files import Picture
from jxai.cli.fewshot.pictures import draw_sheets

DOMAIN = "hebrew"


@pytest.mark.slow
def test_quickstart(tiny_quickstart, tmp_path, monkeypatch, capsys):
    options = Options(
        tmp_path, plain="relation", episodes=4, domains=("latin", DOMAIN), photographs=False, progress=False
    )
    main(options)
    printed = capsys.readouterr().out
    for system in ("relation", "relation-guided"):
        with Image.open(tmp_path / "sheets" / f"1shot-{system}-0" / f"{DOMAIN}.png") as sheet:
            assert np.asarray(sheet).std() > 10
    (run,) = (tmp_path / "runs").rglob("1shot-relation-0")
    _, of_support = draw_sheets(
        run, tmp_path / "both", domains=(DOMAIN,), rows=2, support=True, progress=False
    )
    with Image.open(of_support) as sheet:
        assert of_support.name == f"{DOMAIN}-support.png" and np.asarray(sheet).std() > 10
    table = (tmp_path / "table.md").read_text()
    assert table in printed and str(tmp_path / "sheets") in printed
    # What it shows is said as it is, with what it does not show.
    better, of, worse, undecided = map(
        int,
        re.search(
            r"better on (\d) of (\d) domains, worse on (\d), and on (\d) the 4 episodes", table
        ).groups(),
    )
    assert better + worse + undecided == of == 2 and "This is one seed" in table
    curves = tmp_path / "letters-quick" / "table-curves-1shot.png"
    assert f"Curves: {curves}\n" in printed
    assert curves.stat().st_size > 10_000
    # Again: nothing is trained or drawn.
    monkeypatch.setattr("jxai.cli.fewshot.reproduce.train", lambda run: pytest.fail("trained again"))
    monkeypatch.setattr("experiments.quickstart.draw_sheets", lambda *args, **options: pytest.fail("drawn"))
    main(options)
    assert (tmp_path / "table.md").read_text() == table and table in capsys.readouterr().out


@pytest.mark.slow
def test_quickstart_begins_with_photographs(tiny_network, tmp_path, monkeypatch, capsys):
    rng = np.random.default_rng(0)
    some = [Picture(str(i), rng.integers(0, 256, (224, 224, 3), np.uint8)) for i in range(20)]
    monkeypatch.setattr("experiments.quickstart.read_pictures", lambda paths: some)
    monkeypatch.setattr("experiments.quickstart._METHODS", ("input-x-gradient", "grad-cam"))
    folder = tmp_path / "made" / "photographs"
    explain_photographs(folder, progress=False)
    with Image.open(folder / "sheet-1.png") as sheet:
        assert sheet.height > sheet.width > 3 * 224  # four rows of three
    assert f"Photographs: file://{folder}/index.html (a page for a browser)" in capsys.readouterr().out
    monkeypatch.setattr("experiments.quickstart.load_network", lambda: pytest.fail("explained again"))
    explain_photographs(folder, progress=False)
    assert capsys.readouterr().out.count("Photographs: ") == 1


def test_quickstart_without_weights_says_so(tmp_path, monkeypatch, capsys):
    def missing(paths):
        raise FileNotFoundError("expected the twenty photographs, got none: pip install 'jxai[demo]'")

    monkeypatch.setattr("experiments.quickstart.read_pictures", missing)
    explain_photographs(tmp_path)
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
    heads = "relation, graph, cross-attention, prototype, matching, feat"
    expected = f"InputError: expected a head among {heads}, got 'nothing': choose one of them"
    assert done.stderr.strip() == expected


@pytest.mark.slow
def test_two_runs_of_the_demo_print_the_same(tiny_quickstart, tmp_path, capsys, monkeypatch):
    printed = []
    for name in ("one", "two"):
        folder = tmp_path / name
        options = Options(
            folder,
            plain="relation",
            shot=5,
            episodes=4,
            domains=("hebrew", "pictograms"),
            photographs=False,
            progress=False,
        )
        main(options)
        *lines, seconds = capsys.readouterr().out.replace(str(folder), "FOLDER").splitlines()
        assert seconds.endswith(" s")
        printed.append(lines)
    assert printed[0] == printed[1]
    rows = [line for line in printed[0] if line.startswith("| relation")]
    assert len(rows) == 2  # plain and guided
