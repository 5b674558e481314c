"""Training through explanations: losses on what explains a model, for any function of JAX and any explanation.

Each loss is a pure function of explanations to one number an example, (N,), as Optax's are: add its mean, times a
weight, to the loss that is trained. Explanations come from `jxai.lrp.relevance` or any estimator of
`jxai.attribution`, called with the parameters inside of the function that is differentiated.
"""

from jxai.guidance.agreement import disagreement, inconsistency
from jxai.guidance.concepts import concept_sensitivity, concept_vector, without_concept
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
    "weighted_scores",
    "without_concept",
]
