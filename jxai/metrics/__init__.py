"""Metrics that judge heatmaps and relevance of tokens, pure and batched; `DIRECTIONS` says what is better."""

from jxai.metrics.axioms import input_invariance, non_sensitivity
from jxai.metrics.backdoors import Backdoor, Poisoned, backdoor, planted, poisoned, trigger_recovery
from jxai.metrics.baselines import blur_baseline, inpainting_baseline, mean_baseline, noise_baseline
from jxai.metrics.case import Case
from jxai.metrics.completeness import Completeness, completeness
from jxai.metrics.concentration import complexity, effective_pixels, sparseness
from jxai.metrics.consistency import consistency, local_sufficiency
from jxai.metrics.continuity import continuity
from jxai.metrics.directions import DIRECTIONS
from jxai.metrics.effective import effective_complexity
from jxai.metrics.evaluated import Evaluation
from jxai.metrics.evaluation import evaluate
from jxai.metrics.f_fidelity import FFidelity, f_fidelity, randomly_masked
from jxai.metrics.faithfulness import faithfulness_correlation, faithfulness_estimate, sensitivity_n
from jxai.metrics.fidelity import infidelity
from jxai.metrics.localization import (
    attribution_localization,
    localization_auc,
    pointing_game,
    relevance_mass,
    relevance_rank,
    top_k_intersection,
)
from jxai.metrics.monotonicity import monotonicity, monotonicity_correlation
from jxai.metrics.mosaics import Mosaics, focus, mosaics
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
from jxai.metrics.sanity import efficient_model_randomization, random_logit, smooth_model_randomization
from jxai.metrics.segments import grid_segments, slic_segments
from jxai.metrics.sensitivity import average_sensitivity, local_lipschitz_estimate, maximum_sensitivity
from jxai.metrics.similarity import rank_correlation, structural_similarity
from jxai.metrics.simpson import simpson
from jxai.metrics.soft_tokens import soft_comprehensiveness, soft_sufficiency
from jxai.metrics.stability import (
    relative_input_stability,
    relative_output_stability,
    relative_representation_stability,
)
from jxai.metrics.tokens import comprehensiveness, sufficiency, token_deletion, token_insertion
from jxai.metrics.trees import Table, as_table
from jxai.metrics.variation import autvc, average_total_variation, multiscale_total_variation, normalized

__all__ = [
    "DIRECTIONS",
    "Backdoor",
    "Case",
    "Completeness",
    "Evaluation",
    "FFidelity",
    "ModelRandomization",
    "Mosaics",
    "Poisoned",
    "Table",
    "as_table",
    "attribution_localization",
    "aupc",
    "autvc",
    "average_sensitivity",
    "average_total_variation",
    "backdoor",
    "blur_baseline",
    "completeness",
    "complexity",
    "comprehensiveness",
    "consistency",
    "continuity",
    "curve_area",
    "deletion",
    "effective_complexity",
    "effective_pixels",
    "efficient_model_randomization",
    "evaluate",
    "f_fidelity",
    "faithfulness_correlation",
    "faithfulness_estimate",
    "focus",
    "gaussian_pyramid",
    "grid_segments",
    "infidelity",
    "inpainting_baseline",
    "input_invariance",
    "insertion",
    "irof",
    "local_lipschitz_estimate",
    "local_sufficiency",
    "localization_auc",
    "maximum_sensitivity",
    "mean_baseline",
    "model_randomization",
    "monotonicity",
    "monotonicity_correlation",
    "mosaics",
    "multiscale_total_variation",
    "noise_baseline",
    "non_sensitivity",
    "normalized",
    "perturbation_curve",
    "perturbation_positions",
    "pixel_flipping",
    "planted",
    "pointing_game",
    "poisoned",
    "random_logit",
    "randomization_layers",
    "randomly_masked",
    "rank_correlation",
    "region_perturbation",
    "relative_input_stability",
    "relative_output_stability",
    "relative_representation_stability",
    "relevance_mass",
    "relevance_rank",
    "road",
    "selectivity",
    "sensitivity_n",
    "shuffled_parameters",
    "simpson",
    "slic_segments",
    "smooth_model_randomization",
    "soft_comprehensiveness",
    "soft_sufficiency",
    "sparseness",
    "structural_similarity",
    "sufficiency",
    "token_deletion",
    "token_insertion",
    "top_k_intersection",
    "trigger_recovery",
]
