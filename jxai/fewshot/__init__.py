"""Few-shot classification: episodes, heads, and training guided by a head's own explanations."""

from jxai.fewshot.episode import Episode
from jxai.fewshot.evaluation import encode, episode_accuracies
from jxai.fewshot.explanation import Explanation, log_odds
from jxai.fewshot.guidance import PLAIN, Guidance, guided_loss, head_loss
from jxai.fewshot.heads import (
    CrossAttentionHead,
    GraphHead,
    Head,
    MatchingHead,
    PrototypeHead,
    RelationHead,
    prototypes,
    released_weight,
)
from jxai.fewshot.multi_domain import init_multi_domain, learned_transformation_loss, transformed_loss
from jxai.fewshot.pixels import pixel_relevance
from jxai.fewshot.system import init_variables, part
from jxai.fewshot.transduction import Transduction, transductive_scores
from jxai.fewshot.transformation import Transformed, init_transformation
from jxai.intervals import hierarchical_interval, mean_and_interval

__all__ = [
    "PLAIN",
    "CrossAttentionHead",
    "Episode",
    "Explanation",
    "GraphHead",
    "Guidance",
    "Head",
    "MatchingHead",
    "PrototypeHead",
    "RelationHead",
    "Transduction",
    "Transformed",
    "encode",
    "episode_accuracies",
    "guided_loss",
    "head_loss",
    "hierarchical_interval",
    "init_multi_domain",
    "init_transformation",
    "init_variables",
    "learned_transformation_loss",
    "log_odds",
    "mean_and_interval",
    "part",
    "pixel_relevance",
    "prototypes",
    "released_weight",
    "transductive_scores",
    "transformed_loss",
]
