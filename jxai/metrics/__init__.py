"""Metrics that judge heatmaps, pure and batched, to be called under `jax.jit`; `DIRECTIONS` says what is better."""

from jxai.metrics.completeness import Completeness, completeness
from jxai.metrics.concentration import complexity, sparseness
from jxai.metrics.directions import DIRECTIONS
from jxai.metrics.fidelity import infidelity
from jxai.metrics.localisation import pointing_game, relevance_mass, relevance_rank
from jxai.metrics.perturbation import aupc, perturbation_curve, perturbation_positions
from jxai.metrics.pyramid import gaussian_pyramid
from jxai.metrics.randomisation import (
    ModelRandomisation,
    model_randomisation,
    randomisation_layers,
    shuffled_parameters,
)
from jxai.metrics.removal import curve_area, deletion, insertion, pixel_flipping
from jxai.metrics.road import road
from jxai.metrics.sensitivity import maximum_sensitivity
from jxai.metrics.similarity import rank_correlation, structural_similarity
from jxai.metrics.simpson import simpson
from jxai.metrics.variation import (
    autvc,
    average_total_variation,
    multiscale_total_variation,
    normalised,
)

__all__ = [
    "DIRECTIONS",
    "Completeness",
    "ModelRandomisation",
    "aupc",
    "autvc",
    "average_total_variation",
    "completeness",
    "complexity",
    "curve_area",
    "deletion",
    "gaussian_pyramid",
    "infidelity",
    "insertion",
    "maximum_sensitivity",
    "model_randomisation",
    "multiscale_total_variation",
    "normalised",
    "perturbation_curve",
    "perturbation_positions",
    "pixel_flipping",
    "pointing_game",
    "randomisation_layers",
    "rank_correlation",
    "relevance_mass",
    "relevance_rank",
    "road",
    "shuffled_parameters",
    "simpson",
    "sparseness",
    "structural_similarity",
]
