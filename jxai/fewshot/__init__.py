"""Few-shot classification: episodes, heads, and training guided by a head's own explanations."""

from jxai.fewshot.baselines import cosine_probe, linear_probe, nearest_centroid
from jxai.fewshot.episode import Episode
from jxai.fewshot.evaluation import encode, episode_accuracies
from jxai.fewshot.explanation import Explanation, log_odds
from jxai.fewshot.fine_tuning import fine_tuned_scores
from jxai.fewshot.guidance import PLAIN, Guidance, guided_loss, head_loss
from jxai.fewshot.heads import (
    AdaptedHead,
    CrossAttentionHead,
    FEATHead,
    GraphHead,
    Head,
    MatchingHead,
    PrototypeHead,
    RelationHead,
    prototypes,
    released_weight,
)
from jxai.fewshot.multi_domain import init_multi_domain, learned_transformation_loss, transformed_loss
from jxai.fewshot.pixels import episode_relevance, pixel_relevance
from jxai.fewshot.system import init_variables, part
from jxai.fewshot.transduction import Transduction, transductive_scores
from jxai.fewshot.transformation import Transformed, init_transformation
from jxai.intervals import hierarchical_interval, mean_and_interval

__all__ = [
    "PLAIN",
    "AdaptedHead",
    "CrossAttentionHead",
    "Episode",
    "Explanation",
    "FEATHead",
    "GraphHead",
    "Guidance",
    "Head",
    "MatchingHead",
    "PrototypeHead",
    "RelationHead",
    "Transduction",
    "Transformed",
    "cosine_probe",
    "encode",
    "episode_accuracies",
    "episode_relevance",
    "fine_tuned_scores",
    "guided_loss",
    "head_loss",
    "hierarchical_interval",
    "init_multi_domain",
    "init_transformation",
    "init_variables",
    "learned_transformation_loss",
    "linear_probe",
    "log_odds",
    "mean_and_interval",
    "nearest_centroid",
    "part",
    "pixel_relevance",
    "prototypes",
    "released_weight",
    "transductive_scores",
    "transformed_loss",
]
