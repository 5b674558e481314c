"""Training through explanations: losses on what explains a model, for any function of JAX and any explanation."""

from jxai.guidance.agreement import disagreement, inconsistency
from jxai.guidance.concepts import concept_sensitivity, concept_vector, without_concept
from jxai.guidance.faithfulness import unfaithfulness
from jxai.guidance.masks import background, drawn_classes, foreground_range, right_reasons, sum_of_logs
from jxai.guidance.priors import density, roughness
from jxai.guidance.weights import relevance_weights, weighted_scores

__all__ = [
    "background",
    "concept_sensitivity",
    "concept_vector",
    "density",
    "disagreement",
    "drawn_classes",
    "foreground_range",
    "inconsistency",
    "relevance_weights",
    "right_reasons",
    "roughness",
    "sum_of_logs",
    "unfaithfulness",
    "weighted_scores",
    "without_concept",
]
