"""Heads: classifiers of query features by support features."""

from jxai.fewshot.heads.adapted import AdaptedHead
from jxai.fewshot.heads.conditioned import Conditioned, ConditionedHead
from jxai.fewshot.heads.cross_attention import Attended, CrossAttentionHead, MapWeights
from jxai.fewshot.heads.feat import FEATHead
from jxai.fewshot.heads.graph import GraphHead
from jxai.fewshot.heads.head import Head, prototypes, released_weight
from jxai.fewshot.heads.matching import MatchingHead
from jxai.fewshot.heads.pairs import PairConv, Pairs
from jxai.fewshot.heads.prototype import PrototypeHead
from jxai.fewshot.heads.relation import RelationHead

__all__ = [
    "AdaptedHead",
    "Attended",
    "Conditioned",
    "ConditionedHead",
    "CrossAttentionHead",
    "FEATHead",
    "GraphHead",
    "Head",
    "MapWeights",
    "MatchingHead",
    "PairConv",
    "Pairs",
    "PrototypeHead",
    "RelationHead",
    "prototypes",
    "released_weight",
]
