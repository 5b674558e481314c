"""Every score says which way is better, in its docstring and in the table."""

import inspect

import pytest

from jxai import metrics

# Functions that give no score of a heatmap.
OTHERS = {
    "as_table",
    "backdoor",
    "planted",
    "poisoned",
    "randomly_masked",
    "blur_baseline",
    "curve_area",
    "evaluate",
    "gaussian_pyramid",
    "mosaics",
    "grid_segments",
    "inpainting_baseline",
    "mean_baseline",
    "noise_baseline",
    "normalized",
    "perturbation_positions",
    "randomization_layers",
    "rank_correlation",
    "shuffled_parameters",
    "simpson",
    "slic_segments",
    "structural_similarity",
}


def test_every_score_has_a_direction():
    public = {name for name in metrics.__all__ if inspect.isfunction(getattr(metrics, name))}
    assert public - OTHERS == set(metrics.DIRECTIONS)
    assert list(metrics.DIRECTIONS) == sorted(metrics.DIRECTIONS)


@pytest.mark.parametrize(("name", "direction"), metrics.DIRECTIONS.items())
def test_the_docstring_says_the_same(name, direction):
    doc = " ".join((inspect.getdoc(getattr(metrics, name)) or "").split())
    other = {"lower": "higher", "higher": "lower"}[direction]
    assert f"{direction.capitalize()} is better." in doc
    assert f"{other.capitalize()} is better." not in doc


def test_the_table_cannot_be_changed():
    with pytest.raises(TypeError):
        metrics.DIRECTIONS["aupc"] = "higher"  # type: ignore[index]
