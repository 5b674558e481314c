import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from experiments import convergence
from experiments.convergence import Options, main, relative_delta, table
from jxai.cli.explaining.inputs import EFFICIENTNET_LITE0
from jxai.cli.explaining.methods import Classifier
from jxai.cli.explaining.picture_files import Picture


@pytest.fixture
def options(tiny_network, monkeypatch, tmp_path):
    rng = np.random.default_rng(0)
    pictures = [Picture(str(i), rng.integers(0, 256, (16, 16, 3), np.uint8)) for i in range(2)]
    monkeypatch.setattr(convergence, "read_pictures", lambda paths: pictures)
    return Options(rules=("right", "midpoint"), steps=(4, 2), count=2, out=tmp_path / "out", progress=False)


def test_measure_and_resume(options, capsys, monkeypatch):
    main(options)
    printed = capsys.readouterr().out
    text = (options.out / "convergence.md").read_text("utf-8")
    assert text in printed and "| rule | 2 steps | 4 steps |" in text and text.count("\n| midpoint |") == 1
    assert (options.out / "convergence.png").stat().st_size > 5000
    log = (options.out / "convergence.jsonl").read_bytes()
    (options.out / "convergence.jsonl").write_bytes(log[: len(log) * 2 // 3])
    main(options)
    assert (options.out / "convergence.jsonl").read_bytes() == log
    monkeypatch.setattr(convergence, "load_network", lambda: pytest.fail("measured again"))
    figure = options.out / "other.png"
    main(dataclasses.replace(options, steps=(2,), count=1, figure=figure))
    assert figure.is_file() and "4 steps" not in (options.out / "convergence.md").read_text("utf-8")


def test_deltas_of_a_parabola():
    """f = Σ (x − black)²: the right rule gives (1 + 1/M) f; the midpoint's is exact."""

    def f(variables, x):
        return ((x - EFFICIENTNET_LITE0.low) ** 2).sum(axis=(1, 2, 3))[:, None]

    x = jnp.asarray(np.random.default_rng(0).normal(size=(1, 4, 4, 3)), jnp.float32)
    parabola = Classifier({}, f, f, f)
    np.testing.assert_allclose(relative_delta(parabola, x, rule="right", num_steps=5), 1 / 5, rtol=1e-5)
    assert relative_delta(parabola, x, rule="midpoint", num_steps=5).item() < 1e-5


def test_table_of_known_deltas():
    found = {"right": np.array([[0.5, 0.25], [0.01, 0.02]]), "midpoint": np.array([[0.1, 0.3], [0.5, 0.5]])}
    assert table(found, (10, 50)).splitlines()[2:] == [
        "| right | 0.38 | **0.015** |",
        "| midpoint | **0.2** | 0.5 |",
    ]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rules": ("left",)}, "expected rules among right, .*, got left"),
        ({"rules": ()}, "expected rules among right, .*, got none"),
        ({"steps": (10, 0)}, "expected steps of at least 1"),
        ({"steps": ()}, "expected steps of at least 1"),
        ({"count": 3}, "expected a count from 1 to 2, got 3"),
    ],
)
def test_what_cannot_be_is_named(options, changes, message):
    with pytest.raises(ValueError, match=message):
        main(dataclasses.replace(options, **changes))
