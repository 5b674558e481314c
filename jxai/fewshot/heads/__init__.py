"""Heads: classifiers of query features by support features."""

from jxai.fewshot.heads.head import Head
from jxai.fewshot.heads.pairs import PairConv, Pairs
from jxai.fewshot.heads.relation import RelationHead

__all__ = ["Head", "PairConv", "Pairs", "RelationHead"]
