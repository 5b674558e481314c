"""Which way is better, for every score of this package."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal

# By the function's name. `road` with `most_relevant_first=False` is the other way round, and so is
# `region_perturbation` with `order="least_relevant"`.
DIRECTIONS: Mapping[str, Literal["higher", "lower"]] = MappingProxyType(
    {
        "aupc": "lower",
        "autvc": "lower",
        "average_total_variation": "lower",
        "completeness": "lower",
        "complexity": "lower",
        "comprehensiveness": "higher",
        "deletion": "lower",
        "faithfulness_correlation": "higher",
        "faithfulness_estimate": "higher",
        "infidelity": "lower",
        "insertion": "higher",
        "irof": "higher",
        "maximum_sensitivity": "lower",
        "model_randomization": "lower",
        "monotonicity": "higher",
        "monotonicity_correlation": "higher",
        "multiscale_total_variation": "lower",
        "perturbation_curve": "lower",
        "pixel_flipping": "lower",
        "pointing_game": "higher",
        "region_perturbation": "higher",
        "relevance_mass": "higher",
        "relevance_rank": "higher",
        "road": "lower",
        "selectivity": "lower",
        "sensitivity_n": "higher",
        "soft_comprehensiveness": "higher",
        "soft_sufficiency": "higher",
        "sparseness": "higher",
        "sufficiency": "lower",
        "token_deletion": "lower",
        "token_insertion": "higher",
    }
)
