"""Metrics that judge heatmaps and relevance of tokens, pure and batched; `DIRECTIONS` says what is better."""

from jxai.metrics.baselines import blur_baseline, inpainting_baseline, mean_baseline, noise_baseline
from jxai.metrics.completeness import Completeness, completeness
from jxai.metrics.concentration import complexity, sparseness
from jxai.metrics.directions import DIRECTIONS
from jxai.metrics.faithfulness import faithfulness_correlation, faithfulness_estimate, sensitivity_n
from jxai.metrics.fidelity import infidelity
from jxai.metrics.localization import pointing_game, relevance_mass, relevance_rank
from jxai.metrics.monotonicity import monotonicity, monotonicity_correlation
from jxai.metrics.perturbation import aupc, perturbation_curve, perturbation_positions
from jxai.metrics.pyramid import gaussian_pyramid
from jxai.metrics.randomization import (
    ModelRandomization,
    model_randomization,
    randomization_layers,
    shuffled_parameters,
)
from jxai.metrics.regions import irof, region_perturbation, selectivity
from jxai.metrics.removal import curve_area, deletion, insertion, pixel_flipping
from jxai.metrics.road import road
from jxai.metrics.segments import grid_segments, slic_segments
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
    "Completeness",
    "ModelRandomization",
    "aupc",
    "autvc",
    "average_total_variation",
    "blur_baseline",
    "completeness",
    "complexity",
    "comprehensiveness",
    "curve_area",
    "deletion",
    "faithfulness_correlation",
    "faithfulness_estimate",
    "gaussian_pyramid",
    "grid_segments",
    "infidelity",
    "inpainting_baseline",
    "insertion",
    "irof",
    "maximum_sensitivity",
    "mean_baseline",
    "model_randomization",
    "monotonicity",
    "monotonicity_correlation",
    "multiscale_total_variation",
    "noise_baseline",
    "normalized",
    "perturbation_curve",
    "perturbation_positions",
    "pixel_flipping",
    "pointing_game",
    "randomization_layers",
    "rank_correlation",
    "region_perturbation",
    "relevance_mass",
    "relevance_rank",
    "road",
    "selectivity",
    "sensitivity_n",
    "shuffled_parameters",
    "simpson",
    "slic_segments",
    "soft_comprehensiveness",
    "soft_sufficiency",
    "sparseness",
    "structural_similarity",
    "sufficiency",
    "token_deletion",
    "token_insertion",
]
