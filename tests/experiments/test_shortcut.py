"""A planted shortcut, in a few steps."""

import json

import numpy as np
import pytest

from experiments.shortcut import __main__ as script
from experiments.shortcut import pictures, trainings


@pytest.mark.parametrize("shortcut", pictures.SHORTCUTS)
def test_a_shortcut_is_its_class_s_color_and_nothing_else(shortcut):
    shown = pictures.clothes()
    assert shown.trained.shape == (600, 28, 28, 3) and shown.judged.shape == (400, 28, 28, 3)
    images, labels = shown.judged[::40], shown.judged_labels[::40]
    found, where = pictures.planted(shortcut, images, labels)
    assert where.any(axis=(1, 2)).all() and not where.all(axis=(1, 2)).any()
    np.testing.assert_array_equal(found[~where], images[~where])
    for picture, inside in zip(found, where, strict=True):
        assert len(np.unique(picture[inside], axis=0)) == 1
    assert (trainings.others(shown.judged_labels) != shown.judged_labels).all()


@pytest.mark.slow
def test_a_run_goes_on_and_leaves_its_table(tmp_path, capsys):
    options = {
        "shortcuts": ("watermark",),
        "num_seeds": 1,
        "num_steps": 2,
        "out": tmp_path,
        "progress": False,
    }
    script.main(script.Options(losses=("plain", "rrr"), repeats=0, **options))
    before = (tmp_path / "shortcut.jsonl").read_bytes()
    script.main(script.Options(repeats=1, **options))
    assert (tmp_path / "shortcut.jsonl").read_bytes().startswith(before)
    stored = json.loads((tmp_path / "shortcut.json").read_text())
    assert set(stored["trainings"]["watermark"]) == {*trainings.LOSSES, "clean"}
    assert set(stored["costs"]) == set(trainings.LOSSES)
    for seeds in stored["trainings"]["watermark"].values():
        assert all(0 <= value <= 1 for value in seeds[0].values())
    assert (tmp_path / "shortcut.png").is_file() and "| plain |" in capsys.readouterr().out


def test_unknown_losses_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"expected losses among plain, .*, got magic"):
        script.main(script.Options(losses=("magic",), out=tmp_path))
