"""Few-shot classification: episodes, heads, and training guided by a head's own explanations."""

from jxai.fewshot.episode import Episode
from jxai.fewshot.evaluation import encode, episode_accuracies, mean_and_interval
from jxai.fewshot.guidance import (
    PLAIN,
    Explanation,
    Guidance,
    explain_head,
    guided_loss,
    head_loss,
    log_odds,
    released_weight,
    relevance_weights,
)
from jxai.fewshot.heads import Head, RelationHead
from jxai.fewshot.pixels import pixel_relevance
from jxai.fewshot.system import init_variables, part

__all__ = [
    "PLAIN",
    "Episode",
    "Explanation",
    "Guidance",
    "Head",
    "RelationHead",
    "encode",
    "episode_accuracies",
    "explain_head",
    "guided_loss",
    "head_loss",
    "init_variables",
    "log_odds",
    "mean_and_interval",
    "part",
    "pixel_relevance",
    "released_weight",
    "relevance_weights",
]
