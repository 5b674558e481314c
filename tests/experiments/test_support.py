"""The experiment on relevance of the support: a tiny run, and what it leaves."""

import json

import numpy as np
import pytest
from PIL import Image

from experiments.support import HEADS, Options, main, table


def test_the_table_has_a_row_a_training_and_intervals_of_shares():
    numbers = {"accuracy": [0.5, 0.7], "share": [0.4, 0.4]}
    names = ("support", "query", "rest", "own", "contrast", "contrast_own", "contrast_rival")
    lines = table({"matching, 1-shot": numbers | {key: [0.1, 0.3] for key in names}}).splitlines()
    assert len(lines) == 3 and lines[2].startswith("| matching, 1-shot | 0.60 | 0.20 |")
    assert "| 0.40 ± 0.00 |" in lines[2] and len({line.count("|") for line in lines}) == 1


@pytest.mark.long
def test_support(tmp_path, capsys):
    options = Options(
        heads=("prototype", "adapted"),
        shots=(1,),
        num_steps=1,
        num_episodes=1,
        domains=("hebrew",),
        out=tmp_path,
    )
    main(options)
    main(options)  # what is done is not done again
    found = json.loads((tmp_path / "support.json").read_text())["found"]
    for name in options.heads:
        of = found[f"{name}, 1-shot"]
        assert np.isclose(of["support"][0] + of["query"][0] + of["rest"][0], 1, atol=1e-3)
        with Image.open(tmp_path / f"{name}-1shot-hebrew.png") as sheet:
            assert np.asarray(sheet).std() > 10
    assert (tmp_path / "support.md").read_text() in capsys.readouterr().out
    with pytest.raises(ValueError, match="heads among relation"):
        main(Options(heads=("none",), out=tmp_path))
    assert set(options.heads) <= set(HEADS)
