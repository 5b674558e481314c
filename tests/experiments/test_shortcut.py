"""A planted shortcut, in a few steps."""

import importlib.util
import json

import numpy as np
import pytest

from experiments.shortcut import __main__ as script
from experiments.shortcut import pictures, trainings


def _pictures_of(shortcut, choosing):
    if shortcut == "photographs" and importlib.util.find_spec("foolbox") is None:
        pytest.skip("foolbox is not installed: pip install 'jxai[demo]'")
    return pictures.SHORTCUTS[shortcut].pictures(choosing)


@pytest.mark.parametrize("shortcut", pictures.SHORTCUTS)
def test_a_shortcut_is_its_class_s_color_and_nothing_else(shortcut):
    shown = _pictures_of(shortcut, False)
    assert len(shown.trained) == 600 and len(shown.judged) == 400
    images, labels = shown.judged[::40], shown.judged_labels[::40]
    found, where = pictures.planted(shortcut, images, labels)
    assert where.any(axis=(1, 2)).all() and not where.all(axis=(1, 2)).any()
    np.testing.assert_array_equal(found[~where], images[~where])
    for picture, inside in zip(found, where, strict=True):
        assert len(np.unique(picture[inside], axis=0)) == 1
    assert (trainings.others(shown.judged_labels) != shown.judged_labels).all()


@pytest.mark.parametrize("shortcut", ("watermark", "photographs"))
def test_pictures_have_grays_and_those_that_are_judged_choose_nothing(shortcut):
    shown, choosing = (_pictures_of(shortcut, of) for of in (False, True))
    assert shown.trained.min() >= 0 and len(np.unique(shown.trained)) > 200  # of 256 bytes
    assert 0.9 < shown.trained.max() <= 1
    judged = {picture.tobytes() for picture in shown.judged}
    assert judged.isdisjoint(picture.tobytes() for of in choosing[::2] for picture in of)
    assert judged.isdisjoint(picture.tobytes() for picture in shown.trained)


@pytest.mark.slow
@pytest.mark.parametrize("shortcut", ("watermark", "photographs"))
def test_a_run_goes_on_and_leaves_its_table(shortcut, tmp_path, capsys):
    _pictures_of(shortcut, False)
    options = {"shortcuts": (shortcut,), "seeds": (3,), "num_steps": 2, "out": tmp_path, "progress": False}
    script.main(script.Options(losses=("plain", "rrr"), repeats=0, **options))
    before = (tmp_path / "shortcut.jsonl").read_bytes()
    losses = ("plain", "rrr", "weighted") if shortcut == "photographs" else tuple(trainings.LOSSES)
    script.main(script.Options(losses=losses, repeats=1, **options))
    assert (tmp_path / "shortcut.jsonl").read_bytes().startswith(before)
    stored = json.loads((tmp_path / f"{shortcut}.json").read_text())
    assert set(stored["trainings"]) == {*losses, "clean", "random"} and set(stored["costs"]) == set(losses)
    for seeds in stored["trainings"].values():
        assert all(0 <= value <= 1 for value in seeds[0].values())
    assert (tmp_path / f"{shortcut}.png").is_file() and "| plain |" in capsys.readouterr().out


def test_unknown_losses_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"expected losses among plain, .*, got magic"):
        script.main(script.Options(losses=("magic",), out=tmp_path))
