"""Which way is better, for every score of this package."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal

# By the function's name. `road` with `most_relevant_first=False` is the other way round, and so is
# `region_perturbation` with `order="least_relevant"`.
DIRECTIONS: Mapping[str, Literal["higher", "lower"]] = MappingProxyType(
    {
        "attribution_localization": "higher",
        "aupc": "lower",
        "autvc": "lower",
        "average_sensitivity": "lower",
        "average_total_variation": "lower",
        "completeness": "lower",
        "complexity": "lower",
        "comprehensiveness": "higher",
        "consistency": "higher",
        "continuity": "lower",
        "deletion": "lower",
        "effective_complexity": "lower",
        "effective_pixels": "lower",
        "efficient_model_randomization": "higher",
        "faithfulness_correlation": "higher",
        "faithfulness_estimate": "higher",
        "focus": "higher",
        "infidelity": "lower",
        "input_invariance": "lower",
        "insertion": "higher",
        "irof": "higher",
        "local_lipschitz_estimate": "lower",
        "localization_auc": "higher",
        "maximum_sensitivity": "lower",
        "model_randomization": "lower",
        "monotonicity": "higher",
        "monotonicity_correlation": "higher",
        "multiscale_total_variation": "lower",
        "non_sensitivity": "lower",
        "perturbation_curve": "lower",
        "pixel_flipping": "lower",
        "pointing_game": "higher",
        "random_logit": "lower",
        "region_perturbation": "higher",
        "relative_input_stability": "lower",
        "relative_output_stability": "lower",
        "relative_representation_stability": "lower",
        "relevance_mass": "higher",
        "relevance_rank": "higher",
        "road": "lower",
        "selectivity": "lower",
        "sensitivity_n": "higher",
        "smooth_model_randomization": "lower",
        "soft_comprehensiveness": "higher",
        "soft_sufficiency": "higher",
        "sparseness": "higher",
        "sufficiency": "lower",
        "token_deletion": "lower",
        "token_insertion": "higher",
        "top_k_intersection": "higher",
    }
)
