"""Metrics that judge heatmaps and relevance of tokens, pure and batched; `DIRECTIONS` says what is better."""

from jxai.metrics.case import Case
from jxai.metrics.completeness import Completeness, completeness
from jxai.metrics.concentration import complexity, sparseness
from jxai.metrics.directions import DIRECTIONS
from jxai.metrics.evaluation import Evaluation, evaluate
from jxai.metrics.fidelity import infidelity
from jxai.metrics.localization import pointing_game, relevance_mass, relevance_rank
from jxai.metrics.perturbation import aupc, perturbation_curve, perturbation_positions
from jxai.metrics.pyramid import gaussian_pyramid
from jxai.metrics.randomization import (
    ModelRandomization,
    model_randomization,
    randomization_layers,
    shuffled_parameters,
)
from jxai.metrics.removal import curve_area, deletion, insertion, pixel_flipping
from jxai.metrics.road import road
from jxai.metrics.sensitivity import maximum_sensitivity
from jxai.metrics.similarity import rank_correlation, structural_similarity
from jxai.metrics.simpson import simpson
from jxai.metrics.soft_tokens import soft_comprehensiveness, soft_sufficiency
from jxai.metrics.tokens import comprehensiveness, sufficiency, token_deletion, token_insertion
from jxai.metrics.variation import (
    autvc,
    average_total_variation,
    multiscale_total_variation,
    normalized,
)

__all__ = [
    "DIRECTIONS",
    "Case",
    "Completeness",
    "Evaluation",
    "ModelRandomization",
    "aupc",
    "autvc",
    "average_total_variation",
    "completeness",
    "complexity",
    "comprehensiveness",
    "curve_area",
    "deletion",
    "evaluate",
    "gaussian_pyramid",
    "infidelity",
    "insertion",
    "maximum_sensitivity",
    "model_randomization",
    "multiscale_total_variation",
    "normalized",
    "perturbation_curve",
    "perturbation_positions",
    "pixel_flipping",
    "pointing_game",
    "randomization_layers",
    "rank_correlation",
    "relevance_mass",
    "relevance_rank",
    "road",
    "shuffled_parameters",
    "simpson",
    "soft_comprehensiveness",
    "soft_sufficiency",
    "sparseness",
    "structural_similarity",
    "sufficiency",
    "token_deletion",
    "token_insertion",
]
