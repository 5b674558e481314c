import numpy as np
import pytest
from PIL import Image

from quickstart import Options, main

DOMAINS = ("hebrew", "pictograms")


def test_quickstart(tiny_quickstart, tmp_path, capsys):
    options = Options(folder=tmp_path, episodes=4, domains=DOMAINS, progress=False)
    main(options)
    printed = capsys.readouterr().out
    for domain in DOMAINS:
        assert printed.count(f"| {domain}") == 2  # accuracies, ink
        for system in ("plain", "guided"):
            with Image.open(tmp_path / "sheets" / f"5shot-{system}-0" / f"{domain}.png") as sheet:
                assert np.asarray(sheet).std() > 10
    assert (tmp_path / "table.md").read_text() in printed
    assert str(tmp_path / "sheets") in printed
    main(options)
    assert (tmp_path / "table.md").read_text() in capsys.readouterr().out


@pytest.mark.slow
def test_wrong_input_ends_with_one_line(tmp_path):
    import subprocess
    import sys
    from pathlib import Path

    script = Path(__file__).parents[2] / "experiments" / "train.py"
    command = [
        sys.executable,
        str(script),
        "latin",
        "--folder",
        str(tmp_path / "run"),
        "--config.head",
        "nothing",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert (
        done.stderr.strip() == "ValueError: expected a head among relation, got 'nothing': choose one of them"
    )
