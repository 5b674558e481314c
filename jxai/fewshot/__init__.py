"""Few-shot classification: episodes, heads, and training guided by a head's own explanations."""

from jxai.fewshot.episode import Episode
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

__all__ = [
    "PLAIN",
    "Episode",
    "Explanation",
    "Guidance",
    "Head",
    "RelationHead",
    "explain_head",
    "guided_loss",
    "head_loss",
    "log_odds",
    "released_weight",
    "relevance_weights",
]
