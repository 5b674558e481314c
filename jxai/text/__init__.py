"""Relevance of tokens, words, heads and layers, for whatever a language model or a sentence encoder says."""

from jxai.text.layers import LayerRelevance, layers, strongest
from jxai.text.pieces import Pieces, join, pieces
from jxai.text.relevance import explain, logits, token_relevance
from jxai.text.rollout import attention, attention_rollout
from jxai.text.similarity import Similarity, similarity, token_pairs

__all__ = [
    "LayerRelevance",
    "Pieces",
    "Similarity",
    "attention",
    "attention_rollout",
    "explain",
    "join",
    "layers",
    "logits",
    "pieces",
    "similarity",
    "strongest",
    "token_pairs",
    "token_relevance",
]
